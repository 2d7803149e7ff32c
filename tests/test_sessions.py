"""``dspy_trace.session``: who and what calls belong to, on every span that they make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import dspy
import pytest

import dspy_trace
from dspy_trace.points.programs import loaded_from
from dspy_trace.testing import Recording
from tests.balanced import balanced
from tests.mlflow_beside import rows
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding

ASK = "question -> answer"
ITEMS = [dspy.Example(question=f"question {index}").with_inputs("question") for index in range(4)]
KEYS = ("session.id", "gen_ai.conversation.id", "user.id", "tag.tags", "metadata")


def said(trace: Recording) -> list[tuple[Any, ...]]:
    """Return what the spans say of their session, each thing once."""
    found = [tuple((span.attributes or {}).get(key) for key in KEYS) for span in trace.spans]
    return list(dict.fromkeys(found))


def in_threads() -> None:
    dspy.Predict(ASK).batch(ITEMS, num_threads=4, disable_progress_bar=True)


def in_tasks() -> None:
    async def gather() -> None:
        await asyncio.gather(*(dspy.ChainOfThought(ASK).acall(question=str(index)) for index in range(4)))

    asyncio.run(gather())


def in_a_stream() -> None:
    listener = dspy.streaming.StreamListener("answer")
    list(dspy.streamify(dspy.Predict(ASK), stream_listeners=[listener], async_streaming=False)(question="?"))


def in_another_thread() -> None:
    asyncio.run(dspy.asyncify(dspy.Predict(ASK))(question="?"))


def in_an_evaluation() -> None:
    dspy.Evaluate(devset=ITEMS, metric=lambda *_: 1.0, num_threads=2)(dspy.Predict(ASK))


def in_a_compile() -> None:
    dspy.BootstrapFewShot(metric=lambda *_: 1.0, max_bootstrapped_demos=1).compile(dspy.Predict(ASK), trainset=ITEMS)


def in_a_retrievers_thread() -> None:
    embedder = dspy.Embedder(lambda texts: [embedding(text) for text in texts])
    dspy.Embeddings(["a lamp", "a desk"], embedder, k=1)("a lamp")


REACH = (in_threads, in_tasks, in_a_stream, in_another_thread, in_an_evaluation, in_a_compile, in_a_retrievers_thread)


@pytest.mark.parametrize("work", REACH, ids=lambda work: work.__name__)
def test_it_reaches_every_span(work: Callable[[], None], scripted_lm: ScriptedLM) -> None:
    """Whatever thread, task or stream a call is made in, and none that is made before or after."""
    with balanced(conventions={"openinference"}) as trace, dspy.context(lm=scripted_lm.lm()):
        with dspy_trace.session(session_id="s", user_id="u", tags={"tier": "gold"}, metadata={"n": 1}):
            work()
        inside = len(trace.spans)
        assert said(trace) == [("s", "s", "u", ("tier:gold",), '{"n":1}')]
        dspy.Predict(ASK)(question="after")
    assert inside > 1
    assert said(trace)[1:] == [(None,) * 5]


def test_one_within_another_adds_to_it(scripted_lm: ScriptedLM) -> None:
    """What the inner one does not say is the outer one's; tags and metadata are merged, the inner one's first."""
    lm = scripted_lm.lm()
    with (
        balanced() as trace,
        dspy_trace.session(session_id="s", user_id="u", tags={"a": "1", "b": "2"}, metadata={"a": 1, "b": [2]}),
    ):
        with dspy_trace.session(session_id="inner", tags={"b": "3"}, metadata={"b": {"c": 4}}):
            lm("inner")
        lm("outer")
    inner, outer = (dict(span.attributes or {}) for span in trace.spans)
    assert [inner[key] for key in KEYS[:4]] == ["inner", "inner", "u", ("a:1", "b:3")]
    assert json.loads(inner["metadata"]) == {"a": 1, "b": {"c": 4}}
    assert [outer[key] for key in KEYS[:4]] == ["s", "s", "u", ("a:1", "b:2")]
    assert json.loads(outer["metadata"]) == {"a": 1, "b": [2]}


async def test_tasks_keep_their_own(scripted_lm: ScriptedLM) -> None:
    """Two that run at once have nothing of each other's."""
    lm = scripted_lm.lm()

    async def ask(name: str) -> None:
        with dspy_trace.session(session_id=name):
            for _ in range(3):
                await lm.acall(name)

    with balanced(capture_content=True) as trace:
        await asyncio.gather(ask("one"), ask("two"))
    for span in trace.spans:
        attributes = span.attributes or {}
        assert f'"content":"{attributes["session.id"]}"' in str(attributes["gen_ai.input.messages"])


WRONG: list[dict[str, Any]] = [{"session_id": 1}, {"user_id": b"u"}, {"tags": ["a"]}, {"metadata": "m"}]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_wrong_types_are_refused(wrong: Any) -> None:
    """A mistake in the program is told at once."""
    with pytest.raises(TypeError, match=next(iter(wrong))), dspy_trace.session(**wrong):
        pass


def test_the_model_that_a_program_was_loaded_from(scripted_lm: ScriptedLM) -> None:
    """Its calls are linked to it, whatever is above or beside them; those of another program are not."""
    loaded, other = dspy.Predict(ASK), dspy.Predict(ASK)
    loaded_from(loaded, "m-1")
    with rows() as copy, dspy.context(lm=scripted_lm.lm()):
        with copy.provider.get_tracer("host").start_as_current_span("POST /ask"):
            other(question="?")
            loaded(question="?")
        other(question="?")
    assert [facts.info({}) for facts in copy.facts.values()] == [{"metadata": {"mlflow.modelId": "m-1"}}, None]
    assert "m-1" not in json.dumps(copy.rows)


async def test_a_decorated_function_is_a_block(scripted_lm: ScriptedLM) -> None:
    """Each call of it is one, awaited or not; of a generator, which would run outside, it is said that none is."""

    @dspy_trace.session(session_id="decorated")
    async def awaited(question: str) -> Any:
        await asyncio.sleep(0)
        return await dspy.Predict("question -> answer").acall(question=question)

    @dspy_trace.session(session_id="decorated")
    def called(question: str) -> Any:
        return dspy.Predict("question -> answer")(question=question)

    assert asyncio.iscoroutinefunction(awaited) and awaited.__name__ == "awaited"
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        await asyncio.gather(awaited("a"), awaited("b"))
        called("c")
        await dspy.Predict("question -> answer").acall(question="d")
    roots = [span for span in trace.spans if span.parent is None]
    assert [(span.attributes or {}).get("session.id") for span in roots] == ["decorated"] * 3 + [None]
    with pytest.raises(TypeError, match=r"no decorator of generators: say `with dspy_trace.session\(...\):` inside"):
        dspy_trace.session(session_id="x")(lambda: (yield))
