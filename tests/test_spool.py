"""The spool: shared by processes, bounded, readable by nobody else, and of use where it cannot be had."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from dspy_trace.export import places, records, spool
from dspy_trace.export.items import Batch, Settled, Waiting
from dspy_trace.export.places import open_spool, spool_file
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from tests.delivery import environment, trace

SERVER = Target("http://127.0.0.1:9")
DATABASE = Target("sqlite:////data/mlflow.db", experiment_name="desk")


def opened(folder: Path, **bounds: int) -> Spool:
    """Open a spool in a folder, as another process would."""
    made = Spool(folder / "spool.db", **bounds)
    made.open()
    return made


def heads(one: Spool, holder: str) -> list[Batch]:
    """Return all that `holder` may take."""
    return [head for number, target, _, _ in one.targets() for head in one.heads(number, target, holder)]


def test_what_is_put_is_there_for_another_process(tmp_path: Path) -> None:
    """Batches come back as they were put, with their target, also after the process that put them has gone."""
    put = trace(DATABASE, info={"run_id": "r"})
    opened(tmp_path).put([put], "me")
    other = opened(tmp_path)
    ((number, target, sealed, folder),) = other.targets()
    assert (target, sealed, folder) == (DATABASE, False, os.getcwd())
    (taken,) = other.take(other.heads(number, target, "other"), "other")
    assert (taken.payload, taken.info, taken.spans, taken.complete) == (put.payload, put.info, 3, True)
    assert (taken.trace_id, taken.owner) == (put.trace_id, "me")


def test_it_is_for_its_user_alone(tmp_path: Path) -> None:
    """Every file of it has mode 0600, in a folder with 0700."""
    made = open_spool(tmp_path / "new" / "spool", {})
    made.put([trace(SERVER)], "me")
    files = list((tmp_path / "new" / "spool").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "new" / "spool").stat().st_mode) == 0o700


def test_a_process_holds_what_it_has_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others see it only when the hold is up or given up; what goes to a database is the worker's from the start."""
    one, other = opened(tmp_path), opened(tmp_path)
    one.put([trace(SERVER)], "one")
    one.put([trace(DATABASE)], "one")
    assert len(heads(one, "one")) == 2
    assert [head.target for head in heads(other, "other")] == [DATABASE]
    one.release("one")
    assert len(heads(other, "other")) == 2
    monkeypatch.setattr(spool, "FIRST_HOLD", -1.0)
    one.put([trace(SERVER)], "one")
    assert len(heads(other, "other")) == 3


def test_a_batch_is_taken_by_one(tmp_path: Path) -> None:
    """Of two that want the same batches each is given to one; who has them may take them again."""
    one, other = opened(tmp_path), opened(tmp_path)
    one.put([trace(DATABASE) for _ in range(4)], "one")
    seen_by_one, seen_by_other = heads(one, "one"), heads(other, "other")
    assert len(one.take(seen_by_one[:3], "one")) == 3
    assert [head.id for head in other.take(seen_by_other, "other")] == [seen_by_other[3].id]
    assert len(one.take(seen_by_one, "one")) == 3


def test_a_hold_under_a_wrong_clock_does_not_last(tmp_path: Path) -> None:
    """A hold that ends days from now was made by a clock that was wrong, and is worth nothing."""
    one = opened(tmp_path)
    one.put([trace(SERVER)], "one")
    with one.writing() as db:
        db.execute("UPDATE batches SET until = ?", (time.time() + 86_400,))
    assert len(heads(one, "other")) == 1


def test_an_acknowledgement_deletes_and_counts_in_one_step(tmp_path: Path) -> None:
    """What is settled is gone and counted for the process that had put it, though another has delivered it."""
    one = opened(tmp_path)
    one.put([trace(DATABASE, spans=3), trace(DATABASE, spans=4)], "one")
    number = one.targets()[0][0]
    taken = one.take(one.heads(number, DATABASE, "other"), "other")
    one.settle(number, Settled(taken[:1]))
    one.settle(number, Settled(taken[:1]))  # twice is once
    assert records.accounts(one, "one") == {"delivered": 3}
    assert records.accounts(one) == {"delivered": 3}
    assert records.waiting(one, owner="one").spans == 4
    assert records.waiting(one, owner="other") == Waiting()


@pytest.mark.parametrize(
    ("waiting", "said"),
    [
        (Waiting(spans=1, batches=1), "1 span waits"),
        (Waiting(spans=3, batches=2, followups=1, runs=1), "3 spans wait"),
        (Waiting(followups=1), "1 note on a trace waits"),
        (Waiting(followups=2), "2 notes on traces wait"),
        (Waiting(followups=2, runs=9), "what runs have told waits"),
    ],
)
def test_what_waits_is_said_by_its_name(waiting: Waiting, said: str) -> None:
    """Where no spans wait, nobody is told of 0 spans, but of what does."""
    assert waiting.said() == said


def test_it_is_bounded_by_bytes(tmp_path: Path) -> None:
    """Beyond its bound the oldest batches are dropped, and counted exactly."""
    one = opened(tmp_path, most_bytes=100_000)
    put = [trace(SERVER, spans=2, text="x" * 9_000) for _ in range(30)]
    for made in put:
        one.put([made], "me")
    left = heads(one, "me")
    assert 8 <= len(left) <= 11
    assert [head.trace_id for head in left] == [made.trace_id for made in put[-len(left) :]]
    assert records.accounts(one, "me") == {"dropped: spool full": 60 - 2 * len(left)}
    assert records.waiting(one).bytes <= 100_000


