"""Tracing for DSPy: every program becomes an OpenTelemetry trace, in MLflow, in any collector, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspy_trace._version import __version__

if TYPE_CHECKING:
    from dspy_trace.autologging import autolog
    from dspy_trace.checkup import doctor
    from dspy_trace.control import Stats, flush, last_trace_id, log_feedback, shutdown, stats
    from dspy_trace.instrumentor import DSPyInstrumentor
    from dspy_trace.sessions import session

__all__ = [
    "DSPyInstrumentor",
    "Stats",
    "__version__",
    "autolog",
    "doctor",
    "flush",
    "last_trace_id",
    "log_feedback",
    "session",
    "shutdown",
    "stats",
]

# No module may have a public name: once imported, it would stand in the place of the function.
_HOMES = {
    "autolog": "dspy_trace.autologging",
    "DSPyInstrumentor": "dspy_trace.instrumentor",
    "doctor": "dspy_trace.checkup",
    "session": "dspy_trace.sessions",
    **dict.fromkeys(("Stats", "flush", "last_trace_id", "log_feedback", "shutdown", "stats"), "dspy_trace.control"),
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing this package imports neither dspy nor the SDK."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(home), name)
    except ValueError as error:
        # OpenTelemetry's SDK raises it over some of its variables, which it reads when it is imported.
        from dspy_trace.unusable import stand_in

        return stand_in(name, error)
