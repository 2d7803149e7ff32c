"""Calls that are cancelled, and streams that ``streamify`` makes of programs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from textwrap import dedent
from typing import Any

import dspy
import pytest

from tests.balanced import balanced
from tests.parts.scripted_answers import Reply, fill
from tests.parts.scripted_lm import ScriptedLM


async def cancelled(server: ScriptedLM, work: Callable[[], Awaitable[Any]]) -> None:
    """Cancel `work` while its LM takes its time."""
    asked = len(server.requests)
    task = asyncio.ensure_future(work())
    await asyncio.to_thread(server.wait_for, asked + 1, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
async def test_a_cancelled_call_ends_as_an_error(scripted_lm: ScriptedLM, engine: Any) -> None:
    """Cancelled in the middle of an LM call: every span of it says so, and the exception passes through."""
    scripted_lm.answer = lambda body: Reply("too late", delay=30)
    with balanced() as trace, dspy.context(lm=scripted_lm.lm(engine)):
        await cancelled(scripted_lm, lambda: dspy.ChainOfThought("question -> answer").acall(question="?"))
    assert trace.tree() == dedent("""
        invoke_workflow ChainOfThought !CancelledError
          Predict predict !CancelledError
            chat gpt-4o-mini !CancelledError
    """)


async def test_one_of_several_is_cancelled(scripted_lm: ScriptedLM) -> None:
    """A timeout of one call of a module is that call's error; the module, which handles it, has none."""
    scripted_lm.answer = lambda body: Reply("late", delay=30 if "slow" in str(body) else 0)

    class Impatient(dspy.Module):
        async def aforward(self) -> Any:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(dspy.settings.lm.acall("slow"), 0.2)
            return await dspy.settings.lm.acall("quick")

    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        await Impatient().acall()
    assert trace.tree() == dedent("""
        invoke_workflow Impatient
          chat gpt-4o-mini !CancelledError
          chat gpt-4o-mini
    """)


def stream() -> Any:
    """Return a program that streams its answer."""
    listeners = [dspy.streaming.StreamListener("answer")]
    return dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=listeners)


async def test_a_stream_that_is_never_read_is_no_call(scripted_lm: ScriptedLM) -> None:
    """``streamify`` calls the program when its stream is first read: unread, nothing happened."""
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        stream()(question="?")
        await asyncio.sleep(0.05)
    assert trace.spans == ()
    assert scripted_lm.requests == []


async def test_a_stream_is_one_trace(scripted_lm: ScriptedLM) -> None:
    """A program run by ``streamify`` in a thread of its own is one trace, and its LM call says that it streamed."""
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        assert [piece async for piece in stream()(question="?")]
    assert trace.tree("gen_ai.request.stream") == dedent("""
        invoke_workflow Predict
          chat gpt-4o-mini gen_ai.request.stream=True
    """)


async def test_a_stream_that_is_cancelled_ends_as_what_it_was(scripted_lm: ScriptedLM) -> None:
    """Its reader is cancelled while the LM takes its time: the call goes on in its thread, and ends its span."""
    scripted_lm.answer = lambda body: Reply(fill(body), delay=0.3)

    async def read() -> Any:
        return [piece async for piece in stream()(question="?")]

    async def ended() -> None:
        while len(trace.spans) < 2:
            await asyncio.sleep(0.01)

    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        await cancelled(scripted_lm, read)
        assert trace.spans == ()
        await asyncio.wait_for(ended(), 30)
    assert [span.name for span in trace.spans] == ["chat gpt-4o-mini", "invoke_workflow Predict"]
