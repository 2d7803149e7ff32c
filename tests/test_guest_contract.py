"""Promise 1: a traced program is to its host, and to its LM, what it is untraced."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.trace import NoOpTracerProvider

from dspy_trace import DSPyInstrumentor
from dspy_trace.testing import record
from tests import host_programs, host_programs_more
from tests.host import Scenario, Seen, process, run
from tests.host_programs import PROGRAMS

NEED_NUMPY = {host_programs.embedders, host_programs_more.knn_few_shot}
SHOW_TRACEBACKS = {
    host_programs.react_with_failing_tool,
    host_programs.async_react_with_failing_tool,
    host_programs.react_with_async_tool_in_sync,
    host_programs_more.evaluation_breaks_off,
}


@pytest.fixture(scope="module", autouse=True)
def memory_cache_only() -> Iterator[None]:
    """Keep DSPy's disk cache, which outlives the test, out of it."""
    before = dspy.cache
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    yield
    dspy.cache = before


def traced(scenario: Scenario, **kwargs: Any) -> tuple[Seen, set[str]]:
    before = process()
    with record(**kwargs) as trace:
        assert process() == before
        seen = run(scenario)
    return seen, {span.name for span in trace.spans if span.parent is None}


def without_sdk(scenario: Scenario) -> Seen:
    instrumentor = DSPyInstrumentor()
    instrumentor.instrument(tracer_provider=NoOpTracerProvider(), detail="full")
    try:
        return run(scenario)
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize("scenario", PROGRAMS, ids=lambda scenario: scenario.__name__)
def test_a_traced_program_is_the_same_to_its_host(scenario: Scenario) -> None:
    """Values, errors, requests, warnings, logs, output and the process are the same, whatever is recorded of it."""
    if scenario in NEED_NUMPY:
        pytest.importorskip("numpy")
    if scenario in SHOW_TRACEBACKS and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 cannot take a frame out of a traceback that passes through it")
    bare = run(scenario)
    before = process()
    full, roots = traced(scenario, detail="full", capture_content=True)
    least, _ = traced(scenario, detail="minimal")
    none = without_sdk(scenario)
    assert process() == before

    assert (bare.raised[0] if bare.raised else None) == PROGRAMS[scenario].raises, bare.raised
    assert roots >= PROGRAMS[scenario].roots, "it was not traced as it should have been"
    for seen in (full, least, none):
        assert seen.raised == bare.raised
        assert seen.returned == bare.returned
        assert seen.requests == bare.requests
        assert seen.warned == bare.warned
        assert seen.logged == bare.logged
        assert seen.printed == bare.printed
        assert seen.history == bare.history
        assert seen.changed == bare.changed == set()


class Raising(dspy.Module):
    """Raises the object that it is given, or lets another module do so."""

    def __init__(self, inner: dspy.Module | None = None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, error: BaseException) -> Any:
        if self.inner is not None:
            return self.inner(error=error)
        raise error

    async def aforward(self, error: BaseException) -> Any:
        if self.inner is not None:
            return await self.inner.acall(error=error)
        raise error


class RaisingLate(dspy.Module):
    def forward(self, error: BaseException) -> Iterator[int]:
        yield 1
        raise error


class RaisingLM(dspy.BaseLM):
    """Raises the error, or answers what no adapter can read."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__("own")
        self.error = error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            raise self.error
        return ["nothing to parse"]

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return self(*args, **kwargs)


class Odd(BaseException):
    """An error that is unlike others: no message, and no attribute may be set on it but its own."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)


def frames(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot take a frame out of a traceback")
@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), StopIteration(1), Odd()], ids=repr
)
def test_the_error_of_the_host_is_the_same_object_and_has_the_same_traceback(error: BaseException) -> None:
    """Whatever is raised comes out itself, uncaused by anything of ours, with no frame of ours in its traceback."""

    def caught(call: Any) -> list[str]:
        error.__traceback__ = error.__cause__ = error.__context__ = None
        with pytest.raises(BaseException) as info:
            call()
        if info.value is error:  # a `StopIteration` leaves a stream as a `RuntimeError`, and DSPy has errors of its own
            assert error.__cause__ is None and error.__context__ is None
        return [type(info.value).__name__, *frames(info.value)]

    program = Raising(Raising())
    calls = [
        lambda: program(error=error),
        lambda: asyncio.run(program.acall(error=error)),
        lambda: list(RaisingLate()(error=error)),
        dspy.Tool(lambda: program(error=error), name="f"),
        lambda: dspy.Predict("question -> answer")(question="?", lm=RaisingLM(error)),
        lambda: asyncio.run(dspy.Predict("question -> answer").acall(question="?", lm=RaisingLM(error))),
        lambda: dspy.Predict("question -> answer")(question="?", lm=RaisingLM(None)),
    ]
    bare = [caught(call) for call in calls]
    assert [seen[0] for seen in bare].count(type(error).__name__) >= 3
    with record(detail="full", capture_content=True) as trace:
        assert [caught(call) for call in calls] == bare
    assert trace.spans


def test_context_variables_that_a_program_sets_are_set_for_its_caller() -> None:
    """The program runs in its caller's context, as it does untraced."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    class Setting(dspy.Module):
        def forward(self) -> None:
            variable.set("sync")

        async def aforward(self) -> None:
            await asyncio.sleep(0)
            variable.set("async")

    async def awaited() -> str:
        await Setting().acall()
        return variable.get()

    with record() as trace:
        context = contextvars.copy_context()
        context.run(Setting())
        assert context[variable] == "sync"
        assert asyncio.run(awaited()) == "async"
    assert len(trace.named("invoke_workflow Setting")) == 2
