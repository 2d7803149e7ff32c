"""Processes that are killed, multiply or run out of disk, and more spans than there is room for."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from dspy_trace.export.places import spool_file
from tests.delivery import checkpoint, eventually, halved
from tests.faults.load import Spec
from tests.faults.runs import Audit, Program
from tests.parts.faulty_proxy import FaultyProxy
from tests.parts.project import share
from tests.parts.scripted_mlflow import ScriptedMlflow

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RATE = 500.0


def kill(program: Program, seconds: float) -> float:
    """Run a program, kill it some seconds after its first span, and return when."""
    process = program.start(Spec(str(program.home), seconds=60.0, rate=RATE))
    try:
        eventually(program.noted, 60.0 * share())
        sleep(seconds)
    finally:
        process.kill()
        process.communicate()
    return monotonic()


@pytest.mark.parametrize("durability", ["async", "sync", "none"])
def test_killed(
    durability: str, proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, whole: bool
) -> None:
    """SIGKILL at a random moment: `sync` loses nothing, `async` what one interval holds, `none` what was not sent."""
    times = 17 if whole else {"async": 4, "sync": 4, "none": 2}[durability]
    chance = random.Random(times)
    lost = 0
    for number in range(times):
        place = home / str(number)
        place.mkdir()
        program = Program(place, proxy.url, DSPY_TRACE_DURABILITY=durability)
        now = kill(program, chance.uniform(0.0, 1.5))
        ran = program.ran(-9, "", now)
        missing = audit.settle(
            f"SIGKILL, {durability}", program, ran, lambda: set(scripted_mlflow.spans), in_memory=durability == "none"
        )
        if durability == "sync":
            assert not missing
        if durability == "async":
            assert missing <= ran.unwritten, "more than what was being written, and has ended since"
        lost += len(missing)
    audit.fold(f"SIGKILL, {durability}", times)
    assert durability != "sync" or not lost


@pytest.mark.parametrize(("method", "number"), [("fork", 8), ("spawn", 4)])
def test_workers(
    method: str, number: int, proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit
) -> None:
    """Processes that share a spool, the parent's among them: each delivers its own, once."""
    if method == "fork" and sys.platform == "win32":
        pytest.skip("this system forks no processes")
    program = Program(home, proxy.url)
    ran = program.run(children=(method, number), seconds=3.0, rate=100.0, threads=2)
    assert len(ran.reports) == number + 1
    lost = audit.settle(f"{number} workers, {method}", program, ran, lambda: set(scripted_mlflow.spans))
    assert not lost


def test_a_full_disk(proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit) -> None:
    """The spool takes no more while the server is away: the rest waits in memory."""

    def during() -> None:
        eventually(lambda: program.noted() > 1_200, 60.0 * share())  # twenty times what there is room for
        proxy.open()

    proxy.close()
    program = Program(home, proxy.url)
    ran = program.run(during, spans=1_600, text=4_000, pages=60)
    assert "cannot be written" in ran.stderr
    assert "full" in ran.stderr
    assert not audit.settle("disk full", program, ran, lambda: set(scripted_mlflow.spans), in_memory=True)


def test_a_spool_that_breaks(proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit) -> None:
    """Half of the spool is gone while the server is away: what cannot be read is counted, and the rest goes on."""

    def during() -> None:
        eventually(lambda: program.noted() > 1_000, 60.0 * share())
        checkpoint(spool_file(home / "spool"))
        halved(spool_file(home / "spool"))
        proxy.open()

    proxy.close()
    program = Program(home, proxy.url)
    ran = program.run(during, spans=1_600, text=10_000)
    assert "is broken" in ran.stderr
    note = "what was in it is counted"
    lost = audit.settle("half of the spool is gone", program, ran, lambda: set(scripted_mlflow.spans), note=note)
    assert lost, "nothing was damaged"


def test_paced(proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, whole: bool) -> None:
    """Sixteen threads at 2,000 spans a second in all: not one is lost or dropped."""
    spans = 100_000 if whole else 10_000
    program = Program(home, proxy.url)
    ran = program.run(spans=spans, rate=2_000.0, threads=16)
    assert ran.total("observed") >= spans
    assert ran.queue_dropped == 0
    note = f"99.9 % under {ran.stall('clock 99.9') or 0:.2f} ms"
    fault = f"{spans:,} spans, 16 threads, 2,000/s"
    assert not audit.settle(fault, program, ran, lambda: set(scripted_mlflow.spans), note=note)


def test_unpaced(proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, whole: bool) -> None:
    """As fast as they can, into a queue that overflows: what is missing is what has been counted, exactly."""
    spans = 100_000 if whole else 20_000
    program = Program(home, proxy.url, OTEL_BSP_MAX_QUEUE_SIZE="1000")
    ran = program.run(spans=spans, rate=0.0, threads=16, foreign=1_000_000, overflow=True)
    assert ran.queue_dropped > 0
    note = f"{ran.queue_dropped} dropped and counted"
    lost = audit.settle(f"{spans:,} spans, unpaced", program, ran, lambda: set(scripted_mlflow.spans), note=note)
    assert abs(len(lost) - ran.queue_dropped) <= 5, "the first trace is a stranger's"
