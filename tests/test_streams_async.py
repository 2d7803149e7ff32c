"""Async generators and coroutines: a span ends when its work does, whoever ends it and wherever."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from textwrap import dedent
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry import trace as otel
from opentelemetry.context import get_current

from tests.balanced import balanced

Pieces = AsyncGenerator[Any, Any]


class Piecewise(dspy.Module):
    """Asks, then does as it is told; notes in ``log`` how it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.say = dspy.Predict("question -> answer")
        self.log: list[str] = []

    async def forward(self, question: str) -> Pieces:
        try:
            told = yield (await self.say.acall(question=question)).answer
            if told == "fail":
                raise RuntimeError("told to fail")
            if told == "wait":
                await asyncio.sleep(60)
            try:
                yield told
            except LookupError:
                yield "handled"
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        finally:
            self.log.append("over")


def lm() -> DummyLM:
    return DummyLM([{"answer": f"answer {index}"} for index in range(20)])


async def exhausted(pieces: Pieces) -> Any:
    return [piece async for piece in pieces]


async def closed(pieces: Pieces) -> Any:
    return await anext(pieces), await pieces.aclose(), [piece async for piece in pieces]


async def closed_in_another_task(pieces: Pieces) -> Any:
    first = await anext(pieces)
    await asyncio.create_task(pieces.aclose())
    return first


async def stepped_in_other_tasks(pieces: Pieces) -> Any:
    async def step() -> Any:
        return await anext(pieces, "done")

    return [await asyncio.create_task(step()) for _ in range(3)]


async def sent_to(pieces: Pieces) -> Any:
    return await anext(pieces), await pieces.asend("heard"), [piece async for piece in pieces]


async def thrown_into(pieces: Pieces) -> Any:
    await anext(pieces)
    await pieces.athrow(ValueError("from outside"))


async def thrown_into_and_handled(pieces: Pieces) -> Any:
    await anext(pieces), await anext(pieces)
    return await pieces.athrow(LookupError("to be handled")), [piece async for piece in pieces]


async def failing(pieces: Pieces) -> Any:
    await anext(pieces)
    await pieces.asend("fail")


async def cancelled_in_a_step(pieces: Pieces) -> Any:
    await anext(pieces)
    step = asyncio.create_task(pieces.asend("wait"))
    await asyncio.sleep(0)
    step.cancel()
    await asyncio.wait([step])
    return step.cancelled(), [piece async for piece in pieces]


async def left_by_its_consumer(pieces: Pieces) -> Any:
    async for piece in pieces:
        return piece


async def never_started(pieces: Pieces) -> Any:
    return pieces.__name__, pieces.__qualname__


async def closed_before_its_start(pieces: Pieces) -> Any:
    return await pieces.aclose(), [piece async for piece in pieces]


ASKED = """
invoke_workflow Piecewise
  Predict say
    chat dummy
"""
CONSUMERS: dict[Callable[[Pieces], Awaitable[Any]], str] = {
    exhausted: ASKED,
    closed: ASKED,
    closed_in_another_task: ASKED,
    stepped_in_other_tasks: ASKED,
    sent_to: ASKED,
    thrown_into: ASKED.replace("Piecewise", "Piecewise !ValueError"),
    thrown_into_and_handled: ASKED,
    failing: ASKED.replace("Piecewise", "Piecewise !RuntimeError"),
    cancelled_in_a_step: ASKED.replace("Piecewise", "Piecewise !CancelledError"),
    left_by_its_consumer: ASKED,
    never_started: "\ninvoke_workflow Piecewise\n",
    closed_before_its_start: "\ninvoke_workflow Piecewise\n",
}


async def settled() -> None:
    """Let asyncio close the generators that were dropped."""
    for _ in range(5):
        await asyncio.sleep(0)


async def consume(consumer: Callable[[Pieces], Awaitable[Any]]) -> Any:
    """Return what the consumer and the program saw."""
    program = Piecewise()
    with dspy.context(lm=lm()):
        try:
            seen = await consumer(program(question="?"))
        except Exception as error:  # noqa: BLE001  # whatever it is, the traced run must raise it too
            seen = type(error), str(error)
    await settled()
    return seen, program.log


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.__name__)
async def test_an_async_generator_ends_its_span_however_it_ends(
    consumer: Callable[[Pieces], Awaitable[Any]],
) -> None:
    """The consumer and the program see what they see untraced, and the span is closed, failed only if it failed."""
    untraced = await consume(consumer)
    context = get_current()
    with balanced() as trace:
        assert await consume(consumer) == untraced
        assert get_current() is context
    assert trace.tree() == CONSUMERS[consumer]


async def test_the_span_is_current_in_the_generator_and_never_in_its_consumer() -> None:
    """What a consumer does between two steps is not beneath the generator, and its context is its own."""
    with balanced() as trace, dspy.context(lm=lm()):
        tracer = trace.provider.get_tracer("consumer")
        with tracer.start_as_current_span("consumer") as mine:
            async for _ in Piecewise()(question="?"):
                assert otel.get_current_span() is mine
                await dspy.Predict("question -> answer").acall(question="mine")
            assert otel.get_current_span() is mine
    assert trace.tree() == dedent("""
        consumer
          invoke_workflow Piecewise
            Predict say
              chat dummy
          invoke_workflow Predict
            chat dummy
          invoke_workflow Predict
            chat dummy
    """)


class Late(dspy.Module):
    """A plain ``__call__`` that returns a coroutine."""

    def __init__(self) -> None:
        super().__init__()
        self.say = dspy.Predict("question -> answer")

    async def forward(self, question: str) -> Any:
        return await self.say.acall(question=question)


LATE = ASKED.replace("Piecewise", "Late")


async def test_a_coroutine_ends_its_span_when_it_is_awaited() -> None:
    """What an async ``forward`` returns through ``__call__`` may be awaited later, in another task."""
    with balanced() as trace, dspy.context(lm=lm()):
        context = get_current()
        later = Late()(question="?")
        assert get_current() is context
        assert trace.spans == ()
        assert (await asyncio.create_task(later)).answer == "answer 0"
    assert trace.tree() == LATE


async def never_awaited(late: Any) -> list[str]:
    """Return what Python says of a coroutine that is dropped."""
    told = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del late
        while said:
            # A warning holds what it is about, of which the end may be another one.
            told.append(str(said.pop().message))
    return told


async def test_a_coroutine_that_is_never_awaited_leaves_no_open_span() -> None:
    """Python warns of it in the words that it has for the program's own, and the span ends."""
    untraced = await never_awaited(Late()(question="?"))
    with balanced() as trace:
        assert await never_awaited(Late()(question="?")) == untraced
    assert untraced == ["coroutine 'Late.forward' was never awaited"]
    assert trace.tree() == "\ninvoke_workflow Late\n"
