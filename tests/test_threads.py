"""What DSPy runs on threads of its own stands in the trace of the code that submitted it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from dspy.utils.parallelizer import ParallelExecutor
from opentelemetry import baggage
from opentelemetry import context as otel_context

from tests.balanced import balanced, traces

ASK = "question -> answer"
ITEMS = [dspy.Example(question=word).with_inputs("question") for word in "abc"]


def lm() -> DummyLM:
    return DummyLM([{"answer": f"answer {index}"} for index in range(500)])


def parallel(pairs: Any, threads: int = 3, **kwargs: Any) -> Any:
    return dspy.Parallel(num_threads=threads, disable_progress_bar=True, **kwargs)(pairs)


class Crowd(dspy.Module):
    """Asks one predictor several times at once."""

    def __init__(self, threads: int = 3) -> None:
        super().__init__()
        self.ask = dspy.Predict(ASK)
        self.threads = threads

    def forward(self) -> Any:
        return parallel([(self.ask, item) for item in ITEMS], self.threads)


CROWD = """
invoke_workflow Crowd
  Predict ask
    chat dummy
  Predict ask
    chat dummy
  Predict ask
    chat dummy
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_parallel_inside_a_module_stays_in_its_trace(threads: int) -> None:
    """With one thread or several, the items are calls of the module."""
    with balanced() as trace, dspy.context(lm=lm()):
        Crowd(threads)()
    assert trace.tree() == CROWD


def test_batch_inside_a_module_stays_in_its_trace() -> None:
    """``Module.batch`` is the same."""

    class Batch(Crowd):
        def forward(self) -> Any:
            return self.ask.batch(ITEMS, num_threads=2, disable_progress_bar=True)

    with balanced() as trace, dspy.context(lm=lm()):
        Batch()()
    assert trace.tree() == CROWD.replace("Crowd", "Batch")


def test_parallel_inside_parallel_stays_in_the_trace() -> None:
    """Threads of threads know where they come from."""

    class Crowds(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.crowds = [Crowd(), Crowd()]

        def forward(self) -> Any:
            return parallel([(crowd, {}) for crowd in self.crowds], 2)

    with balanced() as trace, dspy.context(lm=lm()):
        Crowds()()
    inner = "    Predict crowds[{0}].ask\n      chat dummy\n" * 3
    orders = [(0, 1), (1, 0)]
    trees = [
        "\ninvoke_workflow Crowds\n" + "".join(f"  Crowd crowds[{index}]\n" + inner.format(index) for index in order)
        for order in orders
    ]
    assert trace.tree() in trees


def test_parallel_outside_a_module_is_a_trace_for_each_item() -> None:
    """Each item is a top-level call of its own."""
    with balanced() as trace, dspy.context(lm=lm()):
        parallel([(dspy.Predict(ASK), item) for item in ITEMS])
    assert trace.tree() == "\n" + "invoke_workflow Predict\n  chat dummy\n" * 3
    assert traces(trace) == 3


def test_calls_at_the_top_in_tasks_and_threads_are_traces_of_their_own() -> None:
    """``asyncio.gather`` and a thread pool at the top level start traces; nothing is mixed up."""
    program = dspy.ChainOfThought(ASK)
    scripted = DummyLM([{"reasoning": "so", "answer": "x"} for _ in range(40)])

    async def gathered() -> None:
        await asyncio.gather(*(program.acall(question=str(index)) for index in range(10)))

    def threaded(index: int) -> Any:
        with dspy.context(lm=scripted):
            return program(question=str(index))

    with balanced() as trace, dspy.context(lm=scripted):
        asyncio.run(gathered())
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(threaded, range(10)))
    assert trace.tree() == "\n" + "invoke_workflow ChainOfThought\n  Predict predict\n    chat dummy\n" * 20
    assert traces(trace) == 20


def test_a_failing_item_fails_alone() -> None:
    """DSPy keeps the error of an item to itself; so do the spans."""

    class Picky(dspy.Module):
        def forward(self, question: str) -> str:
            if question == "b":
                raise ValueError("not b")
            return question

    class Several(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pick = Picky()

        def forward(self) -> Any:
            return parallel([(self.pick, item) for item in ITEMS], 1)

    with balanced() as trace:
        assert Several()() == ["a", None, "c"]
    assert trace.tree() == dedent("""
        invoke_workflow Several
          Picky pick
          Picky pick !ValueError
          Picky pick
    """)


def test_a_straggler_that_dspy_runs_again_is_seen_twice() -> None:
    """An item that takes too long is submitted again: both runs are in the trace, and the late one ends it late."""
    release = threading.Event()
    first = threading.Semaphore(1)

    class Slow(dspy.Module):
        def forward(self) -> str:
            if first.acquire(blocking=False):
                release.wait(30)
                return "slow"
            return "quick"

    class Waits(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slow = Slow()

        def forward(self) -> Any:
            return parallel([(self.slow, {}), (self.slow, {})], 4, timeout=0.01)

    with balanced() as trace:
        assert Waits()() == ["quick", "quick"]
        assert trace.tree() == "\ninvoke_workflow Waits\n  Slow slow\n  Slow slow\n"
        release.set()
    assert trace.tree() == "\ninvoke_workflow Waits\n  Slow slow\n  Slow slow\n  Slow slow\n"
    assert traces(trace) == 1


def test_only_opentelemetrys_context_is_carried() -> None:
    """Baggage and the current span reach DSPy's threads; the program's own variables are where DSPy leaves them."""
    own: contextvars.ContextVar[str] = contextvars.ContextVar("own", default="unset")
    seen: set[tuple[Any, str]] = set()

    def look(item: Any) -> None:
        seen.add((baggage.get_baggage("tenant"), own.get()))
        own.set("changed by an item")

    with balanced():
        token = otel_context.attach(baggage.set_baggage("tenant", "acme"))
        own.set("changed by the caller")
        context = otel_context.get_current()
        try:
            ParallelExecutor(num_threads=2, disable_progress_bar=True).execute(look, [1, 2, 3])
            assert otel_context.get_current() is context
        finally:
            otel_context.detach(token)
    assert {tenant for tenant, _ in seen} == {"acme"}
    assert "changed by the caller" not in {value for _, value in seen}


async def test_asyncify_and_to_thread_carry_their_caller() -> None:
    """A program that ``asyncify`` or ``asyncio.to_thread`` runs on a thread is beneath whoever awaits it."""

    class Offloads(Crowd):
        async def aforward(self) -> Any:
            await dspy.asyncify(self.ask)(question="a")
            await asyncio.to_thread(self.ask, question="b")
            return await asyncio.gather(self.ask.acall(question="c"))

    with balanced() as trace, dspy.context(lm=lm()):
        await Offloads().acall()
    assert trace.tree() == CROWD.replace("Crowd", "Offloads")


async def test_syncify_carries_its_caller() -> None:
    """An async program that ``syncify`` runs in an event loop of its own is beneath its caller."""

    class Async(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(ASK)

        async def aforward(self, **kwargs: Any) -> Any:
            return await self.ask.acall(**kwargs)

    class Sync(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Async()

        def forward(self) -> Any:
            return dspy.syncify(self.inner, in_place=False)(question="?")

    with balanced() as trace, dspy.context(lm=lm()):
        await asyncio.to_thread(Sync())
    assert trace.tree() == dedent("""
        invoke_workflow Sync
          SyncWrapper
            Predict inner.ask
              chat dummy
    """)
