"""The one place that swallows an exception.

We are a guest: whatever fails in our own code costs a span or an attribute, never the program. Failures are counted and
the first of each kind is logged with its traceback. ``KeyboardInterrupt``, ``CancelledError`` and the like pass.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger("dspy_trace")

P = ParamSpec("P")
T = TypeVar("T")

failures: Counter[str] = Counter()
"""How often each of our own steps has failed, by the name of the step. Example: ``{"reading a call": 1}``."""

strict = False
"""Re-raise instead of swallowing. Set by our own test suite, so that a swallowed failure fails the test."""

_lock = Lock()


def shielded(step: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Return ``function(*args)``; if it raises, count and log that `step` failed and return ``None``."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        if strict:
            raise
        report(step, error)
        return None


def ask(function: Callable[..., Any], *args: Any, default: Any = None) -> Any:
    """Return ``function(*args)`` where the function runs code of the host's, such as a property.

    What a host's object raises is its own affair: it yields `default` and is neither counted nor logged.
    """
    try:
        return function(*args)
    except Exception:
        return default


def report(step: str, error: BaseException) -> None:
    """Count a failure of ours, and log the first of its kind."""
    with _lock:
        failures[step] += 1
        first = failures[step] == 1
    if first:
        logger.warning(
            "dspy-trace: %s failed (%s). The program is not affected; the trace lacks what was being recorded. "
            "Further failures of this kind are counted, not logged.",
            step,
            type(error).__name__,
            exc_info=error,
        )
