"""The MLflow flavor for DSPy programs. This version of dspy-trace has none of its functions yet."""

from typing import NoReturn

_PLANNED = frozenset({"load_model", "log_model", "predict", "predict_stream", "save_model"})


def __getattr__(name: str) -> NoReturn:
    """Say, for a function that is planned, that it is not there yet: a clearer error than Python's own."""
    if name in _PLANNED:
        raise AttributeError(
            f"dspy_trace_flavor.{name} is not part of this version of dspy-trace yet. "
            "To save a DSPy program until it is, use mlflow.dspy or dspy.Module.save."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
