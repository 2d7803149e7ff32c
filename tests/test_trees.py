"""One module that does everything DSPy can: its trace is the tree one expects."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.trace import SpanKind

from tests.balanced import balanced, fresh_cache, traces
from tests.parts.scripted_answers import Body, Reply, fill, input_words, output_fields, prompt_text
from tests.parts.scripted_lm import ScriptedLM


def answer(body: Body) -> Reply | str:
    """Answer by the question: some are garbled unless asked as JSON, some are refused."""
    words = input_words(body, 20)
    if "next_tool_name" in output_fields(body):
        name = "finish" if "observation_0" in prompt_text(body) else "look_up"
        return fill(body, next_tool_name=name, next_tool_args={} if name == "finish" else {"place": "Atlantis"})
    if "garbled" in words and "response_format" not in body:
        return "no fields at all"
    if "refused" in words:
        return Reply("not for you", status=400)
    # More pieces than fit between DSPy and a reader that has left.
    return fill(body, answer="word " * 60) if "abandoned" in words else fill(body)


def look_up(place: str) -> str:
    """Look a place up."""
    raise LookupError(f"{place} is not on the map")


class Words(dspy.Module):
    """Answers step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.say = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Iterator[str]:
        yield "first"
        yield self.say(question=question).answer


class AsyncWords(Words):
    async def forward(self, question: str) -> AsyncIterator[str]:
        yield "first"
        yield (await self.say.acall(question=question)).answer


class Everything(dspy.Module):
    def __init__(self, server: ScriptedLM) -> None:
        super().__init__()
        self.embed = server.embedder()
        self.passages = dspy.Embeddings(["lamps are lit", "doors are shut"], self.embed, k=1)
        self.draft = dspy.Predict("question -> answer")
        self.think = dspy.ChainOfThought("question -> answer")
        self.agent = dspy.ReAct("question -> answer", tools=[look_up], max_iters=2)
        self.words = Words()
        self.async_words = AsyncWords()
        self.cached = server.lm(cache=True)

    async def aforward(self, question: str) -> dspy.Prediction:
        self.embed([question])
        found = self.passages(question).passages
        thoughts = [*self.parallel(), *await asyncio.gather(*(self.think.acall(question=word) for word in "de"))]
        pieces = [str(piece) async for piece in self.streams()]
        pieces.append((await dspy.asyncify(self.draft)(question="in a thread")).answer)
        pieces += [*self.words(question="by steps"), *[piece async for piece in self.async_words(question="later")]]
        pieces.append(self.agent(question="where?").answer)
        return dspy.Prediction(found=found, thoughts=thoughts, pieces=pieces, rest=self.trouble())

    def parallel(self) -> list[Any]:
        questions = [dspy.Example(question=word).with_inputs("question") for word in "abc"]
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True)
        return parallel([(self.draft, question) for question in questions])

    async def streams(self) -> AsyncIterator[Any]:
        listeners = [dspy.streaming.StreamListener("answer", allow_reuse=True)]
        stream = dspy.streamify(self.draft, stream_listeners=listeners)
        async for chunk in stream(question="streamed"):
            yield chunk
        for chunk in dspy.streamify(self.draft, stream_listeners=listeners, async_streaming=False)(question="in sync"):
            yield chunk
        # DSPy cancels the task that leaves its stream, so that it is one of its own.
        await asyncio.wait([asyncio.create_task(self.abandon(stream))])

    async def abandon(self, stream: Any) -> None:
        async for _ in stream(question="abandoned midway"):
            return

    def trouble(self) -> list[Any]:
        several = self.draft(question="three of them", config={"n": 3, "temperature": 0.9}).completions.answer
        twice = [self.draft(question="again", lm=self.cached).answer for _ in range(2)]
        with pytest.raises(dspy.LMError):
            self.draft(question="refused")
        return [several, twice, self.draft(question="garbled").answer]


TREE = """
invoke_workflow Everything
  embeddings text-embedding-3-small
  retrieval Embeddings
    embeddings text-embedding-3-small
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  ChainOfThought think
    Predict think.predict
      chat gpt-4o-mini cache_hit=False requests=1
  ChainOfThought think
    Predict think.predict
      chat gpt-4o-mini cache_hit=False requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  Predict draft !abandoned
    chat gpt-4o-mini !abandoned requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  Words words
    Predict words.say
      chat gpt-4o-mini cache_hit=False requests=1
  AsyncWords async_words
    Predict async_words.say
      chat gpt-4o-mini cache_hit=False requests=1
  invoke_agent agent
    Predict agent.react
      chat gpt-4o-mini cache_hit=False requests=1
    execute_tool look_up !LookupError
    Predict agent.react
      chat gpt-4o-mini cache_hit=False requests=1
    ChainOfThought agent.extract
      Predict agent.extract.predict
        chat gpt-4o-mini cache_hit=False requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=3
  Predict draft
    chat gpt-4o-mini cache_hit=False requests=1
  Predict draft
    chat gpt-4o-mini cache_hit=True
  Predict draft !LMInvalidRequestError
    chat gpt-4o-mini !LMInvalidRequestError requests=1
  Predict draft
    * dspy.adapter.parse_error
    * dspy.adapter.fallback
    chat gpt-4o-mini cache_hit=False requests=1
    chat gpt-4o-mini cache_hit=False requests=1
"""