def test_it_is_bounded_by_age(tmp_path: Path) -> None:
    """What is older than its bound is dropped, and counted."""
    one = opened(tmp_path, most_seconds=100)
    one.put([trace(SERVER)], "old")
    with one.writing() as db:
        db.execute("UPDATE batches SET created = created - 200")
    one.put([trace(SERVER)], "new")
    one.trim()
    assert [head.owner for head in heads(one, "new")] == ["new"]
    assert records.accounts(one) == {"dropped: too old": 3}


def test_the_disk_is_given_back_after_an_outage(tmp_path: Path) -> None:
    """A spool that has been large and is empty is small again."""
    one = opened(tmp_path)
    one.put([trace(SERVER, spans=1, text="x" * 1_000_000) for _ in range(20)], "me")
    one.settle(one.targets()[0][0], Settled(heads(one, "me")))
    one.trim()
    one.close()
    assert (tmp_path / "spool.db").stat().st_size < 1_000_000


def test_many_processes_write_at_once(tmp_path: Path) -> None:
    """Four processes that write at the same time lose nothing, and none fails."""
    program = """
import sys
from pathlib import Path
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from tests.delivery import trace
spool = Spool(Path(sys.argv[1]))
for n in range(100):
    spool.put([trace(Target("http://host"))], sys.argv[2])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "spool.db")]
    running = [subprocess.Popen([*command, str(n)], cwd=Path(__file__).parents[1]) for n in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    one = opened(tmp_path)
    assert {str(n): records.waiting(one, owner=str(n)).batches for n in range(4)} == {str(n): 100 for n in range(4)}


def test_a_file_that_somebody_else_is_making_is_waited_for(tmp_path: Path) -> None:
    """Of two that make it at once one finds it locked, which SQLite's own time-out does not cover, and waits."""
    other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = Timer(0.2, other.execute, ["ROLLBACK"])
    done.start()
    opened(tmp_path).put([trace(SERVER)], "me")
    done.join(10)
    other.close()
    assert records.waiting(opened(tmp_path)).batches == 1


@pytest.mark.parametrize("trouble", ["newer", "a folder", "a link", "not writable"])
def test_a_spool_that_is_not_ours_to_use_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """Where the spool cannot be used it is left as it is; the temporary folder does, and one warning says why."""
    file = spool_file(tmp_path / "spool")
    file.parent.mkdir()
    if trouble == "newer":
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 99")
    elif trouble == "a folder":
        file.mkdir()
    elif trouble == "a link":
        file.symlink_to(tmp_path / "elsewhere.db")
    else:
        file.parent.rmdir()
        file.parent.write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    made = open_spool(environ=environment(tmp_path))
    assert made.path is not None
    assert made.path.parent == tmp_path / "tmp" / f"dspy-trace-{os.geteuid()}"
    (warning,) = caplog.records
    assert str(tmp_path / "spool") in warning.getMessage()
    assert "DSPY_TRACE_SPOOL_DIR" in warning.getMessage()
    assert not (tmp_path / "elsewhere.db").exists()


def test_where_no_file_can_be_had_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With neither folder nor temporary folder the spool is in memory, which is said once."""
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/nowhere")
    made = open_spool(environ={"DSPY_TRACE_SPOOL_DIR": "/dev/null/spool"})
    made.put([trace(SERVER)], "me")
    assert made.path is None
    assert records.waiting(made).spans == 3
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "is lost" in warning.getMessage()


def test_a_temporary_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the expected name that others may write to was laid there for us: it is not used."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / f"dspy-trace-{os.geteuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    assert open_spool(environ={"DSPY_TRACE_SPOOL_DIR": "/dev/null/spool"}).path is None
    assert not list(trap.iterdir())


def test_a_broken_spool_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no database is kept under another name, said, and a new one begun."""
    file = spool_file(tmp_path / "spool")
    file.parent.mkdir()
    file.write_bytes(b"not a database, surely" * 100)
    made = open_spool(environ=environment(tmp_path))
    made.put([trace(SERVER)], "me")
    assert made.path == file
    (aside,) = file.parent.glob("*.broken-*")
    assert aside.read_bytes().startswith(b"not a database")
    assert aside.name in caplog.text


def test_each_environment_has_a_spool_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two Python environments share no spool, since the worker takes mlflow from its own; the folder may be one."""
    here = spool_file(tmp_path)
    monkeypatch.setattr(sys, "prefix", "/opt/other")
    assert spool_file(tmp_path) != here


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/x/state"}, "/x/state/dspy-trace"),
        ({"XDG_STATE_HOME": "relative"}, "/home/me/.local/state/dspy-trace"),
        ({}, "/home/me/.local/state/dspy-trace"),
        ({"DSPY_TRACE_SPOOL_DIR": "/x/spool", "XDG_STATE_HOME": "/x/state"}, "/x/spool"),
        ({"DSPY_TRACE_SPOOL_DIR": "~/spool"}, "/home/me/spool"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
def test_where_it_is(environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the platform's state folder, or where the environment says."""
    monkeypatch.setenv("HOME", "/home/me")
    assert places.state_folder(environ) == Path(expected)


def test_accounts_of_ended_processes_are_added_up(tmp_path: Path) -> None:
    """The accounts of processes that have gone become one; those of the living stay apart."""
    one = opened(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owners = [f"{gone.pid}-a", f"{gone.pid}-b", f"{os.getpid()}-c"]
    for owner in owners:
        one.put([trace(SERVER)], owner)
    one.settle(one.targets()[0][0], Settled(sorted((h for o in owners for h in heads(one, o)), key=lambda h: h.id)))
    records.tidy(one)
    told = one.read("SELECT owner, name, n FROM accounts ORDER BY owner")
    assert json.loads(json.dumps(told)) == [["", "delivered", 6], [owners[2], "delivered", 3]]
