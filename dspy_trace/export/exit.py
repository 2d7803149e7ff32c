"""The end of the program: how long it waits for delivery, and what it says of the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from dspy_trace import settings as names
from dspy_trace.export import records
from dspy_trace.guard import ask
from dspy_trace.settings import surroundings

if TYPE_CHECKING:
    from dspy_trace.export.sender import Delivery

HTTP = 4.5
"""Seconds to wait for servers, so that the whole end takes less than five. What is not there by then is delivered by
the next program."""

CONTAINER = 30.0
"""Seconds to wait for databases in a container, where the worker process would die with the program. Elsewhere it
does not, and the program does not wait."""

QUIET = 1.0
"""Seconds after which the waiting is said."""

LOOK = 0.02

_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")


def in_container(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether all processes here die when the main one ends."""
    return surroundings.KUBERNETES in environ or any(os.path.exists(file) for file in _CONTAINER_FILES)


def waits(environ: Mapping[str, str] = os.environ) -> tuple[float, float]:
    """Return the seconds that the end of the program waits for servers and for databases."""
    asked = ask(float, environ.get(names.EXIT_WAIT, "").strip())
    if asked is not None and 0 <= asked < float("inf"):
        return asked, asked
    return HTTP, CONTAINER if in_container(environ) else 0.0


def wait(delivery: Delivery, timeout: float, waiting: Callable[[], bool]) -> bool:
    """Deliver until nothing is waiting; return whether that came within `timeout` seconds."""
    begun = monotonic()
    delivery.hurry(begun + timeout)
    said = False
    while waiting():
        left = begun + timeout - monotonic()
        if left <= 0:
            return False
        if not said and monotonic() - begun > QUIET and delivery.launcher is not None and delivery.launcher.started:
            said = True
            say("MLflow's store is being opened by a process of its own, which takes some seconds the first time")
        delivery.progress.wait(min(left, LOOK))
        delivery.progress.clear()
    return True


def at_exit(delivery: Delivery, environ: Mapping[str, str] = os.environ) -> None:
    """Start what has to be started, wait as long as the rules say, and say what stays in the spool."""
    if delivery.spools():
        _Ending(delivery, environ).run()


class _Ending:
    """The end of one program."""

    def __init__(self, delivery: Delivery, environ: Mapping[str, str]) -> None:
        self.delivery = delivery
        self.begun = monotonic()
        for_servers, for_databases = waits(environ)
        launcher = delivery.launcher
        self.deadlines = dict.fromkeys(tuple(delivery.drains), self.begun + for_servers)
        if launcher is not None and not launcher.off:
            self.deadlines |= dict.fromkeys(launcher.uris, self.begun + for_databases)
        self.failed = {uri: drain.failed for uri, drain in tuple(delivery.drains.items())}
        self.for_runs = self.begun + for_databases
        self.given_up: set[str] = set()

    def run(self) -> None:
        delivery, launcher = self.delivery, self.delivery.launcher
        delivery.hurry(max(self.deadlines.values(), default=self.begun))
        waits = launcher is not None and (delivery.waits(launcher.uris) or delivery.waits(None, records.RUNS))
        if launcher is not None and launcher.problem is None and waits:
            launcher.start_now()
        said = False
        while left := self._left():
            if not said and monotonic() - self.begun > QUIET:
                said = True
                say(f"delivering traces to {', '.join(sorted(left))} (at most {self._longest(left):.0f} s more)")
            delivery.progress.wait(LOOK)
            delivery.progress.clear()
        self._say_what_stays()
        for spool in delivery.spools():
            spool.release(delivery.owner)
        if launcher is not None:
            launcher.abandon()

    def _left(self) -> set[str]:
        """Return the targets that are still worth waiting for."""
        now, for_all = monotonic(), (*records.TRACES, *records.RUNS)
        left = {uri for uri, deadline in self.deadlines.items() if now < deadline and uri not in self.given_up}
        for uri in tuple(left):
            # What a server is told of runs, the worker tells it, which goes on when the program has ended.
            tables = records.TRACES if uri in self.delivery.drains and now >= self.for_runs else for_all
            if not self.delivery.waits(frozenset((uri,)), tables):
                left.discard(uri)
            elif self._has_failed(uri):
                self.given_up.add(uri)
                left.discard(uri)
        return left

    def _has_failed(self, uri: str) -> bool:
        drain, launcher = self.delivery.drains.get(uri), self.delivery.launcher
        if drain is not None:
            return drain.failed > self.failed[uri] or drain.asked_to_wait
        return launcher is not None and launcher.problem is not None

    def _longest(self, left: set[str]) -> float:
        return max(self.deadlines[uri] for uri in left) - monotonic()

    def _say_what_stays(self) -> None:
        launcher = self.delivery.launcher
        for uri, deadline in self.deadlines.items():
            waiting = self.delivery.waiting(frozenset((uri,)))
            drain = self.delivery.drains.get(uri)
            problem = drain.problem if drain is not None else launcher.problem if launcher is not None else None
            # A database that was not to be waited for is being written to by the worker: nothing to say.
            if not waiting or (drain is None and problem is None and deadline <= self.begun):
                continue
            why = f" ({problem.words})" if problem is not None else ""
            say(f"{waiting.said()} in the spool for {uri}{why}; {_WHO}")


_WHO = "the next program that traces there delivers them, or `dspy-trace flush`"


def say(text: str) -> None:
    """Say something to the person who waits, on stderr, which may be gone by now."""
    ask(lambda: sys.stderr.write(f"dspy-trace: {text}\n"))
