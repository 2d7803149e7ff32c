"""The one place that swallows an exception.

We are a guest: whatever fails in our own code costs a span or an attribute, never the program. Failures are counted and
the first of each kind is logged with its traceback. ``KeyboardInterrupt``, ``CancelledError`` and the like pass.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger("dspy_trace")


def _without_secrets(record: logging.LogRecord) -> bool:
    """Take secrets out of a line of our own log, its traceback included; a filter of ``logging``."""
    from dspy_trace.secrets import scrub_text

    message = record.getMessage()
    hidden = scrub_text(message)
    if hidden != message:
        record.msg, record.args = hidden, ()
    if record.exc_info:
        text = record.exc_text or logging.Formatter().formatException(record.exc_info)
        hidden = scrub_text(text)
        if hidden != text:
            # Handlers make text of the exception themselves, unless there is one.
            record.exc_text, record.exc_info = hidden, None
    return True


logger.addFilter(_without_secrets)

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


def attempt(function: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
    """Return what ``function(*args)`` returns and ``None``, or ``None`` and what it raised, for the caller to judge.

    For libraries that raise what they please, where each kind means something else to be done.
    """
    try:
        return function(*args), None
    except Exception as error:
        return None, error


def unseen(error: BaseException) -> None:
    """Take the caller's frame out of the traceback of `error`, which passes through it; to be followed by ``raise``.

    DSPy shows LMs the traceback of a tool that failed: one frame more is another request, and a cached reply lost.
    Python 3.10 puts the frame back.
    """
    trace = error.__traceback__
    if trace is not None and trace.tb_frame is sys._getframe(1):  # pyright: ignore[reportPrivateUsage]  # public enough
        error.__traceback__ = trace.tb_next


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
