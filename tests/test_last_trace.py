"""``last_trace_id()``: the trace that ended last for whoever asks, and never one that somebody else has made."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry.context import Context, attach, detach, get_current

import dspy_trace
from dspy_trace.observing.last import MOST_EARS, last_trace
from dspy_trace.testing import Recording, record


def program() -> dspy.Predict:
    return dspy.Predict("question -> answer")


async def awaited() -> None:
    await program().acall(question="?")


async def asyncified() -> None:
    await dspy.asyncify(program())(question="?")


async def streamed() -> None:
    async for _ in dspy.streamify(program())(question="?"):
        pass


async def in_a_task() -> None:
    await asyncio.create_task(program().acall(question="?"))


async def in_a_thread_of_a_task() -> None:
    await asyncio.create_task(asyncified())


async def in_parallel() -> None:
    dspy.Parallel(num_threads=2, disable_progress_bar=True)([(program(), {"question": "?"})])


WAYS = [awaited, asyncified, streamed, in_a_task, in_a_thread_of_a_task, in_parallel]


def run(what: Callable[[Recording], Awaitable[Any]]) -> None:
    """Run `what` in a context that knows of no trace, with an LM."""

    async def all_of_it(trace: Recording) -> None:
        with dspy.context(lm=DummyLM([{"answer": "yes"}] * 20)):
            await what(trace)

    with record() as trace:
        contextvars.Context().run(asyncio.run, all_of_it(trace))


def newest(trace: Recording) -> str:
    span = max((span for span in trace.spans if span.parent is None), key=lambda span: span.end_time or 0)
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


@pytest.mark.parametrize("way", WAYS)
def test_a_session_knows_of_what_it_has_started(way: Callable[[], Awaitable[None]]) -> None:
    """In a session and after it, the last trace is known, in whatever thread or task it was made."""

    async def ask(trace: Recording) -> None:
        assert dspy_trace.last_trace_id() is None
        with dspy_trace.session(session_id="chat"):
            for _ in range(2):
                await way()
                assert dspy_trace.last_trace_id() == newest(trace)
        assert dspy_trace.last_trace_id() == newest(trace)

    run(ask)


@pytest.mark.parametrize("way", WAYS[:-1])
def test_nobody_is_told_of_an_older_trace(way: Callable[[], Awaitable[None]]) -> None:
    """Once a program has been called here, whatever this task starts counts: feedback goes to no older trace."""

    async def ask(trace: Recording) -> None:
        await awaited()
        await way()
        assert dspy_trace.last_trace_id() == newest(trace)

    run(ask)


def test_one_task_is_not_told_of_another() -> None:
    """Requests that are served at once each know their own trace, and none where they have made none."""

    made: list[int] = []
    seen: dict[int, str | None] = {}

    async def serve(number: int) -> None:
        with dspy_trace.session(session_id=str(number)):
            if number < 4:
                await dspy.asyncify(program())(question=str(number))
            made.append(number)
            while len(made) < 5:
                await asyncio.sleep(0)
            seen[number] = dspy_trace.last_trace_id()

    async def ask(trace: Recording) -> None:
        await awaited()
        before = dspy_trace.last_trace_id()
        await asyncio.gather(*map(serve, range(5)))
        told = {(span.attributes or {}).get("session.id"): span.context for span in trace.spans}
        theirs = {number: context.trace_id for number in range(4) if (context := told[str(number)]) is not None}
        assert seen == {**{number: f"{trace_id:032x}" for number, trace_id in theirs.items()}, 4: before}

    run(ask)


def test_a_thread_of_a_pool_works_for_one_after_the_other() -> None:
    """Each is told of what was done for it, by a thread that gets OpenTelemetry's context and no other."""

    def work(context: Context) -> None:
        token = attach(context)
        with dspy.context(lm=DummyLM([{"answer": "yes"}])):
            program()(question="?")
        detach(token)

    with record() as trace, ThreadPoolExecutor(1) as pool:
        for number in range(3):
            with dspy_trace.session(session_id=str(number)):
                pool.submit(work, get_current()).result()
                assert dspy_trace.last_trace_id() == newest(trace)


def test_who_is_started_later_knows_what_was_known_then() -> None:
    """A thread with a copy of the context goes by that, as a background job does that gives feedback later."""
    with record() as trace, dspy.context(lm=DummyLM([{"answer": "yes"}] * 2)):
        program()(question="?")
        known, context = newest(trace), contextvars.copy_context()
        told: list[str | None] = []
        for asked_in in (lambda: context.run(dspy_trace.last_trace_id), dspy_trace.last_trace_id):
            thread = threading.Thread(target=lambda asked_in=asked_in: told.append(asked_in()))
            thread.start()
            thread.join()
    assert told == [known, None]


def test_tasks_that_start_tasks_keep_nobody_for_ever() -> None:
    """However long a chain of tasks is, few of them hear of its end."""

    async def link(left: int) -> int:
        await awaited()
        return await asyncio.create_task(link(left - 1)) if left else len(last_trace.listen())

    async def ask(trace: Recording) -> None:
        assert await link(12) == MOST_EARS + 1

    run(ask)
