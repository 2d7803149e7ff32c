"""A server that is away, that answers what it should not, or that cannot be found."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.delivery import eventually
from tests.faults.runs import Audit, Program
from tests.parts.faulty_proxy import Do, FaultyProxy
from tests.parts.project import share
from tests.parts.scripted_mlflow import ScriptedMlflow

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def going(program: Program, proxy: FaultyProxy, before: float) -> Callable[[], None]:
    """Return what takes a server away, so many seconds after the program's first span, or before there is any."""

    def during() -> None:
        if before:
            eventually(program.noted, 60.0 * share())
            sleep(before)
        proxy.close()

    return during


def outage(program: Program, proxy: FaultyProxy, before: float, seconds: float) -> Callable[[], None]:
    """Return what takes it away and brings it back."""

    def during() -> None:
        going(program, proxy, before)()
        eventually(program.noted, 60.0 * share())
        sleep(seconds)
        proxy.open()

    return during


@pytest.mark.parametrize("when", ["from the start", "in the middle", "at the end"])
def test_down(when: str, whole: bool, proxy: FaultyProxy, scripted_mlflow: Any, home: Path, audit: Audit) -> None:
    """The server is away for a while, or until after the program has ended."""
    seconds = 60.0 if whole else 3.0
    program = Program(home, proxy.url)
    before = 0.0 if when == "from the start" else 1.5
    if when == "at the end":
        ran = program.run(going(program, proxy, before), seconds=before + seconds)
        assert "wait in the spool" in ran.stderr
        proxy.open()
    else:
        ran = program.run(outage(program, proxy, before, seconds), seconds=before + seconds + 1.5)
    lost = audit.settle(f"down {seconds:.0f} s {when}", program, ran, lambda: set(scripted_mlflow.spans))
    assert not lost


def test_restarted_under_load(
    proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, whole: bool
) -> None:
    """The server is killed and comes back ten times while spans keep coming."""

    def during() -> None:
        sleep(1.0)
        for _ in range(10):
            proxy.close()
            sleep(1.0 if whole else 0.1)
            proxy.open()
            sleep(1.0 if whole else 0.2)

    program = Program(home, proxy.url)
    ran = program.run(during, seconds=22.0 if whole else 4.5, rate=1_000.0)
    assert not audit.settle("killed and restarted 10 times", program, ran, lambda: set(scripted_mlflow.spans))


ANSWERS = {
    "500": Do("answer", 500),
    "503": Do("answer", 503),
    "429, Retry-After 1": Do("answer", 429, headers={"Retry-After": "1"}),
    "401, then healed": Do("answer", 401),
    "a page of a proxy": Do("answer", 200, b"<!doctype html><title>Log in</title>"),
    "garbage": Do("garbage"),
    "half a response": Do("half"),
    "connection reset": Do("reset"),
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_a_bad_answer(
    name: str, proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, whole: bool
) -> None:
    """Every request is answered badly for a while, then all is well."""
    begun: list[float] = []

    def fault(number: int, path: str, size: int) -> Do | None:
        begun.append(monotonic())
        return ANSWERS[name] if monotonic() - begun[0] < (30.0 if whole else 1.5) else None

    proxy.fault = fault
    program = Program(home, proxy.url)
    ran = program.run(seconds=40.0 if whole else 3.0)
    assert not audit.settle(name, program, ran, lambda: set(scripted_mlflow.spans))
    assert begun


def test_too_large(proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit) -> None:
    """413 for all but small requests: what was to be sent at once is sent in parts, and nothing is given up."""
    refused: list[int] = []

    def fault(number: int, path: str, size: int) -> Do | None:
        if path != "/v1/traces" or size < 1_500:
            return None
        refused.append(size)
        return Do("answer", 413)

    proxy.fault = fault
    program = Program(home, proxy.url)
    ran = program.run(seconds=2.5, rate=1_000.0)
    assert refused
    lost = audit.settle("413", program, ran, lambda: set(scripted_mlflow.spans))
    assert not lost


def test_late(proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, whole: bool) -> None:
    """One answer comes so late that the program has ended by then; it is not waited for longer than is bearable."""
    late = 30.0 if whole else 8.0
    program = Program(home, proxy.url)
    proxy.fault = lambda number, path, size: Do(delay=late) if path == "/v1/traces" and number < 4 else None
    ran = program.run(seconds=2.0)
    assert not audit.settle(f"{late:.0f} s late", program, ran, lambda: set(scripted_mlflow.spans))


def test_a_name_that_is_not_found(
    proxy: FaultyProxy, scripted_mlflow: ScriptedMlflow, home: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS fails for as long as the program runs; when it works again, the next program delivers."""
    port = proxy.url.rpartition(":")[2]
    program = Program(home, f"http://mlflow.invalid:{port}", NO_PROXY="*")
    ran = program.run(seconds=2.0, dns=False)
    assert "wait in the spool" in ran.stderr
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: resolve("127.0.0.1", *more, **named))
    assert not audit.settle("DNS failure", program, ran, lambda: set(scripted_mlflow.spans))
