"""Delivery to a server: what is sent when, how much at a time, and where."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import orjson
import pytest

from dspy_trace.export import choice
from dspy_trace.export.target import Credential, Target
from tests.delivery import adds_up, batch, delivering, environment, eventually, row, spans_of, trace
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow


def test_a_trace_arrives_whole_and_once(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """All spans of a trace with their parents, in one request, to the default experiment; then the spool is empty."""
    put = trace(Target(scripted_mlflow.url), spans=4)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put])
        assert delivery.flush(10)
        assert not delivery.waiting()
        assert delivery.counters.delivered == 4
    rows = {(one["trace_id"], one["span_id"]): one for one in orjson.loads(put.payload)}
    assert scripted_mlflow.spans == {
        key: {"name": one["name"], "parent": one["parent_id"], "experiment": "0", "times": 1}
        for key, one in rows.items()
    }
    (request,) = scripted_mlflow.otlp
    assert request.headers["content-type"] == "application/x-protobuf"
    assert "authorization" not in request.headers


def test_nothing_waits_for_the_network(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """`put` returns while the server does not answer."""
    scripted_mlflow.fault = lambda request: Fault(200, delay=600.0)
    with delivering(environment(tmp_path)) as delivery:
        for _ in range(20):
            delivery.put([trace(Target(scripted_mlflow.url))])
        assert delivery.waiting().batches == 20
        scripted_mlflow.close()


def test_large_requests_are_packed_and_small_ones_are_not(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """A request of over a kilobyte is packed with gzip, and says so."""
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url), spans=1)])
        assert delivery.flush(10)
        delivery.put([trace(Target(scripted_mlflow.url), spans=1, text="x" * 100_000)])
        assert delivery.flush(10)
    small, large = scripted_mlflow.otlp
    assert "content-encoding" not in small.headers
    assert large.headers["content-encoding"] == "gzip"
    assert int(large.headers["content-length"]) < 5_000 < len(gzip.compress(b"")) + len(large.body)


def test_requests_are_bounded(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """At most 100 traces, 1,000 spans and 4 MB go into one request, though far more waits."""
    target = Target(scripted_mlflow.url)
    small = [trace(target, spans=2) for _ in range(230)]
    long = [trace(target, spans=400) for _ in range(3)]
    large = [trace(target, spans=2, text=str(n) * 1_500_000) for n in range(4)]
    huge = trace(target, spans=1_500, text="x" * 6_000_000)
    scripted_mlflow.close()
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([*small, *long, *large, huge])
        scripted_mlflow.restart()
        assert delivery.flush(60)
    assert set(scripted_mlflow.spans) == spans_of(*small, *long, *large, huge)
    assert {span["times"] for span in scripted_mlflow.spans.values()} == {1}
    sizes = [len(request.body) for request in scripted_mlflow.otlp]
    assert len([size for size in sizes if size > choice.BYTES]) == 1  # a single span, which cannot be divided
    assert len(sizes) >= 3 + 2 + 2


def test_an_unfinished_trace_is_held_back_for_its_root(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans without their root wait for it, and go with it in one request."""
    monkeypatch.setattr(choice, "WAIT", 60.0)
    target = Target(scripted_mlflow.url)
    early = trace(target, complete=False)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([early])
        delivery.put([trace(target)])  # another trace is sent meanwhile
        eventually(lambda: scripted_mlflow.spans)
        assert not spans_of(early) & set(scripted_mlflow.spans)
        delivery.put([batch(target, early.trace_id, [row(early.trace_id, root=True)])])
        eventually(lambda: not delivery.waiting())
    assert len(scripted_mlflow.otlp) == 2


def test_an_unfinished_trace_is_readable_early(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Spans whose root does not come within two seconds are sent without it."""
    put = trace(Target(scripted_mlflow.url), complete=False)
    with delivering(environment(tmp_path)) as delivery:
        begun = time.monotonic()
        delivery.put([put])
        eventually(lambda: spans_of(put) <= set(scripted_mlflow.spans))
        assert time.monotonic() - begun > 1.5


@pytest.mark.parametrize("large", [True, False], ids=["large", "flush"])
def test_what_is_not_held_back(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """512 spans of an unfinished trace are sent at once; so is anything when it is flushed."""
    monkeypatch.setattr(choice, "WAIT", 60.0)
    put = trace(Target(scripted_mlflow.url), spans=512 if large else 1, complete=False)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put])
        if large:
            eventually(lambda: len(scripted_mlflow.spans) == 512)
        else:
            assert delivery.flush(10)
        assert set(scripted_mlflow.spans) == spans_of(put)


def test_a_span_that_is_told_twice_is_in_a_request_once(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """Of two rows that are one span the last is sent; the server would double the trace's tokens."""
    target = Target(scripted_mlflow.url)
    put = trace(target, spans=1)
    (again,) = orjson.loads(put.payload)
    again["name"] = "later"
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([put, batch(target, put.trace_id, [again])])
        assert delivery.flush(10)
        assert adds_up(delivery, 2)
    assert [span["name"] for span in scripted_mlflow.spans.values()] == ["later"]


@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_an_experiment_is_named(scripted_mlflow: ScriptedMlflow, tmp_path: Path, known: bool) -> None:
    """A named experiment is looked up once, and made if it is missing."""
    if known:
        scripted_mlflow.experiments["support desk"] = "7"
    target = Target(scripted_mlflow.url, experiment_name="support desk")
    with delivering(environment(tmp_path)) as delivery:
        for _ in range(3):
            delivery.put([trace(target)])
            assert delivery.flush(10)
    assert {span["experiment"] for span in scripted_mlflow.spans.values()} == {"7" if known else "1"}
    assert len([request for request in scripted_mlflow.requests if "get-by-name" in request.path]) == 1


def test_an_experiment_that_somebody_else_makes_meanwhile_is_taken(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path
) -> None:
    """Two programs that make the same experiment at the same moment use the one."""

    def made_by_another(request: object) -> None:
        if getattr(request, "path", "").endswith("/create"):
            scripted_mlflow.experiments["shared"] = "5"

    scripted_mlflow.fault = made_by_another  # type: ignore[assignment]
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url, experiment_name="shared"))])
        assert delivery.flush(10)
    assert {span["experiment"] for span in scripted_mlflow.spans.values()} == {"5"}


@pytest.mark.parametrize(
    ("credential", "header"),
    [
        (Credential("me", "pä:ss"), "Basic bWU6cMOkOnNz"),
        (Credential(token="t0ken"), "Bearer t0ken"),
    ],
    ids=["basic", "bearer"],
)
def test_a_credential_is_sent_and_never_stored(
    scripted_mlflow: ScriptedMlflow, tmp_path: Path, credential: Credential, header: str
) -> None:
    """Each request carries it; no file of ours does."""
    scripted_mlflow.authorization = header
    with delivering(environment(tmp_path), credential) as delivery:
        delivery.put([trace(Target(scripted_mlflow.url, experiment_name="x"), info={"run_id": "r"})])
        assert delivery.flush(10)
        written = b"".join(file.read_bytes() for file in (tmp_path / "spool").iterdir())
    assert scripted_mlflow.infos
    for secret in ("pä:ss", "t0ken", header.split()[1]):
        assert secret.encode() not in written


def test_memory_only_writes_no_file(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> None:
    """With durability `none` what goes to a server never touches the disk."""
    with delivering(environment(tmp_path), durability="none") as delivery:
        delivery.put([trace(Target(scripted_mlflow.url))])
        assert delivery.flush(10)
        assert delivery.counters.delivered == 3
    assert not (tmp_path / "spool").exists()
