"""Whose turn it is to be written, of the runs that wait for one tracking server or database."""

from __future__ import annotations

from pathlib import Path

from dspy_trace.export import records
from dspy_trace.export.outcomes import Refused, Undelivered, Unwelcome
from dspy_trace.export.places import open_spool
from dspy_trace.export.target import Target
from dspy_trace.runs import spooled
from dspy_trace.runs.drain import RunDrain
from tests.delivery import environment

URI = "http://127.0.0.1:9"


class Place:
    """A store without a client: experiments of it are deleted, or refuse whatever is said."""

    def __init__(self) -> None:
        self.deleted = {"mine"}

    def runs(self) -> None:
        return None

    def experiment(self, target: Target) -> str:
        if target.experiment_name in self.deleted:
            raise Unwelcome("it has been deleted", "deleted", "Restore it.")
        raise Refused("no more runs")


def test_an_experiment_that_takes_no_runs_holds_up_no_other(tmp_path: Path) -> None:
    """Runs in other experiments have their turn, and what is wrong is said; once that is mended, so has this one."""
    spool, place = open_spool(environ=environment(tmp_path)), Place()
    told: list[Undelivered] = []
    drain = RunDrain(URI, place, spool, tell=lambda uri, error: told.append(error))  # type: ignore[arg-type]  # see Place
    targets = [Target(URI, experiment_name=name) for name in ("mine", "theirs")]
    spooled.put(spool, [spooled.Record(one, f"run of {one.experiment_name}", b"{}", True) for one in targets], "me")
    drain.step()
    assert [one.trace_id for one in records.dead_letters(spool)] == ["run of theirs"]
    assert [one.words for one in told] == ["a run (no more runs)"]
    assert drain.step() is not None
    assert [one.cause for one in records.problems(spool)] == ["deleted"]
    place.deleted.clear()
    drain.hurry(0.0)
    drain.step()
    assert {one.trace_id for one in records.dead_letters(spool)} == {"run of mine", "run of theirs"}
    assert not records.problems(spool)
    assert drain.step() is None
    spool.close()