def shape(trace: Any) -> str:
    """Return the tree, with what tells LM calls apart."""
    tree = trace.tree("dspy.lm.cache_hit", "dspy.lm.requests").replace("dspy.lm.", "")
    # What DSPy's thread meets when the reader of its stream has left depends on what it is doing at that moment.
    return re.sub("!(LMUnexpectedError|CancelledError)", "!abandoned", tree)


async def test_everything_at_once_is_one_tree(scripted_lm: ScriptedLM) -> None:
    """Threads, tasks, streams, generators, agents, retrievers and errors stand in one tree, and nothing stays open."""
    scripted_lm.answer = answer
    program = Everything(scripted_lm)
    with balanced() as trace, fresh_cache(), dspy.context(lm=scripted_lm.lm()):
        await program.acall(question="lamps?")
    assert shape(trace) == TREE
    assert traces(trace) == 1


async def test_everything_is_as_it_is_untraced(scripted_lm: ScriptedLM) -> None:
    """A program returns the same and sends the same requests, traced or not."""
    scripted_lm.answer = answer
    program = Everything(scripted_lm)

    async def run() -> tuple[Any, list[str]]:
        first = len(scripted_lm.requests)
        with fresh_cache(), dspy.context(lm=scripted_lm.lm()):
            result = await program.acall(question="lamps?")
        bodies = sorted(json.dumps(request.body, sort_keys=True) for request in scripted_lm.requests[first:])
        return result.toDict(), bodies

    untraced = await run()
    with balanced():
        traced = await run()
    assert traced == untraced


KINDS = {
    "invoke_workflow Everything": (SpanKind.INTERNAL, "invoke_workflow"),
    "invoke_agent agent": (SpanKind.INTERNAL, "invoke_agent"),
    "execute_tool look_up": (SpanKind.INTERNAL, "execute_tool"),
    "retrieval Embeddings": (SpanKind.INTERNAL, "retrieval"),
    "embeddings text-embedding-3-small": (SpanKind.CLIENT, "embeddings"),
    "chat gpt-4o-mini": (SpanKind.CLIENT, "chat"),
}


async def test_every_span_has_its_kind_and_operation(scripted_lm: ScriptedLM) -> None:
    """What leaves the process is a client span; a module that is neither outermost nor an agent is no operation."""
    scripted_lm.answer = answer
    program = Everything(scripted_lm)
    with balanced() as trace, fresh_cache(), dspy.context(lm=scripted_lm.lm()):
        await program.acall(question="lamps?")
    assert KINDS.keys() < {span.name for span in trace.spans}
    for span in trace.spans:
        told = span.kind, span.attributes.get("gen_ai.operation.name")
        assert told == KINDS.get(span.name, (SpanKind.INTERNAL, None)), span.name


class Small(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")
        self.agent = dspy.ReAct("question -> answer", tools=[look_up], max_iters=1)

    def forward(self) -> None:
        self.think(question="garbled")
        self.agent(question="where?")


MINIMAL = """
invoke_workflow Small
  chat gpt-4o-mini
  chat gpt-4o-mini
  invoke_agent agent
    chat gpt-4o-mini
    execute_tool look_up !LookupError
    chat gpt-4o-mini
"""
FULL = """
invoke_workflow Small
  ChainOfThought think
    Predict think.predict
      ChatAdapter.format
      chat gpt-4o-mini
      ChatAdapter.parse !AdapterParseError
      JSONAdapter.format
      chat gpt-4o-mini
      JSONAdapter.parse
  invoke_agent agent
    Predict agent.react
      ChatAdapter.format
      chat gpt-4o-mini
      ChatAdapter.parse
    execute_tool look_up !LookupError
    ChainOfThought agent.extract
      Predict agent.extract.predict
        ChatAdapter.format
        chat gpt-4o-mini
        ChatAdapter.parse
"""
STANDARD = "\n".join(line for line in FULL.split("\n") if "Adapter." not in line)


@pytest.mark.parametrize(("detail", "tree"), [("minimal", MINIMAL), ("standard", STANDARD), ("full", FULL)])
def test_the_level_of_detail_decides_what_is_a_span(scripted_lm: ScriptedLM, detail: str, tree: str) -> None:
    """The same program at three levels; the sums are the same."""
    scripted_lm.answer = answer
    with balanced(detail=detail) as trace, dspy.context(lm=scripted_lm.lm()):
        Small()()
    assert trace.tree(events=False) == tree
    assert trace.one("invoke_workflow Small").attributes["dspy.usage.lm_calls"] == 4


@pytest.mark.parametrize("detail", ["standard", "full"])
def test_an_adapters_trouble_is_told_on_the_module(scripted_lm: ScriptedLM, detail: str) -> None:
    """What could not be read, by which adapter, and which one took over and was used in the end."""
    scripted_lm.answer = answer
    with balanced(detail=detail) as trace, dspy.context(lm=scripted_lm.lm()):
        Small()()
    span = trace.one("Predict think.predict")
    assert span.attributes["dspy.adapter"] == "JSONAdapter"
    assert trace.one("Predict agent.react").attributes["dspy.adapter"] == "ChatAdapter"
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        ("dspy.adapter.parse_error", {"dspy.adapter": "ChatAdapter", "error.type": "AdapterParseError"}),
        ("dspy.adapter.fallback", {"dspy.adapter.from": "ChatAdapter", "dspy.adapter.to": "JSONAdapter"}),
    ]
    assert span.status.is_unset
