"""Experiments that take nothing for now: what is for others of the same server or database does not wait for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from dspy_trace.export.outcomes import Undelivered, Unwelcome
from dspy_trace.export.target import Target

OF_EXPERIMENTS: Final = frozenset({"deleted", "forbidden", "missing"})
"""Causes that may be those of one experiment alone."""

SAID: Final = 10.0
"""Seconds after which it is said that an experiment takes nothing, though others do."""


@dataclass(slots=True)
class _Pause:
    error: Unwelcome
    since: float
    until: float = 0.0
    tries: int = 0
    said: bool = False


class Pauses:
    """Which experiments are not to be tried again yet.

    Args:
        length: returns the seconds of the pause after so many tries.
    """

    def __init__(self, length: Callable[[int], float]) -> None:
        self._length = length
        self._of: dict[Target, _Pause] = {}

    def left(self, target: Target) -> float:
        """Return the seconds until an experiment is to be tried again; 0 if it is to be tried now."""
        pause = self._of.get(target)
        return max(pause.until - monotonic(), 0.0) if pause is not None else 0.0

    def begin(self, target: Target, error: Unwelcome) -> float:
        """Note that an experiment takes nothing; return the seconds of the pause.

        Raises:
            Unwelcome: the error, if it is not of one experiment alone.
        """
        if error.cause not in OF_EXPERIMENTS:
            raise error
        now = monotonic()
        pause = self._of.setdefault(target, _Pause(error, now))
        pause.tries += 1
        pause.error, pause.said = error, False
        delay = self._length(pause.tries)
        pause.until = now + delay
        return delay

    def end(self, target: Target) -> None:
        """Note that an experiment takes something again, or that nothing is left for it."""
        self._of.pop(target, None)

    def hurry(self) -> None:
        """Let all be tried at once."""
        for pause in tuple(self._of.values()):
            pause.until = 0.0

    def are_for(self, problem: Undelivered | None) -> bool:
        """Return whether an experiment takes nothing because of this problem."""
        return any(pause.error is problem for pause in self._of.values())

    def say_again(self) -> None:
        """Say all of it anew: what was written down of it is gone."""
        for pause in self._of.values():
            pause.said = False

    def to_be_said(self, busy: bool) -> list[Unwelcome]:
        """Return what has not been said of pauses yet: while others are busy, only of those that last."""
        since = monotonic() - SAID if busy else float("inf")
        found = [pause for pause in self._of.values() if not pause.said and pause.since <= since]
        for pause in found:
            pause.said = True
        return [pause.error for pause in found]
