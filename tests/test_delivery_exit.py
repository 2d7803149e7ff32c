"""The end of the program: how long it waits, what it says, what it leaves to others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dspy_trace.export import choice
from dspy_trace.export import exit as ending
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Target
from tests.delivery import delivering, environment, eventually, spans_of, trace
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow


def timed_exit(delivery: Delivery) -> float:
    """Return how long the end of the program takes."""
    begun = time.monotonic()
    delivery.at_exit()
    return time.monotonic() - begun


def test_what_is_on_its_way_to_a_server_arrives(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends right after its last call waits for the server, and says nothing of it."""
    monkeypatch.setattr(choice, "WAIT", 60.0)  # unfinished traces are not held back any longer
    put = [trace(Target(scripted_mlflow.url), complete=n % 2 == 0) for n in range(4)]
    with delivering(environment(tmp_path)) as delivery:
        delivery.put(put)
        delivery.at_exit()
    assert set(scripted_mlflow.spans) == spans_of(*put)


def test_an_exit_with_nothing_to_do_takes_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing waits, nothing is waited for."""
    with delivering(environment(tmp_path)) as delivery:
        assert timed_exit(delivery) < ending.HTTP
    assert capsys.readouterr().err == ""


def test_a_server_that_is_down_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first failed delivery ends the waiting; one line says what stays, and that it is not lost."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target("http://127.0.0.1:9"))])
        assert timed_exit(delivery) < ending.HTTP
        assert delivery.waiting().spans == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 spans wait in the spool for http://127.0.0.1:9" in line
    assert "dspy-trace flush" in line


def test_a_server_that_does_not_answer_is_waited_for_in_bounds(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`DSPY_TRACE_EXIT_WAIT` bounds the waiting, which is said after a second."""
    scripted_mlflow.fault = lambda request: Fault(200, delay=600.0)
    with delivering(environment(tmp_path, DSPY_TRACE_EXIT_WAIT="1.5")) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url))])
        assert 1.4 < timed_exit(delivery) < ending.HTTP
        scripted_mlflow.close()
    said, left = capsys.readouterr().err.splitlines()
    assert f"delivering traces to {scripted_mlflow.url}" in said
    assert "3 spans wait" in left


def test_a_server_that_asks_to_wait_is_left_alone(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """A pause that the server has asked for is not sat out."""
    scripted_mlflow.fault = lambda request: Fault(429, retry_after="60")
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url))])
        eventually(lambda: delivery.drains[scripted_mlflow.url].asked_to_wait)
        assert timed_exit(delivery) < ending.HTTP
    assert len(scripted_mlflow.requests) == 1


def test_what_one_program_leaves_the_next_one_delivers(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Rows of a program that has ended go with those of the next one that traces to the same server, at once."""
    scripted_mlflow.close()
    target = Target(scripted_mlflow.url)
    with delivering(environment(tmp_path)) as first:
        first.put([left := trace(target)])
        first.at_exit()
    scripted_mlflow.restart()
    with delivering(environment(tmp_path)) as second:
        second.put([put := trace(target)])
        eventually(lambda: set(scripted_mlflow.spans) == spans_of(left, put))


def test_rows_of_a_program_that_was_killed_are_taken_over(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed program held is taken over when its hold is up, not before."""
    monkeypatch.setattr("dspy_trace.export.spool.FIRST_HOLD", 1.0)
    scripted_mlflow.close()
    target = Target(scripted_mlflow.url)
    killed = Delivery(environ=environment(tmp_path))
    killed.put([left := trace(target)])
    eventually(lambda: killed.drains[target.uri].failed)
    for runner in killed._runners:
        runner.end()
    scripted_mlflow.restart()
    with delivering(environment(tmp_path)) as other:
        other.put([put := trace(target)])
        assert other.flush(10)
        assert set(scripted_mlflow.spans) == spans_of(put)
        with killed.file().writing() as db:  # what ninety seconds would do
            db.execute("UPDATE batches SET until = 1")
        other.put([trace(target)])
        eventually(lambda: spans_of(left) <= set(scripted_mlflow.spans))
    killed.shutdown(0.0)


def test_all_that_waits_can_be_delivered_by_command(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """`deliver_all` delivers what any program has left for any server, and returns whether that was all."""
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as first:
        first.put([left := trace(Target(scripted_mlflow.url)), trace(Target("http://127.0.0.1:9"))])
        first.at_exit()
    scripted_mlflow.restart()
    with delivering(environment(tmp_path)) as flush:
        assert not flush.deliver_all(1.0)
        eventually(lambda: set(scripted_mlflow.spans) == spans_of(left))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({}, (4.5, 0.0)), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (4.5, 30.0)), ({"DSPY_TRACE_EXIT_WAIT": "7"}, (7, 7))],
    ids=["machine", "container", "asked"],
)
def test_how_long_is_waited(
    environ: dict[str, str], expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers for less than 5 s; databases not at all, but for 30 s in a container, where all ends with the program."""
    monkeypatch.setattr(ending, "_CONTAINER_FILES", ())
    assert ending.waits(environ) == expected
