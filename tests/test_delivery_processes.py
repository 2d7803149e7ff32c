"""Delivery where processes multiply, end, and lose their disk."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dspy_trace.export import records
from dspy_trace.export.target import Target
from tests.delivery import adds_up, delivering, environment, eventually, spans_of, trace
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow


def run(program: str, environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program in an interpreter of its own until it ends, for 25 seconds at most."""
    command, root = [sys.executable, "-c", program], Path(__file__).parents[1]
    return subprocess.run(
        command, cwd=root, env={**os.environ, **environ}, capture_output=True, timeout=25, check=False
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("durability", ["async", "none"])
def test_a_forked_child_delivers_its_own(scripted_mlflow: ScriptedMlflow, tmp_path: Path, durability: str) -> None:
    """A child that is forked in the middle of a delivery sends what is its own, once; the parent likewise."""
    target = Target(scripted_mlflow.url)
    with delivering(environment(tmp_path), durability=durability) as delivery:
        put = [trace(target) for _ in range(30)]
        mine = threading.Thread(target=lambda: [delivery.put([one]) for one in put])
        mine.start()
        eventually(lambda: scripted_mlflow.otlp)
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                done = False
                try:
                    assert delivery.owner.startswith(f"{os.getpid()}-")
                    delivery.put([trace(target, spans=5)])
                    done = delivery.flush(20) and delivery.counters.delivered == 5
                finally:
                    os._exit(0 if done else 1)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
        mine.join()
        assert delivery.flush(20)
        assert adds_up(delivery, 90)
        assert delivery.counters.delivered == 90
    assert len(scripted_mlflow.spans) == 90 + 20
    assert spans_of(*put) <= set(scripted_mlflow.spans)
    if durability == "async":
        assert {span["times"] for span in scripted_mlflow.spans.values()} == {1}


def test_a_disk_that_is_full_costs_nothing(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the spool cannot take waits in memory, and is delivered from there; it is said once."""
    target = Target(scripted_mlflow.url)
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as delivery:
        put = [trace(target, text="x" * 50_000) for _ in range(10)]
        delivery.put(put[:1])
        delivery.file().read("PRAGMA max_page_count = 100")
        for one in put[1:]:
            delivery.put([one])
        assert delivery.waiting().spans == 30
        assert records.waiting(delivery.memory()).spans > 0
        scripted_mlflow.restart()
        assert delivery.flush(20)
        assert adds_up(delivery, 30)
    assert set(scripted_mlflow.spans) == spans_of(*put)
    assert [one.levelno for one in caplog.records if "full" in one.getMessage()] == [logging.WARNING]


def test_what_waits_in_memory_for_a_database_gets_to_the_spool(tmp_path: Path) -> None:
    """Rows that only a file can bring to the worker are moved there when the disk has room again."""
    target = Target(f"sqlite:///{tmp_path}/mlflow.db")
    with delivering(environment(tmp_path)) as delivery:
        put = [trace(target, text="x" * 50_000) for _ in range(6)]
        delivery.put(put[:1])
        delivery.file().read("PRAGMA max_page_count = 60")
        delivery.put(put[1:])
        assert records.waiting(delivery.memory()).spans == 15
        delivery.file().read("PRAGMA max_page_count = 100000")
        eventually(lambda: records.waiting(delivery.file()).spans == 18)
        assert not records.anything(delivery.memory())


def test_an_interpreter_that_ends_delivers(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Spans that are only put while the interpreter ends still arrive: no thread can be started by then."""
    program = f"""
import atexit, os
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Target
from tests.delivery import trace
delivery = Delivery()
def end():
    delivery.put([trace(Target({scripted_mlflow.url!r}))])
    delivery.at_exit()
atexit.register(end)
"""
    ended = run(program, environment(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(scripted_mlflow.spans) == 3


def test_an_interpreter_ends_though_the_server_hangs(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """A request that is under way keeps no program from ending."""
    scripted_mlflow.fault = lambda request: Fault(200, delay=30)
    program = f"""
import time
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Target
from tests.delivery import trace
delivery = Delivery()
delivery.put([trace(Target({scripted_mlflow.url!r}))])
time.sleep(0.3)
delivery.at_exit()
"""
    ended = run(program, environment(tmp_path, DSPY_TRACE_EXIT_WAIT="0"))
    assert ended.returncode == 0
    assert b"3 spans wait in the spool" in ended.stderr


def test_older_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A program that finds what earlier ones have left says how much, for where and why, in one line."""
    with delivering(environment(tmp_path)) as first:
        first.put([trace(Target("http://127.0.0.1:9"))])
        first.at_exit()
        with first.file().writing() as db:
            db.execute("UPDATE batches SET created = created - 4000")
    caplog.clear()
    with delivering(environment(tmp_path)) as second:
        second.put([trace(Target("http://127.0.0.1:10"))])
        (line,) = [one.getMessage() for one in caplog.records if "earlier" in one.getMessage()]
    assert "3 spans" in line
    assert "http://127.0.0.1:9" in line
    assert "refused" in line
    assert "dspy-trace flush" in line


def test_a_spool_that_is_deleted_is_begun_anew(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """When the folder of the spool goes while the program runs, what waits in it is not lost, nor what comes."""
    target = Target(scripted_mlflow.url)
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([before := trace(target)])
        shutil.rmtree(tmp_path / "spool")
        delivery.put([after := trace(target)])
        assert delivery.waiting().spans == 6
        assert list((tmp_path / "spool").iterdir())
        scripted_mlflow.restart()
        assert delivery.flush(20)
    assert set(scripted_mlflow.spans) == spans_of(before, after)
