"""Who else makes spans of DSPy's calls in this process, and how each call gets one.

Another instrumentation of DSPy makes every call two sets of spans. We say so once, name both, and say how to keep one;
we switch nobody off. An instrumentation of a client beneath us, such as OpenAI's, is told by the keys of
``opentelemetry-util-genai`` that the call has a span already; and where one above us says so, ours gives way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.context import Context

from dspy_trace import facts
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
        found["mlflow.dspy.autolog"] = (
            "call mlflow.dspy.autolog(disable=True), and before MLflow's evaluate(), which switches it on otherwise"
        )
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


_GENAI = "opentelemetry.util.genai.invocation"
"""Who has not imported it, reads no keys of it: it is never imported by us."""

_KEYS: Final = {
    facts.LMCall: ("CLIENT_INFERENCE_CONTEXT_KEY", "InferenceData"),
    facts.DecisionCall: ("CLIENT_INFERENCE_CONTEXT_KEY", "InferenceData"),
    facts.Embedding: ("CLIENT_EMBEDDING_CONTEXT_KEY", "EmbeddingData"),
    facts.Retrieval: ("CLIENT_RETRIEVAL_CONTEXT_KEY", "RetrievalData"),
}
"""By kind of call: names of the context key that claims it, and of what the key must hold."""

_NOTHING: Final[Mapping[str, Any]] = {}


def claims(kind: type[facts.Fact]) -> Mapping[str, Any]:
    """Return what to put into the context of a call of `kind`, so that others make no span of it."""
    if _GENAI not in sys.modules:
        return _NOTHING
    key, cls = _found(kind)
    return _NOTHING if key is None or cls is None else {key: _ours(cls)()}


def claimed(context: Context, fact: facts.Fact) -> Claimed | None:
    """Return who makes a span of this call already, unless that is we: an LM may call another."""
    if _GENAI not in sys.modules:
        return None
    key, cls = _found(type(fact))
    data = context.get(key) if key is not None else None
    if cls is None or not isinstance(data, cls) or isinstance(data, _ours(cls)):
        return None
    return Claimed(data, fact)


def _found(kind: type[facts.Fact]) -> tuple[str | None, type[Any] | None]:
    module = sys.modules.get(_GENAI)
    if module is None or kind not in _KEYS:
        return None, None
    key, cls = (getattr(module, name, None) for name in _KEYS[kind])
    return (key, cls) if isinstance(key, str) and isinstance(cls, type) else (None, None)


_ours_of: dict[type[Any], type[Any]] = {}


def _ours(cls: type[Any]) -> type[Any]:
    """Return a class of our own that passes for `cls`, always the same."""
    if cls not in _ours_of:
        _ours_of[cls] = type(cls.__name__, (cls,), {})
    return _ours_of[cls]


class Claimed:
    """A call that has a span of another's already; that is told what we know of it."""

    __slots__ = ("_data", "_fact")

    def __init__(self, data: Any, fact: facts.Fact) -> None:
        self._data = data
        self._fact = fact

    def end(self, error: BaseException | None, context: Context | None) -> None:
        """Add what the other does not know itself."""
        fact = self._fact
        if isinstance(fact, facts.LMCall) and not fact.cache_hit:
            told = {
                "response_id": fact.response_id,
                "response_model": fact.response_model,
                "response_finish_reasons": list(fact.finish_reasons) or None,
                "usage_input_tokens": fact.input_tokens,
                "usage_output_tokens": fact.output_tokens,
            }
            for name, value in told.items():
                if value is not None and getattr(self._data, name, value) is None:
                    setattr(self._data, name, value)
