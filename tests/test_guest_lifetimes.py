"""Promise 1, in memory: what a program lets go of dies when it would have died untraced, without the collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

from dspy_trace.testing import record
from tests.parts.scripted_answers import Reply
from tests.parts.scripted_lm import ScriptedLM

Refs = list["weakref.ref[Any]"]


class Thing:
    """An object whose end can be seen."""


class Holder(dspy.Module):
    """A program with an object in a local variable of each call."""

    def __init__(self, refs: Refs) -> None:
        super().__init__()
        self.refs = refs
        self.inner = Failing()

    def forward(self, value: Any, fail: bool = False) -> Any:
        local = Thing()
        self.refs.append(weakref.ref(local))
        return self.inner(value=value) if fail else dspy.Prediction(value=1)

    async def aforward(self, value: Any, fail: bool = False) -> Any:
        local = Thing()
        self.refs.append(weakref.ref(local))
        return await self.inner.acall(value=value) if fail else dspy.Prediction(value=1)


class Failing(dspy.Module):
    def forward(self, value: Any) -> Any:
        raise ValueError("inner")

    async def aforward(self, value: Any) -> Any:
        await asyncio.sleep(0)
        raise ValueError("inner")


class Counting(dspy.Module):
    def forward(self, value: Any) -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the end")


class FailingLM(dspy.BaseLM):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no answer")


def returns(refs: Refs, thing: Thing) -> None:
    Holder(refs)(value=thing)


def returns_async(refs: Refs, thing: Thing) -> None:
    asyncio.run(Holder(refs).acall(value=thing))


def fails(refs: Refs, thing: Thing) -> None:
    with pytest.raises(ValueError, match="inner"):
        Holder(refs)(value=thing, fail=True)


def fails_async(refs: Refs, thing: Thing) -> None:
    with pytest.raises(ValueError, match="inner"):
        asyncio.run(Holder(refs).acall(value=thing, fail=True))


def lm_fails(refs: Refs, thing: Thing) -> None:
    with pytest.raises(RuntimeError, match="no answer"):
        dspy.ChainOfThought("value: list -> answer")(value=[thing], lm=FailingLM("own"))


def server_fails(refs: Refs, thing: Thing) -> None:
    broken = Reply("broken", status=503, headers={"Retry-After": "0"})
    with ScriptedLM(lambda body: broken) as server, pytest.raises(dspy.LMServerError):
        dspy.ChainOfThought("value: list -> answer")(value=[thing], lm=server.lm())


def generates_to_the_end(refs: Refs, thing: Thing) -> None:
    with pytest.raises(ValueError, match="the end"):
        list(Counting()(value=thing))


def generates_half(refs: Refs, thing: Thing) -> None:
    next(Counting()(value=thing))


def generates_nothing(refs: Refs, thing: Thing) -> None:
    Counting()(value=thing)


def uses_tool(refs: Refs, thing: Thing) -> None:
    dspy.Tool(lambda x: Thing(), args={"x": {}}, arg_types={})(x=thing)


def maps(refs: Refs, thing: Thing) -> None:
    dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Holder(refs), {"value": thing})] * 2)


PROGRAMS = [returns, returns_async, fails, fails_async, lm_fails, server_fails, generates_to_the_end]
PROGRAMS += [generates_half, generates_nothing, uses_tool, maps]


def survivors(program: Callable[[Refs, Thing], None]) -> list[str]:
    """Return what still lives after `program`: the input, and the locals of its calls."""
    refs: Refs = []
    thing = Thing()
    refs.append(weakref.ref(thing))
    gc.disable()
    try:
        program(refs, thing)
        del thing
        return [type(ref()).__name__ for ref in refs if ref() is not None]
    finally:
        gc.enable()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_what_dies_untraced_dies_traced(program: Callable[[Refs, Thing], None]) -> None:
    """Inputs and locals of a call, whether it returns or fails, are freed at once: no cycle of ours holds them."""
    bare = survivors(program)
    with record(detail="full", capture_content=True) as trace:
        traced = survivors(program)
    assert trace.spans
    assert traced == bare


def test_a_failed_call_that_is_not_recorded_holds_nothing_either() -> None:
    """Where the sampler drops the trace, the same holds."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    for program in (fails, lm_fails, generates_half, returns):
        bare = survivors(program)
        with record(sampler=ALWAYS_OFF) as trace:
            traced = survivors(program)
        assert not trace.spans
        assert traced == bare, program.__name__


def test_a_module_that_was_called_can_die() -> None:
    """What is known of a program is kept by weak reference."""

    def called() -> weakref.ref[Any]:
        program = Holder([])
        program(value=1)
        return weakref.ref(program)

    with record():
        assert called()() is None
