"""Who else instruments DSPy in this process.

Two of a kind make every call two sets of spans. We say so once, name both, and say how to keep one; we switch nobody
off.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from dspy_trace.guard import ask

logger = logging.getLogger("dspy_trace")

_INSTRUMENTORS = {
    "openinference.instrumentation.dspy": "openinference-instrumentation-dspy",
    "opentelemetry.instrumentation.genai.dspy": "opentelemetry-instrumentation-genai-dspy",
}
"""Modules with a ``DSPyInstrumentor`` of their own, and the packages that they come in."""

PACKAGES = tuple(_INSTRUMENTORS.values())
"""Packages that instrument DSPy as well."""


def active() -> dict[str, str]:
    """Return each other instrumentation of DSPy that is in force now, and how to end it."""
    found = {}
    for module, package in _INSTRUMENTORS.items():
        instrumentor = getattr(sys.modules.get(module), "DSPyInstrumentor", None)
        if instrumentor is not None and ask(getattr, instrumentor(), "is_instrumented_by_opentelemetry"):
            found[package] = (
                f"call {module}.DSPyInstrumentor().uninstrument(), or, under opentelemetry-instrument, "
                "set OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=dspy"
            )
    if "mlflow" in sys.modules and any(type(one).__module__.startswith("mlflow.dspy") for one in _callbacks()):
        found["mlflow.dspy.autolog"] = "call mlflow.dspy.autolog(disable=True)"
    return found


def _callbacks() -> list[Any]:
    settings = getattr(sys.modules.get("dspy"), "settings", None)
    callbacks = ask(getattr, settings, "callbacks", default=None)
    return list(callbacks) if isinstance(callbacks, list) else []


_warned = False


def warn_once() -> None:
    """Log one warning, once per process, if anybody else instruments DSPy."""
    global _warned  # noqa: PLW0603  # once per process is what it says
    if _warned or not (others := active()):
        return
    _warned = True
    remedies = "; ".join(f"to keep dspy-trace, {remedy}" for remedy in others.values())
    logger.warning(
        "DSPy is instrumented by dspy-trace and by %s: every call makes two sets of spans. Keep one: %s; to keep the "
        "other, call dspy_trace.DSPyInstrumentor().uninstrument() or set "
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=dspy_trace.",
        " and ".join(others),
        remedies,
    )
