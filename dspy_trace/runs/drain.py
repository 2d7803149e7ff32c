"""Writing runs, in the worker process: which run's turn it is, and what is done when it fails."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from dspy_trace.export.database import DatabaseSink, meaning
from dspy_trace.export.drain import Drain, Tell
from dspy_trace.export.outcomes import Failing, Refused, Undelivered
from dspy_trace.export.sinks import HttpSink
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from dspy_trace.guard import attempt
from dspy_trace.runs import spooled
from dspy_trace.runs.writer import Writer

PACE, WORK, LONGEST = 1.0, 10.0, 10.0
"""A run that goes on is written at most once in this many seconds, and for at most one part in so many of the time,
but at least this often, in seconds."""

TRIES = 3
"""How often what breaks MLflow down is tried as a whole, before it is taken apart."""


class RunSink(Protocol):
    """Where runs are written to. Each method raises :class:`~dspy_trace.export.outcomes.Undelivered`."""

    def runs(self) -> Any:
        """Return MLflow's client."""
        ...

    def experiment(self, target: Target) -> str:
        """Return the id of the experiment, which is created if it is named and missing."""
        ...


class ServerSink(HttpSink):
    """A tracking server. The credential is in the worker's environment, where MLflow's client finds it."""

    def __init__(self, uri: str) -> None:
        from dspy_trace.export.target import target

        super().__init__(uri, lambda _: target(uri, None)[1])
        self._uri = uri

    def runs(self) -> Any:
        def made() -> Any:
            from mlflow import MlflowClient

            return MlflowClient(self._uri)

        client, error = attempt(made)
        if error is not None:
            raise meaning(error) from error
        return client


class RunDrain(Drain):
    """Writes the runs that wait for one tracking URI. Used by one thread, in the one process that may.

    Args:
        uri: the tracking URI.
        sink: where they are written to.
        spool: where they wait.
        tell: told of failures, for people to read.
    """

    def __init__(self, uri: str, sink: DatabaseSink | ServerSink, spool: Spool, *, tell: Tell) -> None:
        super().__init__(uri, sink, lambda: [spool], "", tell=tell)
        self._place: RunSink = sink
        self._spool = spool
        self._again: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._clock: Callable[[], float] = monotonic

    def _serve(self, spool: Spool, number: int, target: Target) -> float | None:
        due: list[float] = []
        for run in spooled.waiting_runs(spool, number):
            left = self._again.get(run, 0.0) - self._clock()
            if left > 0 and not spooled.has_ended(spool, run):
                due.append(left)
            else:
                self._write(number, target, run)
                due.append(0.0)
        if not due:
            self._pauses.end(target)
        return min(due, default=None)

    def _look(self, spool: Spool) -> float | None:
        return None

    def _write(self, number: int, target: Target, run: str) -> None:
        taken = spooled.take(self._spool, number, run)
        writer = Writer(self._place.runs(), self._spool, lambda: self._place.experiment(target))
        begun = self._clock()
        writer.patient = self._tries.get(run, 0) < TRIES
        ended, refused = False, None
        try:
            ended = writer.write(run, [one.payload for one in taken])
        except Failing:
            self._tries[run] = self._tries.get(run, 0) + 1
            raise
        except Refused as error:
            refused = error.words
        spooled.settle(self._spool, number, run, taken, refused, ended)
        self._tries.pop(run, None)
        self._again[run] = self._clock() + min(max(PACE, WORK * (self._clock() - begun)), LONGEST)
        if ended:
            self._again.pop(run, None)
        self._succeeded(self._spool, target)
        for words in writer.refused:
            self._tell(self.uri, Undelivered(f"a part of a run ({words})", "dead", ""))
        if refused is not None:
            self._tell(self.uri, Undelivered(f"a run ({refused})", "dead", "See `dspy-trace dead-letters`."))
