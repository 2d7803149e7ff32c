"""What follows a trace: information on it as a whole, and feedback; never before the trace, and once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from dspy_trace.export import drain, records
from dspy_trace.export.target import Target
from dspy_trace.runs.spooled import note_id
from tests.delivery import batch, delivering, environment, eventually, row, trace
from tests.parts.scripted_mlflow import Fault, Request, ScriptedMlflow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.02)
    monkeypatch.setattr(drain, "LONGEST", 0.1)


def thumb(**more: Any) -> bytes:
    """Make feedback as `log_feedback` hands it over."""
    told = {"name": "helpful", "value": True, "time": time.time_ns(), "source_type": "HUMAN", "source_id": "me"}
    return orjson.dumps({**told, **more})


def paths(server: ScriptedMlflow) -> list[str]:
    """Return what was asked of the server after the experiment, in order."""
    return [request.path for request in server.requests if "experiments" not in request.path]


def test_information_follows_its_spans(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """What is said of a trace is sent once its spans have been acknowledged, for the experiment that holds them."""
    put = trace(Target(scripted_mlflow.url, experiment_name="new"), info={"run_id": "run-1", "model_id": "m-1"})
    refusals = [Fault(503)]
    scripted_mlflow.fault = lambda request: refusals.pop() if refusals and request.path == "/v1/traces" else None
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put])
        assert delivery.flush(10)
    assert paths(scripted_mlflow) == ["/v1/traces", "/v1/traces", "/api/3.0/mlflow/traces"]
    (info,) = scripted_mlflow.infos
    assert info["trace_id"] == f"tr-{put.trace_id}"
    assert info["trace_location"]["mlflow_experiment"] == {"experiment_id": "1"}
    assert info["trace_metadata"]["mlflow.sourceRun"] == "run-1"
    assert info["trace_metadata"]["mlflow.modelId"] == "m-1"
    assert info["state"] == "OK"


@pytest.mark.parametrize("made", [True, False])
def test_a_run_of_ours_is_named_where_it_is_made_in_time(
    made: bool, scripted_mlflow: ScriptedMlflow, tmp_path: Path
) -> None:
    """What is said of a trace waits a while for the worker to make its run; whoever flushes does not wait for it."""
    put = trace(Target(scripted_mlflow.url), info={"run": "ours", "metadata": {"a": "b"}})
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put])
        eventually(lambda: scripted_mlflow.spans)
        eventually(lambda: delivery.waiting().followups)
        if made:
            note_id(delivery.file(), "ours", "run-1")
            eventually(lambda: scripted_mlflow.infos)
        begun = time.monotonic()
        assert delivery.flush(10)
        assert time.monotonic() - begun < 5
    (info,) = scripted_mlflow.infos
    assert info["trace_metadata"].get("mlflow.sourceRun") == ("run-1" if made else None)
    assert (info["trace_metadata"]["a"], "run" in info) == ("b", False)


def test_where_there_is_nothing_to_say_nothing_is_said(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Most traces are spans alone: no further request is made for them."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url)) for _ in range(3)])
        assert delivery.flush(10)
    assert set(paths(scripted_mlflow)) == {"/v1/traces"}


def test_feedback_waits_for_its_trace(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Feedback that is given before its trace has ended is delivered after it."""
    target = Target(scripted_mlflow.url)
    put = trace(target, complete=False)
    with delivering(environment(tmp_path)) as delivery:
        delivery.feedback(target, put.trace_id, thumb())
        eventually(lambda: len(scripted_mlflow.requests) > 3)  # not there yet, says the server
        assert not scripted_mlflow.assessments
        delivery.put([put])  # held back for its root
        delivery.put([batch(target, put.trace_id, [row(put.trace_id, root=True)])])
        assert delivery.flush(10)
    (told,) = scripted_mlflow.assessments.values()
    assert (told["assessment_name"], told["feedback"], told["source"]["source_id"]) == (
        "helpful",
        {"value": True},
        "me",
    )
    assert told["trace_id"] == f"tr-{put.trace_id}"


def test_feedback_is_never_sent_while_spans_of_its_trace_wait(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """What is in the spool in the wrong order leaves it in the right one."""
    target = Target(scripted_mlflow.url)
    put = trace(target)
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as delivery:
        delivery.feedback(target, put.trace_id, thumb())
        delivery.put([put])
        scripted_mlflow.restart()
        assert delivery.flush(10)
    assert paths(scripted_mlflow) == ["/v1/traces", f"/api/3.0/mlflow/traces/tr-{put.trace_id}/assessments"]


@pytest.mark.parametrize("answer", [503, 500])
def test_feedback_whose_answer_is_lost_is_there_once(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, answer: int
) -> None:
    """The server has stored it, and then fails: it is sent again, and is still one."""
    lost = []

    def fault(request: Request) -> Fault | None:
        if not request.path.endswith("/assessments") or lost:
            return None
        lost.append(request)
        scripted_mlflow.assessments[request.json["assessment"]["assessment_id"]] = request.json["assessment"]
        return Fault(answer)

    scripted_mlflow.fault = fault
    target = Target(scripted_mlflow.url)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put := trace(target)])
        delivery.feedback(target, put.trace_id, thumb())
        assert delivery.flush(10)
        assert not records.dead_letters(delivery.file())
    assert len(scripted_mlflow.assessments) == 1


def test_feedback_that_is_refused_is_kept(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Feedback that the server will not have is a dead letter, and holds up nothing."""
    scripted_mlflow.fault = lambda request: Fault(400, b"no") if request.path.endswith("/assessments") else None
    target = Target(scripted_mlflow.url)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put := trace(target)])
        delivery.feedback(target, put.trace_id, thumb())
        delivery.put([trace(target)])
        assert delivery.flush(10)
        (letter,) = records.dead_letters(delivery.file())
        assert (letter.kind, letter.reason, letter.trace_id) == ("feedback", "400: no", put.trace_id)
        assert delivery.counters.delivered == 6


@pytest.mark.parametrize(
    "payload", [b"{}", b'{"name": "late", "time": 1}', b'{"name": "late", "value": 1, "time": "x"}']
)
def test_feedback_that_is_none_is_buried(scripted_mlflow: ScriptedMlflow, tmp_path: Path, payload: bytes) -> None:
    """What lacks a name, a value or a time is kept as a dead letter, and holds up no feedback that comes after it."""
    put = trace(Target(scripted_mlflow.url))
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put])
        assert delivery.flush(10)
        delivery.feedback(put.target, put.trace_id, payload)
        delivery.feedback(put.target, put.trace_id, thumb())
        eventually(lambda: not delivery.waits())
        (letter,) = records.dead_letters(delivery.file())
        assert (letter.kind, letter.reason) == ("feedback", drain.UNREADABLE)
    assert [one["assessment_name"] for one in scripted_mlflow.assessments.values()] == ["helpful"]


def test_feedback_on_a_trace_that_never_comes_is_given_up(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an hour without its trace, feedback is a dead letter."""
    monkeypatch.setattr(drain, "STRANGER", 0.2)
    with delivering(environment(tmp_path)) as delivery:
        delivery.feedback(Target(scripted_mlflow.url), "cd" * 16, thumb())
        eventually(lambda: not delivery.waits())
        assert [letter.kind for letter in records.dead_letters(delivery.file())] == ["feedback"]
