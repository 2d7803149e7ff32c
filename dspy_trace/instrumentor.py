"""``DSPyInstrumentor``: DSPy under OpenTelemetry, from code or by ``opentelemetry-instrument``."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Collection
from threading import RLock
from types import ModuleType
from typing import Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped
from opentelemetry.trace import TracerProvider

from dspy_trace.guard import shielded
from dspy_trace.settings import resolve

logger = logging.getLogger("dspy_trace")

SUPPORTED = ("dspy >= 2.6.24",)
"""What :meth:`DSPyInstrumentor.instrumentation_dependencies` asks for."""

_lock = RLock()
_hooked: set[str] = set()


class DSPyInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped, see the import
    """Turns the calls of DSPy programs into OpenTelemetry spans.

    Patches DSPy when the program imports it, and restores it exactly on :meth:`uninstrument`. One per process.

    Example::

        DSPyInstrumentor().instrument()
    """

    _patches: Any = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the requirement that an installed DSPy has to meet."""
        return SUPPORTED

    def instrument(self, **kwargs: Any) -> None:
        """Start observing DSPy. Without effect, but for a logged message, where DSPy is missing or too old.

        Args:
            tracer_provider (TracerProvider | None): where spans go; by default the global provider, looked up anew
                whenever a trace starts.
            capture_content (bool | str | None): whether prompts, completions, inputs, outputs and exception texts go on
                spans: a bool, or a mode of ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``, which is read where
                this is ``None``. Off by default, as the GenAI conventions ask.
            detail (str | None): ``minimal``, ``standard`` (default) or ``full``.
            conventions (Collection[str] | None): vocabularies to write spans in; ``{"genai"}`` by default.
            redact (Callable[[Any], Any] | None): takes every captured value, as plain data, and returns what may be
                told of it.
            log_traces_from_eval (bool): trace what runs inside ``dspy.Evaluate``; default true.
            log_traces_from_compile (bool): trace what runs inside an optimizer's ``compile``; default true.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument is none of the words allowed for it.
        """
        super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        from dspy_trace.observer import Observer, activate

        provider: TracerProvider | None = kwargs.pop("tracer_provider", None)
        if provider is not None and not callable(getattr(provider, "get_tracer", None)):
            raise TypeError(f"tracer_provider must be a TracerProvider, not {type(provider).__name__}")
        for later in ("meter_provider", "logger_provider"):
            kwargs.pop(later, None)
        settings = resolve(**kwargs)
        with _lock:
            activate(Observer(settings, provider))
            self._watch(settings.detail)

    def _watch(self, detail: str) -> None:
        from dspy_trace.patching import Patches
        from dspy_trace.points.table import rows_for
        from dspy_trace.wrappers import make

        DSPyInstrumentor._patches = patches = Patches(rows_for(detail, _dspy_version()), make)
        for name in patches.modules():
            if name in _hooked:
                module = sys.modules.get(name)
                if module is not None:
                    shielded("patching DSPy", patches.module_loaded, module)
            else:
                _hooked.add(name)
                wrapt.register_post_import_hook(_module_loaded, name)

    def _uninstrument(self, **kwargs: Any) -> None:
        from dspy_trace.observer import activate

        with _lock:
            activate(None)
            patches, DSPyInstrumentor._patches = self._patches, None
            if patches is not None:
                patches.undo()


def _module_loaded(module: ModuleType) -> None:
    with _lock:
        patches = DSPyInstrumentor._patches
        if patches is not None:
            shielded("patching DSPy", patches.module_loaded, module)


def _dspy_version() -> tuple[int, int]:
    major, minor = importlib.metadata.version("dspy").split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()) or 0)
