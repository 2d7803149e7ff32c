"""A spool that breaks, at rest or while programs use it: what can be read of it is kept, and what cannot is counted."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dspy_trace.export import drain, records, worker
from dspy_trace.export.places import open_spool, spool_file
from dspy_trace.export.target import Target
from dspy_trace.runs import spooled
from dspy_trace.runs.spooled import Record
from tests.delivery import PAGE, adds_up, checkpoint, delivering, environment, eventually, halved, spans_of, trace
from tests.parts.scripted_mlflow import ScriptedMlflow

LONG = "x" * 100_000
"""So that two hundred traces are several times what SQLite keeps in memory and a request holds."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.02)
    monkeypatch.setattr(drain, "LONGEST", 0.1)


def broken(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said of broken spools."""
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    return [text for text in told if "broken" in text]


def emptied(file: Path) -> None:
    """Cut it off at its beginning."""
    os.truncate(file, 0)


def overwritten(file: Path) -> None:
    """Have its middle written over."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 3 // PAGE * PAGE)
        opened.write(os.urandom(file.stat().st_size // 3))


DAMAGE = pytest.mark.parametrize("damage", [emptied, halved, overwritten])


@DAMAGE
def test_it_breaks_while_a_program_uses_it(
    damage: Callable[[Path], None], scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The program goes on with a new one; what could be read is delivered, and the rest counted, exactly."""
    target, file = Target(scripted_mlflow.url), spool_file(tmp_path / "spool")
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([first := trace(target)])
        eventually(lambda: not delivery.waits())
        scripted_mlflow.close()
        put = [trace(target, text=LONG) for _ in range(200)]
        for one in put:
            delivery.put([one])
        checkpoint(file)
        damage(file)
        scripted_mlflow.restart()
        eventually(lambda: broken(caplog))
        delivery.put([more := trace(target)])
        eventually(lambda: not delivery.waits())
        counters = delivery.counters
        assert adds_up(delivery, 606)
        assert delivery.file().path == file
        assert not records.anything(delivery.memory())
    stored = spans_of(first, more) | (spans_of(*put) & set(scripted_mlflow.spans))
    assert set(scripted_mlflow.spans) == stored
    assert counters.dropped["spool broken"] >= 606 - len(stored) > 0
    (said,) = broken(caplog)
    assert "malformed" in said or "not a database" in said
    assert list(file.parent.glob(f"{file.name}.broken-*"))


@pytest.mark.parametrize("by", [b"", b"no database" * 4_000])
def test_it_is_replaced_while_a_program_uses_it(by: bytes, scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """What waited in the one that has gone goes over into a new one; nothing is lost."""
    target, file = Target(scripted_mlflow.url), spool_file(tmp_path / "spool")
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as delivery:
        put = [trace(target, text=LONG) for _ in range(50)]
        delivery.put(put)
        other = file.with_name("other")
        other.write_bytes(by)
        other.replace(file)
        scripted_mlflow.restart()
        put.append(trace(target))
        delivery.put(put[-1:])
        eventually(lambda: not delivery.waits())
        assert adds_up(delivery, 153)
        assert not records.anything(delivery.memory())
    assert set(scripted_mlflow.spans) == spans_of(*put)


def test_two_programs_share_it(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One finds it broken and mends it; the other goes over to the new one, and nothing is counted by both."""
    target, file = Target(scripted_mlflow.url), spool_file(tmp_path / "spool")
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as one, delivering(environment(tmp_path)) as other:
        put = [trace(target, text=LONG) for _ in range(200)]
        for number, made in enumerate(put):
            (one if number % 2 else other).put([made])
        checkpoint(file)
        halved(file)
        scripted_mlflow.restart()
        eventually(lambda: broken(caplog))
        for delivery in (one, other):
            delivery.put([made := trace(target)])
            put.append(made)
        eventually(lambda: not one.waits() and not other.waits())
        assert adds_up(one, 303)
        assert adds_up(other, 303)
        assert one.counters.delivered + other.counters.delivered == len(scripted_mlflow.spans)
    assert len(broken(caplog)) == 1
    assert spans_of(*put[-2:]) < set(scripted_mlflow.spans) < spans_of(*put)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_what_is_said_of_runs_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: float) -> None:
    """Records of runs, in their order, their ids and rows of their tables are read out of a spool that is cut off."""
    target, file = Target("sqlite:////mlflow.db", experiment_name="mine"), spool_file(tmp_path / "spool")
    made = open_spool(environ=environment(tmp_path))
    spooled.note_id(made, "run", "0123")
    spooled.add_rows(made, "run", "table", {"b": b"2", "a": b"1"})
    told = [Record(target, "run", b"%d" % number + LONG.encode(), number == 99) for number in range(100)]
    spooled.put(made, told, "me", {target})
    made.put([trace(target)], "me", {target})
    records.report(made, target.uri, "gone", "it is gone")
    made.close()
    os.truncate(file, int(file.stat().st_size * kept) // PAGE * PAGE)
    again = open_spool(environ=environment(tmp_path))
    ((number, found, sealed, folder),) = again.targets()
    assert (found, sealed, folder) == (target, True, str(Path.cwd()))
    taken = spooled.take(again, number, "run", 2**40)
    order = [told.index(Record(target, "run", one.payload, one.payload[:2] == b"99")) for one in taken]
    assert order == sorted(order)
    assert len(taken) > 20
    assert {one.owner for one in taken} == {"me"}
    assert spooled.mlflow_id(again, "run") == "0123"
    assert spooled.rows(again, "run", "table") == [b"1", b"2"]
    assert [one.cause for one in records.problems(again)] == ["gone"]
    assert f"{len(taken)} records of runs" in broken(caplog)[0]
    again.put([trace(target)], "me")
    assert again.read("SELECT max(id) FROM batches")[0][0] > 10**12, "the id of a batch that was lost is given again"


@pytest.mark.parametrize("when", ["before", "while"])
def test_the_worker_begins_anew(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds the spool broken mends it; if it has one open, it begins anew as a fresh process."""
    made, file = open_spool(environ=environment(tmp_path)), spool_file(tmp_path / "spool")
    for _ in range(200):
        made.put([trace(Target("http://127.0.0.1:9"), text=LONG)], "me")
    made.close()
    if when == "before":
        file.write_bytes(os.urandom(8 * PAGE))

    class Tried(worker.Worker):
        again = False

        def _look(self) -> None:
            if when == "while" and not self.again:
                halved(file)
                self.spool.read("SELECT payload FROM batches")
            super()._look()

        def _again(self) -> None:
            self.again = True

    tried = Tried(file.parent, "shared", {"DSPY_TRACE_WORKER_IDLE": "0"})
    assert tried.run() == 0
    assert tried.again is (when == "while")
    (aside,) = file.parent.glob(f"{file.name}.broken-???*.???")
    with closing(open_spool(environ=environment(tmp_path))) as new:
        assert aside.stat().st_size > 0
        saved = records.waiting(new).batches
        assert 50 < saved < 200 if when == "while" else saved == 0
