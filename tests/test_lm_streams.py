"""What a streamed LM call says beside what any other does: that it is one, and when the first of it came."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry.sdk.trace import ReadableSpan

from tests.balanced import balanced, fresh_cache
from tests.parts.scripted_answers import Reply, in_turn
from tests.parts.scripted_lm import ScriptedLM

FIRST = "gen_ai.response.time_to_first_chunk"
ANSWER = "[[ ## answer ## ]]\none two three four\n\n[[ ## completed ## ]]"
ENGINES = pytest.mark.parametrize("engine", ["lm15", "litellm"])


def stream(asynchronous: bool) -> None:
    """Stream an answer to its end: of a program that calls its LM synchronously, or asynchronously."""
    program: Any = dspy.Predict("question -> answer")
    listeners = [dspy.streaming.StreamListener("answer")]
    if asynchronous:

        async def consume() -> None:
            streamed = dspy.streamify(program, stream_listeners=listeners)
            assert [chunk async for chunk in streamed(question="?")]

        asyncio.run(consume())
    else:

        class Sync(dspy.Module):
            def __init__(self) -> None:
                super().__init__()
                self.ask = program

            def forward(self, question: str) -> Any:
                return self.ask(question=question)

        streamed = dspy.streamify(Sync(), stream_listeners=listeners, async_streaming=False)
        assert list(streamed(question="?"))


def seconds(span: ReadableSpan) -> float:
    assert span.end_time is not None
    assert span.start_time is not None
    return (span.end_time - span.start_time) / 1e9


@ENGINES
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_first_chunk(engine: Any, asynchronous: bool, scripted_lm: ScriptedLM) -> None:
    """Between the request and the first of the answer, which takes longer in all; the rest is no part of it."""
    scripted_lm.answer = lambda body: Reply(ANSWER, delay=0.1, pause=0.03)
    with balanced() as trace, dspy.context(lm=scripted_lm.lm(engine)):
        stream(asynchronous)
        stream(asynchronous)
    # LiteLLM imports half of itself when it is first asked, while chunks are waiting.
    _, span = trace.named("chat gpt-4o-mini")
    first = span.attributes[FIRST]
    assert span.attributes["gen_ai.request.stream"] is True
    assert 0.1 <= first <= seconds(span) - 0.03 * 5


@ENGINES
def test_a_stream_that_is_tried_again(engine: Any, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a request that failed before is not counted."""
    monkeypatch.setattr("dspy.clients.execution._delay", lambda error, attempt: 0.0)
    scripted_lm.answer = in_turn(Reply("busy", status=503, delay=0.5), Reply(ANSWER))
    began = perf_counter()
    with balanced() as trace, dspy.context(lm=scripted_lm.lm(engine, num_retries=1)):
        stream(asynchronous=True)
    (span,) = trace.named("chat gpt-4o-mini")
    assert span.attributes["dspy.lm.retries"] == 1
    assert 0 < span.attributes[FIRST] < perf_counter() - began - 0.5


@ENGINES
def test_what_is_no_stream_has_no_first_chunk(engine: Any, scripted_lm: ScriptedLM) -> None:
    """Neither a call outside of a stream, nor one that fails before anything came, nor a cache hit inside of one."""
    scripted_lm.answer = in_turn("[[ ## answer ## ]]\nhi", then=lambda body: Reply("no", status=400))
    lm = scripted_lm.lm(engine, cache=True)
    with balanced() as trace, fresh_cache(), dspy.context(lm=lm):
        dspy.Predict("question -> answer")(question="?")
        list(dspy.streamify(dspy.Predict("question -> answer"), async_streaming=False)(question="?"))
        with pytest.raises(BaseException, match=""):  # a group on some Pythons
            list(dspy.streamify(dspy.Predict("question -> answer"), async_streaming=False)(question="other?"))
    spans = trace.named("chat gpt-4o-mini")
    assert [span.attributes.get("gen_ai.request.stream") for span in spans[:2]] == [None, None]
    assert [span.attributes["dspy.lm.cache_hit"] for span in spans[:2]] == [False, True]
    assert len(spans) > 2
    assert [FIRST in span.attributes for span in spans] == [False] * len(spans)


def test_what_dspy_changed_in_the_request(scripted_lm: ScriptedLM) -> None:
    """A setting that a provider does not take is told, by name and by what was done; a cache hit sent nothing."""
    config = lm15.Config(top_k=5)
    request = lm15.Request("openai/gpt-4o-mini", (lm15.Message.user("hi"),), config=config)
    lm = scripted_lm.lm("lm15", cache=True)
    with balanced() as trace, fresh_cache():
        for asked in (request, request, "plainly"):
            lm(asked)
    told = [span.attributes.get("dspy.lm.adaptations") for span in trace.named("chat gpt-4o-mini")]
    assert told == [("config.top_k dropped",), None, None]
    assert trace.spans[0].attributes["gen_ai.request.top_k"] == 5
