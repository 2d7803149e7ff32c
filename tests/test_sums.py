"""Sums on the outermost span: exactly what the server reported, however the calls were made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from dspy_trace.testing import Recording
from tests import busy
from tests.balanced import balanced, fresh_cache
from tests.parts.scripted_answers import Body, Reply, fill, in_turn, input_words
from tests.parts.scripted_lm import ScriptedLM
from tests.samplers import LeavesOut

ASK = "question -> answer"


class Work(dspy.Module):
    """Does the work that it is given, with a predictor of its own."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        super().__init__()
        self.ask = dspy.Predict(ASK)
        self.work = work

    def forward(self) -> Any:
        return self.work(self.ask)

    async def aforward(self) -> Any:
        return await self.work(self.ask)


def sums(trace: Recording, name: str = "invoke_workflow Work") -> dict[str, Any]:
    """Return the sums of a span, without their common prefix."""
    attributes = trace.one(name).attributes
    return {key.removeprefix("dspy.usage."): value for key, value in attributes.items() if "dspy.usage." in key}


def check(trace: Recording, server: ScriptedLM, lm: dspy.LM, *, calls: int, hits: int = 0) -> None:
    """Compare the sums of the outermost span with what the server reported and what DSPy's history says."""
    told = sums(trace)
    assert told.pop("cost", None) == pytest.approx(sum(entry["cost"] or 0 for entry in lm.history if paid(entry)))
    assert told == {
        "lm_calls": calls,
        "cache_hits": hits,
        "input_tokens": server.reported.input_tokens,
        "output_tokens": server.reported.output_tokens,
    }
    assert server.reported.requests > 0


def paid(entry: Any) -> bool:
    return bool(entry["usage"])


def several(predict: Any, count: int = 64) -> None:
    items = [dspy.Example(question=f"question {index}").with_inputs("question") for index in range(count)]
    dspy.Parallel(num_threads=8, disable_progress_bar=True)([(predict, item) for item in items])


def test_across_threads(scripted_lm: ScriptedLM) -> None:
    """Eight threads, sixty-four calls: not a token is lost or counted twice."""
    lm = scripted_lm.lm()
    with balanced() as trace, dspy.context(lm=lm):
        Work(several)()
    check(trace, scripted_lm, lm, calls=64)


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
async def test_across_tasks(scripted_lm: ScriptedLM, engine: Any) -> None:
    """``asyncio.gather`` over ``acall``, on both engines."""
    lm = scripted_lm.lm(engine)

    async def gather(predict: Any) -> None:
        await asyncio.gather(*(predict.acall(question=f"question {index}") for index in range(20)))

    with balanced() as trace, dspy.context(lm=lm):
        await Work(gather).acall()
    check(trace, scripted_lm, lm, calls=20)


def test_with_cache_hits(scripted_lm: ScriptedLM) -> None:
    """A hit is a call that cost nothing."""
    lm = scripted_lm.lm(cache=True)

    def repeat(predict: Any) -> None:
        for question in ("one", "two", "one", "one"):
            predict(question=question)

    with balanced() as trace, fresh_cache(), dspy.context(lm=lm):
        Work(repeat)()
    check(trace, scripted_lm, lm, calls=4, hits=2)


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
def test_with_several_choices(scripted_lm: ScriptedLM, engine: Any) -> None:
    """``n=3`` is one call, in three requests or in one."""
    lm = scripted_lm.lm(engine, temperature=0.9)
    with balanced() as trace, dspy.context(lm=lm):
        Work(lambda predict: predict(question="?", config={"n": 3}))()
    check(trace, scripted_lm, lm, calls=1)


def test_with_errors_retries_and_fallbacks(scripted_lm: ScriptedLM) -> None:
    """What fails costs nothing; what was answered counts though the program could not use it."""

    def answer(body: Body) -> Reply | str:
        words = input_words(body)
        if "refused" in words:
            return Reply("no", status=400)
        return "garbled" if "garbled" in words and "response_format" not in body else fill(body)

    def trouble(predict: Any) -> None:
        for question in ("fine", "refused", "garbled", "garbled again"):
            try:
                predict(question=question)
            except dspy.LMError:
                assert question == "refused"

    lm = scripted_lm.lm(num_retries=1)
    busy = Reply("busy", status=429, headers={"Retry-After": "0.01"})
    scripted_lm.answer = in_turn(busy, then=answer)
    with balanced() as trace, dspy.context(lm=lm):
        Work(trouble)()
    check(trace, scripted_lm, lm, calls=6)
    assert len(scripted_lm.requests) == 7


def test_what_an_unfinished_call_has_cost(scripted_lm: ScriptedLM) -> None:
    """Two of three choices were answered before one was refused: those were paid for."""
    scripted_lm.answer = in_turn("one", "two", then=lambda body: Reply("no more", status=400))

    def unfinished(predict: Any) -> None:
        with pytest.raises(dspy.LMError):
            dspy.settings.lm("?", n=3)

    with balanced() as trace, dspy.context(lm=scripted_lm.lm("lm15", temperature=0.9)):
        Work(unfinished)()
    told, reported = sums(trace), scripted_lm.reported
    assert (told["input_tokens"], told["output_tokens"]) == (reported.input_tokens, reported.output_tokens)
    assert (reported.requests, told["lm_calls"]) == (2, 1)


