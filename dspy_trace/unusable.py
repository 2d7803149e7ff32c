"""What stands in for our functions where OpenTelemetry's SDK cannot even be imported: they do nothing, and say so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

logger = logging.getLogger("dspy_trace")

_GIVES: Final = {"autolog": None, "flush": True, "last_trace_id": None, "log_feedback": None, "shutdown": None}
"""What they return, by name."""

_said: set[str] = set()


def stand_in(name: str, error: ValueError) -> Callable[..., Any]:
    """Return what stands in for a function of ours: the SDK reads some of its variables when it is imported.

    Raises:
        ValueError: the error, where nothing can.
    """
    if name not in _GIVES:
        raise error
    if str(error) not in _said:
        _said.add(str(error))
        logger.warning(
            "dspy-trace: OpenTelemetry's SDK cannot be imported, so nothing is traced: %s. Mend the OTEL_ variables.",
            error,
        )
    return lambda *args, **kwargs: _GIVES[name]
