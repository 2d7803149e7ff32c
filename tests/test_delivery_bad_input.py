"""What others leave in the spool, or answer in a server's place: nothing is lost by it, and nothing stands still."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dspy_trace.export import drain, records, sinks
from dspy_trace.export.items import Batch
from dspy_trace.export.places import open_spool, spool_file
from dspy_trace.export.target import Target
from tests.delivery import adds_up, batch, delivering, environment, eventually, row, spans_of, trace
from tests.parts.scripted_mlflow import Fault, Request, ScriptedMlflow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.02)
    monkeypatch.setattr(drain, "LONGEST", 0.1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings so far."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\xfe", b"{}", b"[1]", b'[{"trace_id": 7, "span_id": "x"}]', b'[{"trace_id": "ab", "span_id": "cd"}]'],
)
def test_rows_that_are_none_are_buried(scripted_mlflow: ScriptedMlflow, tmp_path: Path, payload: bytes) -> None:
    """What is no span is kept as a dead letter, and holds up nothing that came with it."""
    target = Target(scripted_mlflow.url)
    put = [trace(target), Batch(target, "ab" * 16, payload, 1, True), trace(target)]
    with delivering(environment(tmp_path)) as delivery:
        delivery.put(put)
        eventually(lambda: not delivery.waits())
        (letter,) = records.dead_letters(delivery.file())
        assert "not readable" in letter.reason or "cannot be encoded" in letter.reason
        assert delivery.counters.dead == 1
        assert adds_up(delivery, 7)
    assert set(scripted_mlflow.spans) == spans_of(put[0], put[2])


def test_a_page_of_a_proxy_is_no_acknowledgement(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """200 with something that MLflow would not say: it is said once, and all is sent again."""
    page = b"<!doctype html><title>Please log in</title>"
    logged_out = [True]

    def fault(request: Request) -> Fault | None:
        return Fault(200, page) if logged_out and request.path == "/v1/traces" else None

    scripted_mlflow.fault = fault
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put := trace(Target(scripted_mlflow.url))])
        eventually(lambda: warnings(caplog))
        assert delivery.counters.waiting == 3
        logged_out.clear()
        eventually(lambda: not delivery.waits())
        assert delivery.counters.delivered == 3
    assert set(scripted_mlflow.spans) == spans_of(put)
    (warning,) = warnings(caplog)
    assert "doctype html" in warning
    assert "MLFLOW_TRACKING_URI" in warning


def test_an_experiment_that_is_deleted_meanwhile(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed after a while; from then on rows wait, and the warning says how to restore it."""
    monkeypatch.setattr(sinks, "FRESH", 0.0)
    scripted_mlflow.experiments["mine"] = "3"
    target = Target(scripted_mlflow.url, experiment_name="mine")
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([before := trace(target)])
        eventually(lambda: not delivery.waits())
        scripted_mlflow.deleted.add("3")
        delivery.put([after := trace(target)])
        eventually(lambda: warnings(caplog))
        assert set(scripted_mlflow.spans) == spans_of(before)
        scripted_mlflow.deleted.clear()
        eventually(lambda: not delivery.waits())
    assert set(scripted_mlflow.spans) == spans_of(before, after)
    assert "experiments restore" in warnings(caplog)[0]


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "forbidden"])
def test_an_experiment_that_takes_nothing_holds_up_no_other(
    gone: bool, scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else goes to the same server goes there, of this program and of others; what is wrong stays said."""
    scripted_mlflow.experiments.update(mine="3", theirs="4")
    mine, theirs = (Target(scripted_mlflow.url, experiment_name=name) for name in ("mine", "theirs"))
    refused = {"3"}
    if gone:
        scripted_mlflow.deleted = refused
    else:
        scripted_mlflow.fault = lambda request: (
            Fault(403, b"not yours") if request.headers.get("x-mlflow-experiment-id") in refused else None
        )
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([held := trace(mine)])
        eventually(lambda: warnings(caplog))
        for _ in range(3):
            delivery.put([put := trace(theirs)])
            eventually(lambda put=put: spans_of(put) <= set(scripted_mlflow.spans))
        eventually(lambda: delivery.waiting().spans == 3)
        (problem,) = records.problems(delivery.file())
        assert problem.cause == ("deleted" if gone else "forbidden")
        assert len(warnings(caplog)) == 1
        refused.clear()
        assert delivery.flush(10)
        assert not records.problems(delivery.file())
        assert delivery.drains[scripted_mlflow.url].problem is None
    assert spans_of(held) <= set(scripted_mlflow.spans)


def test_a_server_that_was_away_meanwhile_is_not_said_to_be_away(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path
) -> None:
    """Of two things that were wrong, the one that is mended is forgotten, and the other is not."""
    scripted_mlflow.experiments.update(mine="3", theirs="4")
    scripted_mlflow.deleted = {"3"}
    busy = [Fault(503)] * 3
    scripted_mlflow.fault = lambda request: busy.pop() if busy and request.path == "/v1/traces" else None
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url, experiment_name=name)) for name in ("mine", "theirs")])
        eventually(lambda: len(scripted_mlflow.spans) == 3)
        eventually(lambda: [one.cause for one in records.problems(delivery.file())] == ["deleted"])


def by_experiment(server: ScriptedMlflow) -> dict[tuple[str, str], str]:
    """Return the experiment of each span that a server has."""
    names = {number: name for name, number in server.experiments.items()}
    return {key: names[span["experiment"]] for key, span in server.spans.items()}


@pytest.mark.parametrize("changed", ["experiment", "server"])
def test_a_target_that_changes_between_runs(
    changed: str, scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits for where an earlier program traced to goes there, not to where this one does, and that is said."""
    other = ScriptedMlflow()
    old = Target(scripted_mlflow.url, experiment_name="old")
    new = Target(scripted_mlflow.url if changed == "experiment" else other.url, experiment_name="new")
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as earlier:
        earlier.put([left := trace(old)])
        earlier.at_exit()
        with earlier.file().writing() as db:
            db.execute("UPDATE batches SET created = created - 4000")
    scripted_mlflow.restart()
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put := trace(new)])
        assert delivery.flush(10)
        assert len(scripted_mlflow.spans) == (6 if changed == "experiment" else 0)
        assert delivery.deliver_all(10)
    other.close()
    there, here = dict.fromkeys(spans_of(left), "old"), dict.fromkeys(spans_of(put), "new")
    assert by_experiment(scripted_mlflow) == ({**there, **here} if changed == "experiment" else there)
    assert by_experiment(other) == ({} if changed == "experiment" else here)
    (said,) = [text for text in warnings(caplog) if "earlier programs" in text]
    assert f"3 spans of earlier programs wait for {old.uri}" in said
    assert "dspy-trace flush" in said