async def test_with_streams(scripted_lm: ScriptedLM) -> None:
    """What was streamed counts as well."""
    lm = scripted_lm.lm()

    async def stream(predict: Any) -> None:
        for question in ("one", "two"):
            chunks = dspy.streamify(predict, stream_listeners=[dspy.streaming.StreamListener("answer")])
            assert [chunk async for chunk in chunks(question=question)]

    with balanced() as trace, dspy.context(lm=lm):
        await Work(stream).acall()
    check(trace, scripted_lm, lm, calls=2)


USAGE = {"input_tokens": "prompt", "output_tokens": "completion"}


def test_everything_at_once(scripted_lm: ScriptedLM) -> None:
    """Hits, repeated and refused requests, several choices, streams and fallbacks on eight threads and both engines.

    The sums over spans, in both spellings, and those of the root are what the server reported.
    """
    with balanced(conventions={"openinference"}) as trace, fresh_cache():
        busy.run(scripted_lm)
    calls = [span.attributes for span in trace.named("chat gpt-4o-mini")]
    reported, told = scripted_lm.reported, sums(trace, "invoke_workflow Busy")
    for key, other in USAGE.items():
        spelled = [f"gen_ai.usage.{key}", f"llm.token_count.{other}"]
        totals = [sum(call.get(one, 0) for call in calls) for one in spelled]
        assert [*totals, told[key]] == [getattr(reported, key)] * 3
    assert told["lm_calls"] == len(calls)
    assert told["cost"] == pytest.approx(sum(call.get("llm.cost.total", 0) for call in calls))
    assert {"lm15", "litellm"} <= {call.get("dspy.lm.engine") for call in calls}
    assert {call.get("dspy.lm.retries") for call in calls} >= {0, 1}
    assert told["cache_hits"] > 0


def test_of_programs_inside_programs(scripted_lm: ScriptedLM) -> None:
    """Only the outermost span has sums, and it has all of them."""
    lm = scripted_lm.lm()
    inner = Work(lambda predict: several(predict, 4))
    outer = Work(lambda predict: (inner(), several(predict, 4)))
    outer.inner = inner
    with balanced() as trace, dspy.context(lm=lm):
        outer()
    check(trace, scripted_lm, lm, calls=8)
    assert not [key for key in trace.one("Work inner").attributes if key.startswith("dspy.usage.")]


@pytest.mark.parametrize(
    "options", [{"sampler": LeavesOut("chat", "Predict")}, {"detail": "minimal"}], ids=["sampled out", "minimal"]
)
def test_of_calls_that_are_no_spans(scripted_lm: ScriptedLM, options: Any) -> None:
    """A call counts whether its span is recorded or not, at every level of detail."""
    lm = scripted_lm.lm()
    with balanced(**options) as trace, dspy.context(lm=lm):
        Work(several)()
    assert not trace.named("Predict ask")
    check(trace, scripted_lm, lm, calls=64)


@pytest.mark.parametrize("traced", [True, False])
def test_of_an_evaluation_inside_a_program(scripted_lm: ScriptedLM, traced: bool) -> None:
    """Examples are traces of their own, or none at all: their calls are the program's all the same."""
    lm = scripted_lm.lm()
    devset = [dspy.Example(question=str(index)).with_inputs("question") for index in range(8)]

    def evaluate(predict: Any) -> None:
        predict(question="before")
        dspy.Evaluate(devset=devset, metric=lambda *_: True, num_threads=4)(predict)

    with balanced(log_traces_from_eval=traced) as trace, dspy.context(lm=lm):
        Work(evaluate)()
    check(trace, scripted_lm, lm, calls=9)
    if traced:
        whole = sums(trace, "evaluate Predict")
        runs = [span.attributes["dspy.usage.input_tokens"] for span in trace.named("evaluate_example Predict")]
        assert (whole["lm_calls"], whole["input_tokens"]) == (8, sum(runs))


def test_two_programs_at_once_keep_their_own(scripted_lm: ScriptedLM) -> None:
    """What runs beside a program is not in its sums."""
    lm = scripted_lm.lm()
    programs = [Work(lambda predict, count=count: several(predict, count)) for count in (3, 5, 7)]
    with balanced() as trace, dspy.context(lm=lm):
        dspy.Parallel(num_threads=3, disable_progress_bar=True)([(program, {}) for program in programs])
    roots = trace.named("invoke_workflow Work")
    assert sorted(span.attributes["dspy.usage.lm_calls"] for span in roots) == [3, 5, 7]
    assert sum(span.attributes["dspy.usage.input_tokens"] for span in roots) == scripted_lm.reported.input_tokens
