"""Delivery to a server that fails: nothing is lost, nothing is stored twice to a reader's eye, all is accounted for."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import orjson
import pytest

from dspy_trace.export import drain, records
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Credential, Target
from tests.delivery import adds_up, batch, delivering, environment, eventually, row, spans_of, trace
from tests.parts.scripted_mlflow import POISON, Fault, Request, ScriptedMlflow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.02)
    monkeypatch.setattr(drain, "LONGEST", 0.1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings so far."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_busy_server_is_tried_again(scripted_mlflow: ScriptedMlflow, tmp_path: Path, status: int) -> None:
    """Answers that mean "later" are followed by another try, until one is good."""
    scripted_mlflow.fault = lambda request: Fault(status) if request.number < 6 else None
    put = [trace(Target(scripted_mlflow.url)) for _ in range(5)]
    with delivering(environment(tmp_path)) as delivery:
        delivery.put(put)
        eventually(lambda: not delivery.waiting())
        assert delivery.counters.delivered == 15
        assert delivery.counters.dead == 0
    assert set(scripted_mlflow.spans) == spans_of(*put)


def test_a_server_may_say_when_to_come_back(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """`Retry-After` is honoured, by a flush as well."""
    scripted_mlflow.fault = lambda request: Fault(429, retry_after="1") if not request.number > 1 else None
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url))])
        eventually(lambda: scripted_mlflow.requests)
        assert delivery.flush(10)
    first, second, *_ = scripted_mlflow.requests
    assert 0.95 < second.at - first.at < 2.0


def test_an_outage_loses_nothing(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """What was put before, in and after an outage is all there when it is over."""
    target = Target(scripted_mlflow.url)
    put = []
    with delivering(environment(tmp_path)) as delivery:
        for moment in range(30):
            if moment == 8:
                scripted_mlflow.close()
            if moment == 22:
                scripted_mlflow.restart()
            put.append(trace(target))
            delivery.put(put[-1:])
            time.sleep(0.01)
        eventually(lambda: not delivery.waiting())
        assert adds_up(delivery, 90)
        assert delivery.counters.delivered == 90
    assert set(scripted_mlflow.spans) == spans_of(*put)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(close=True),
        Fault(200, body=b'{"half": ', close=True),
        Fault(301, headers={"Location": "https://elsewhere/"}),
        Fault(405),
        Fault(500, b"<html>" + b"x" * 300_000),
    ],
    ids=["reset", "half an answer", "redirect", "method", "garbage"],
)
def test_a_strange_answer_is_no_acknowledgement(scripted_mlflow: ScriptedMlflow, tmp_path: Path, fault: Fault) -> None:
    """Whatever is not a whole 2xx means that it is sent again."""
    scripted_mlflow.fault = lambda request: fault if len(scripted_mlflow.requests) < 5 else None
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put := trace(Target(scripted_mlflow.url))])
        eventually(lambda: not delivery.waiting())
        assert delivery.counters.dead == 0
    assert set(scripted_mlflow.spans) == spans_of(put)


@pytest.mark.parametrize(("status", "remedy"), [(401, "MLFLOW_TRACKING_TOKEN"), (403, "permission")])
def test_a_credential_that_is_refused_is_said_once(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, remedy: str
) -> None:
    """401 and 403 keep the rows, warn once with the remedy, and heal."""
    denied = [True]
    scripted_mlflow.fault = lambda request: Fault(status, b"who are you?") if denied else None
    with delivering(environment(tmp_path), Credential(token="wrong")) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url))])
        eventually(lambda: len(scripted_mlflow.requests) > 4)
        assert delivery.waiting().spans == 3
        denied.clear()
        eventually(lambda: not delivery.waiting())
    (warning,) = warnings(caplog)
    assert scripted_mlflow.url in warning
    assert "who are you?" in warning
    assert remedy in warning
    assert "wrong" not in warning


def test_an_experiment_that_is_not_there_is_waited_for(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unknown id is said once; when the experiment is there, the rows go to it."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url, experiment_id="3"))])
        eventually(lambda: warnings(caplog))
        scripted_mlflow.experiments["late"] = "3"
        eventually(lambda: not delivery.waiting())
    assert {span["experiment"] for span in scripted_mlflow.spans.values()} == {"3"}
    (warning,) = warnings(caplog)
    assert "MLFLOW_EXPERIMENT_ID" in warning


@pytest.mark.parametrize("named", [True, False], ids=["name", "id"])
def test_a_deleted_experiment_gets_nothing(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    """Traces for a deleted experiment wait, and a warning says how to restore it."""
    scripted_mlflow.experiments["old"] = "3"
    scripted_mlflow.deleted.add("3")
    where = {"experiment_name": "old"} if named else {"experiment_id": "3"}
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url, **where))])
        eventually(lambda: warnings(caplog))
        assert delivery.waiting().spans == 3
        assert not scripted_mlflow.spans
        scripted_mlflow.deleted.clear()
        eventually(lambda: not delivery.waiting())
    assert "experiments restore" in warnings(caplog)[0]


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("place", [0, 1, 19])
def test_one_bad_span_costs_itself_alone(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, place: int
) -> None:
    """A span that makes the server refuse everything is found and kept as a dead letter; all others arrive."""
    target = Target(scripted_mlflow.url)
    put = [trace(target, spans=5, **({POISON: status} if n == place else {})) for n in range(20)]
    with delivering(environment(tmp_path)) as delivery:
        delivery.put(put)
        eventually(lambda: not delivery.waiting())
        assert delivery.counters.dead == 1
        assert delivery.counters.delivered == 99
        (letter,) = records.dead_letters(delivery.file())
        poisoned = orjson.loads(put[place].payload)[-1]
        assert orjson.loads(letter.payload) == [poisoned]
        assert str(status) in letter.reason
        assert letter.trace_id == put[place].trace_id
    assert set(scripted_mlflow.spans) == spans_of(*put) - {(poisoned["trace_id"], poisoned["span_id"])}
    eventually(lambda: any("dead-letters" in warning for warning in warnings(caplog)))


def test_a_server_that_is_broken_is_no_reason_to_bury_anything(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """500 for everything means that the server is broken: all is kept and delivered when it is mended."""
    broken = [True]

    def fault(request: Request) -> Fault | None:
        return Fault(500) if broken and request.path == "/v1/traces" else None

    scripted_mlflow.fault = fault
    put = [trace(Target(scripted_mlflow.url)) for _ in range(5)]
    with delivering(environment(tmp_path)) as delivery:
        delivery.put(put)
        eventually(lambda: len(scripted_mlflow.otlp) > 40)
        assert delivery.counters.dead == 0
        broken.clear()
        eventually(lambda: not delivery.waiting())
        assert delivery.counters.delivered == 15
    assert set(scripted_mlflow.spans) == spans_of(*put)


def test_a_dead_letter_can_be_sent_again_or_dropped(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Dead letters are replayed or dropped one by one; the accounts add up all along."""
    target = Target(scripted_mlflow.url)
    healed: list[bool] = []

    def fault(request: Request) -> Fault | None:
        return Fault(422) if not healed and request.path == "/v1/traces" else None

    scripted_mlflow.fault = fault
    trace_id = "ab" * 16
    put = batch(target, trace_id, [row(trace_id, root=True), row(trace_id)])
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put])
        eventually(lambda: delivery.counters.dead == 2)
        assert adds_up(delivery, 2)
        one, other = records.dead_letters(delivery.file())
        healed.append(True)
        records.drop_dead(delivery.file(), one)
        records.replay(delivery.file(), other)
        assert adds_up(delivery, 2)
        assert delivery.flush(10)
        assert adds_up(delivery, 2)
        assert delivery.counters.delivered == 1
        assert delivery.counters.dropped == {"dead letter": 1}
    assert len(scripted_mlflow.spans) == 1


def test_one_server_does_not_hold_up_another(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """While one server does not answer, another gets its traces."""
    slow = ScriptedMlflow()
    slow.fault = lambda request: Fault(200, delay=600.0)
    try:
        with delivering(environment(tmp_path)) as delivery:
            delivery.put([trace(Target(slow.url)), trace(Target("http://127.0.0.1:9"))])
            eventually(lambda: slow.requests)
            delivery.put([trace(Target(scripted_mlflow.url))])
            eventually(lambda: len(scripted_mlflow.spans) == 3)
            slow.close()
    finally:
        slow.close()


def test_flush_and_shutdown_take_no_longer_than_they_may(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Both return in time though the server does not answer, and say that something is left."""
    scripted_mlflow.fault = lambda request: Fault(200, delay=5.0)
    delivery = Delivery(environ=environment(tmp_path))
    delivery.put([trace(Target(scripted_mlflow.url))])
    for stop in (delivery.flush, delivery.shutdown):
        begun = time.monotonic()
        assert not stop(0.3)
        assert time.monotonic() - begun < 4.0