@pytest.mark.parametrize("tables", [("notes",), ("batches", "targets")])
def test_a_database_of_another_program_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tables: tuple[str, ...]
) -> None:
    """A SQLite file that is no spool is not written into, whatever its version says."""
    file = spool_file(tmp_path / "spool")
    file.parent.mkdir()
    with sqlite3.connect(file) as db:
        for table in tables:
            db.execute(f"CREATE TABLE {table} (text)")
        db.execute("PRAGMA user_version = 1")
    db.close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    made = open_spool(environ=environment(tmp_path))
    assert made.path is not None
    assert made.path != file
    (warning,) = warnings(caplog)
    assert "another program's" in warning
    with sqlite3.connect(file) as db:
        assert {name for (name,) in db.execute("SELECT name FROM sqlite_master")} == set(tables)
    db.close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="giving a file away takes root")
def test_a_spool_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Root, too, uses its own: the other user could not use what root writes."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.file().put([trace(Target("http://host"))], "them")
    file = spool_file(tmp_path / "spool")
    os.chown(file, 12345, 12345)
    before = file.read_bytes()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = open_spool(environ=environment(tmp_path))
    assert made.path != file
    assert file.read_bytes() == before
    assert any("belongs to another user" in warning for warning in warnings(caplog))


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_spool_that_is_cut_off_is_saved_as_far_as_it_goes(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: float
) -> None:
    """It is put aside and said; what can still be read of it is delivered, and the new spool works."""
    target = Target(scripted_mlflow.url)
    with delivering(environment(tmp_path)) as delivery:
        put = [trace(target, text="x" * 2_000) for _ in range(100)]
        for one in put:
            delivery.file().put([one], "999999999-x")
    file = spool_file(tmp_path / "spool")
    with file.open("r+b") as opened:
        opened.truncate(int(file.stat().st_size * kept) // 4096 * 4096)
    with delivering(environment(tmp_path)) as delivery:
        saved = records.waiting(delivery.file()).spans
        assert 0 < saved < 300
        delivery.put([more := trace(target)])
        assert delivery.deliver_all(10)
    (warning,) = [text for text in warnings(caplog) if "broken" in text]
    assert f"{saved} spans" in warning
    assert spans_of(more) < set(scripted_mlflow.spans) <= spans_of(*put, more)
    assert len(scripted_mlflow.spans) == saved + 3


LEAVE = """
import os, sys
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Target
from tests.delivery import trace
delivery = Delivery()
for _ in range(3):
    delivery.put([trace(Target(sys.argv[1]))])
os.kill(os.getpid(), 9)
"""


def test_rows_of_a_process_that_has_ended_are_taken_over_at_once(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path
) -> None:
    """Whatever it held when it was killed: nobody waits for its hold to run out."""
    scripted_mlflow.close()
    environ = {**os.environ, **environment(tmp_path)}
    killed = subprocess.run(
        [sys.executable, "-c", LEAVE, scripted_mlflow.url], env=environ, cwd=Path(__file__).parents[1], check=False
    )
    assert killed.returncode == -9
    scripted_mlflow.restart()
    with delivering(environment(tmp_path)) as delivery:
        assert delivery.deliver_all(10)
    assert len(scripted_mlflow.spans) == 9


def test_the_accounts_survive_the_loss_of_the_spool(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """When the folder of the spool goes while the program runs, its accounts, dead letters and feedback go along."""
    scripted_mlflow.fault = lambda request: Fault(422) if b"poisoned" in request.body else None
    target, trace_id = Target(scripted_mlflow.url), "ab" * 16
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(target), batch(target, trace_id, [row(trace_id, root=True, name="poisoned")])])
        eventually(lambda: not delivery.waits())
        delivery.feedback(target, "cd" * 16, b'{"name": "n", "value": 1, "time": 1}')
        shutil.rmtree(tmp_path / "spool")
        delivery.put([trace(target)])
        assert adds_up(delivery, 7)
        eventually(lambda: delivery.waiting().spans == 0)
        assert (delivery.counters.delivered, delivery.counters.dead) == (6, 1)
        assert len(records.dead_letters(delivery.file())) == 1
        assert delivery.waiting().followups == 1
