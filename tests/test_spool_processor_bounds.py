"""The processor's bounds: what is dropped is counted to the span, whatever happens at once, and what it costs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from dspy_trace.export.processor import Limits
from tests.delivery import eventually
from tests.spooled import Spooled


def test_the_queue_is_bounded_by_spans() -> None:
    """What finds the queue full is dropped and counted; when it has been written there is room again."""
    spooled = Spooled(limits=Limits(spans=10))
    for number in range(15):
        with spooled.span(f"span {number}", ours=True):
            pass
    assert spooled.counts() == (15, 10, 0, 5, 0)
    assert len(spooled.told()) == 10
    for number in range(12):
        with spooled.span(f"more {number}", ours=True):
            pass
    assert len(spooled.told()) == 20
    assert spooled.counts() == (27, 0, 20, 7, 0)


def test_the_queue_is_bounded_by_bytes() -> None:
    """Large spans and what travels beside them count by their size; a small one may still find room."""
    spooled = Spooled(limits=Limits(bytes=100_000))
    for attribute, beside in (("x" * 40_000, ""), ("", "x" * 40_000), ("x" * 30_000, ""), ("", "x" * 30_000), ("", "")):
        span = spooled.begin("span")
        span.set_attribute("text", attribute)
        spooled.processor.keep(span.get_span_context(), {"text": beside})
        span.end()
    assert spooled.counts() == (5, 3, 0, 2, 0)
    assert [len(str(ended.span.attributes)) > 1_000 for ended in spooled.all()] == [True, False, False]


def test_what_waits_for_a_span_of_ours_is_bounded_by_trace() -> None:
    """Of a trace that goes on without one of ours, the last spans wait; the others are dropped and counted."""
    spooled = Spooled(limits=Limits(undecided=20))
    root = spooled.begin("websocket")
    for number in range(50):
        with spooled.span(f"message {number}", root):
            pass
        if number % 7 == 0:
            spooled.processor.write_out()
    assert spooled.told() == []
    assert spooled.counts() == (50, 20, 0, 30, 0)
    with spooled.span("invoke_workflow", root, ours=True):
        pass
    assert spooled.told() == [*(f"message {number}" for number in range(30, 50)), "invoke_workflow"]
    spooled.end(root)
    assert len(spooled.told()) == 22
    assert spooled.counts() == (52, 0, 22, 30, 0)


@pytest.mark.parametrize("limits", [Limits(spans=100), Limits(bytes=100 * 600)], ids=["spans", "bytes"])
def test_what_waits_for_a_span_of_ours_is_bounded_in_all(limits: Limits) -> None:
    """Of many such traces at once, the oldest are given up."""
    spooled = Spooled(limits=limits)
    roots = [spooled.begin(f"request {number}") for number in range(30)]
    for root in roots:
        for _ in range(10):
            with spooled.span("query", root):
                pass
        spooled.processor.write_out()
    observed, queued, handed_on, dropped, filtered = spooled.counts()
    assert (observed, handed_on, filtered) == (300, 0, 0)
    assert 50 < queued <= 120
    for root in roots:
        spooled.end(root, ours=True)
    assert len(spooled.told()) == 30 + queued
    assert spooled.counts() == (330, 0, 30 + queued, dropped, 0)


def test_a_dropped_span_leaves_nothing_waiting() -> None:
    """Where the very span finds no room that shows a trace to be ours, what waited for it is written all the same."""
    limits = Limits()
    spooled = Spooled(limits=limits)
    root = spooled.begin("request")
    with spooled.span("authorize", root):
        pass
    spooled.processor.write_out()
    limits.spans, room = 0, limits.spans
    with spooled.span("invoke_workflow", root, ours=True):
        pass
    limits.spans = room
    assert spooled.told() == ["authorize"]
    spooled.end(root)
    assert spooled.counts() == (3, 1, 1, 1, 0)
    assert spooled.told() == ["authorize", "> request"]


def test_sync() -> None:
    """In ``sync`` each span of ours is written when its call returns, by the thread that ended it, with what waited."""
    spooled = Spooled(sync=True)
    writers: list[int] = []
    write = spooled.processor._write
    spooled.processor._write = lambda decided: (writers.append(threading.get_ident()), write(decided))[1]
    before = threading.active_count()
    root = spooled.begin("request")
    with spooled.span("authorize", root):
        pass
    assert spooled.written == []
    for number in range(3):
        with spooled.span(f"call {number}", root, ours=True):
            pass
        assert len(spooled.written) == number + 1
    spooled.end(root)
    assert [[ended.span.name for _, spans in decided for ended in spans] for decided in spooled.written] == [
        ["authorize", "call 0"],
        ["call 1"],
        ["call 2"],
        ["request"],
    ]
    assert set(writers) == {threading.get_ident()}
    assert threading.active_count() == before


class Load:
    """Traces on many threads, each of a known make.

    Args:
        spooled: what they go through.
        threads: number of threads.
        each: traces on each of them.
    """

    def __init__(self, spooled: Spooled, threads: int, each: int) -> None:
        self.spooled = spooled
        self.threads = threads
        self.each = each
        self.ended: Counter[str] = Counter()
        self.expected = threads * each

    def run(self) -> None:
        start = threading.Barrier(self.threads)
        with ThreadPoolExecutor(self.threads) as pool:
            for told in pool.map(lambda number: self._traces(start, number), range(self.threads)):
                self.ended += told

    def _traces(self, start: threading.Barrier, number: int) -> Counter[str]:
        spooled, told = self.spooled, Counter[str]()
        start.wait()
        for index in range(self.each):
            ours = (number + index) % 3 > 0
            root = spooled.begin("request")
            with spooled.span("query", root):
                pass
            if ours:
                with spooled.span("call", root, ours=True) as call, spooled.span("chat", call, ours=True):
                    pass
            spooled.end(root)
            told["ours" if ours else "foreign"] += 4 if ours else 2
        return told


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_all_accounts_add_up(sync: bool) -> None:
    """Sixteen threads at once: every span that ended was written once, or filtered; traces are never torn."""
    spooled = Spooled(still=False, sync=sync, limits=Limits(spans=10**6, batch=64, seconds=0.001))
    load = Load(spooled, 16, 25 if sync else 200)
    load.run()
    written = spooled.all()
    spooled.processor.end()
    assert spooled.counts() == (load.ended.total(), 0, load.ended["ours"], 0, load.ended["foreign"])
    assert len(written) == load.ended["ours"]
    ids = Counter(ended.span.get_span_context().span_id for ended in written)
    assert max(ids.values()) == 1
    shapes = Counter(tuple(sorted(names)) for names in by_trace(written).values())
    assert shapes == {("call", "chat", "query", "request"): load.ended["ours"] // 4}


def test_all_accounts_add_up_where_spans_are_dropped() -> None:
    """The same with a queue that is too small: what is missing is what was counted as dropped."""
    spooled = Spooled(still=False, limits=Limits(spans=40, batch=10**9, seconds=0.002))
    write = spooled.processor._write
    # However fast this machine writes: the queue is full before the first of it is done.
    spooled.processor._write = lambda decided: (eventually(lambda: spooled.counts()[3]), write(decided))[1]
    load = Load(spooled, 16, 100)
    load.run()
    written = spooled.all()
    spooled.processor.end()
    observed, queued, handed_on, dropped, filtered = spooled.counts()
    assert (observed, queued, handed_on) == (load.ended.total(), 0, len(written))
    assert dropped > 0
    assert observed == handed_on + dropped + filtered
    ids = Counter(ended.span.get_span_context().span_id for ended in written)
    assert max(ids.values()) == 1


def by_trace(written: list[Any]) -> dict[int, list[str]]:
    """Return the names of spans by trace."""
    found: dict[int, list[str]] = {}
    for ended in written:
        found.setdefault(ended.span.get_span_context().trace_id, []).append(ended.span.name)
    return found


def test_the_cost_of_a_span(capsys: pytest.CaptureFixture[str]) -> None:
    """What a span costs the program beyond the SDK's own work, printed."""
    spooled, bare = Spooled(), TracerProvider(shutdown_on_exit=False).get_tracer("bare")
    beside = {"mlflow.spanInputs": "x" * 1_000, "mlflow.spanOutputs": "x" * 1_000}

    def seconds(tracer: Any, keep: bool) -> float:
        begun = time.perf_counter()
        for _ in range(1_000):
            span = tracer.start_span("span")
            if keep:
                spooled.processor.keep(span.get_span_context(), beside)
            span.end()
        taken = time.perf_counter() - begun
        spooled.processor.write_out()
        return taken

    rounds = [(seconds(bare, False), seconds(spooled.tracer, True)) for _ in range(7)]
    without, with_us = (median(each) * 1e3 for each in zip(*rounds, strict=True))
    with capsys.disabled():
        print(
            f"\nSpoolProcessor: on_start and on_end cost {with_us - without:.1f} us beyond {without:.1f} us of the SDK"
        )
    assert spooled.counts()[0] == 7_000
