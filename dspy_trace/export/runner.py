"""Threads of ours: they work step by step, sleep otherwise, and never keep the program from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from dspy_trace.guard import shielded

T = TypeVar("T")

AGAIN = 5.0
"""Seconds until a step that has failed by a fault of our own is tried again."""


class Steps(Protocol):
    """Something that a runner works at, step by step."""

    def step(self) -> float | None:
        """Do a little; return the seconds until there is more to do, ``None`` if only a call can tell."""
        ...


class Runner(threading.Thread):
    """A thread that works at one thing or several.

    Args:
        longest: seconds after which it looks again without being called; ``None`` is never.
    """

    def __init__(self, longest: float | None = None) -> None:
        super().__init__(name="dspy-trace-delivery", daemon=True)
        self.work: list[Steps] = []
        self._longest = longest
        self._wake = threading.Event()
        self._ended = False

    def wake(self) -> None:
        """Let it look at once."""
        self._wake.set()

    def end(self) -> None:
        """Let it end after the step that it is at."""
        self._ended = True
        self._wake.set()

    def run(self) -> None:
        _make_no_spans()
        while not self._ended:
            self._wake.clear()
            done = [shielded("delivering", _stepped, work) for work in tuple(self.work)]
            delays = [AGAIN if step is None else step[0] for step in done]
            if not self._ended:
                due = [delay for delay in (*delays, self._longest) if delay is not None]
                self._wake.wait(min(due, default=None))


def _stepped(work: Steps) -> tuple[float | None]:
    return (work.step(),)


def started(runner: Runner) -> Runner | None:
    """Start a runner and return it, unless the program has begun to end, when no thread can be started."""
    try:
        runner.start()
    except RuntimeError:
        return None
    return runner


def within(seconds: float, step: str, work: Callable[[], T]) -> T | None:
    """Do some work on a thread of ours; return its result, or ``None`` if it takes longer, and then it goes on.

    So the caller is held up no longer than this, whatever locks, disks and other processes hold up the work.
    """
    done: list[T | None] = []

    def run() -> None:
        _make_no_spans()
        done.append(shielded(step, work))

    thread = threading.Thread(target=run, name="dspy-trace-delivery", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the program is ending
        return shielded(step, work)
    thread.join(seconds)
    return done[0] if done else None


def _make_no_spans() -> None:
    """Keep instrumentations of HTTP and databases from tracing what this thread does."""
    from opentelemetry import context

    made = context.set_value("suppress_instrumentation", True)
    context.attach(context.set_value("suppress_http_instrumentation", True, made))
