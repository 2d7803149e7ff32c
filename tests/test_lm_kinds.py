"""Every LM is observed once per call: DSPy's own, a program's subclasses and engines, routers, and the scripted one."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.utils import DummyLM

from tests.balanced import balanced
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def completion(text: str, **usage: int) -> Any:
    """Return a response in OpenAI's shape, as custom LMs do."""
    message = SimpleNamespace(content=text, tool_calls=None, reasoning_content=None)
    choices = [SimpleNamespace(message=message, finish_reason="stop")]
    return SimpleNamespace(id="own-1", model="own-model-1", choices=choices, usage=usage)


class Before(dspy.BaseLM):
    """Defined before tracing began."""

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return completion("from before", prompt_tokens=3, completion_tokens=2)

    async def aforward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return self.forward()


class Overrides(Before):
    """Overrides what is observed, and calls the original."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return await super().acall(*args, **kwargs)


class OnItsOwn(dspy.BaseLM):
    """Overrides what is observed, and does all of it itself."""

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return ["all by itself"]


def after() -> type[dspy.BaseLM]:
    """Define an LM, now."""

    class After(Before):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    return After


@pytest.mark.parametrize("cls", [Before, Overrides], ids=lambda cls: cls.__name__)
async def test_a_programs_own_lm_is_one_span(cls: type[dspy.BaseLM]) -> None:
    """A subclass is observed, once, with what its response tells, synchronously or not."""
    lm = cls("own/tiny", temperature=0.5)
    with balanced() as trace:
        assert lm("hi") == await lm.acall("hi") == ["from before"]
    assert trace.tree() == "\nchat tiny\nchat tiny\n"
    for span in trace.spans:
        told = dict(span.attributes)
        assert (told["dspy.lm.class"], told["dspy.lm.engine"]) == (cls.__name__, "legacy")
        assert (told["gen_ai.provider.name"], told["gen_ai.request.temperature"]) == ("own", 0.5)
        assert (told["gen_ai.response.id"], told["gen_ai.response.model"]) == ("own-1", "own-model-1")
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (3, 2)
        assert (told["dspy.lm.requests"], told["dspy.lm.retries"], told["dspy.lm.cache_hit"]) == (1, 0, False)


def test_an_lm_defined_while_tracing_is_one_span_and_free_afterwards() -> None:
    """A class that is defined later is observed as well; when tracing ends its method is its own again."""
    with balanced() as trace:
        cls = after()
        cls("own/tiny")("hi")
        assert trace.tree() == "\nchat tiny\n"
    assert type(vars(cls)["__call__"]).__name__ == "function"
    assert cls("own/tiny")("hi") == ["from before"]
    assert trace.tree() == "\nchat tiny\n"


def test_an_lm_that_does_everything_itself_is_observed_from_outside() -> None:
    """What no part of DSPy sees is not told: no engine, no usage; prompt and completion are."""
    with balanced(capture_content=True) as trace:
        assert OnItsOwn("own/tiny")("hi") == ["all by itself"]
    told = trace.one("chat tiny").attributes
    assert "hi" in told["gen_ai.input.messages"]
    assert "all by itself" in told["gen_ai.output.messages"]
    assert not {"dspy.lm.engine", "dspy.lm.requests", "gen_ai.usage.input_tokens"} & told.keys()


async def test_the_scripted_lm_is_an_lm() -> None:
    """DSPy's ``DummyLM``: one span, no invented usage."""
    lm = DummyLM([{"answer": "one"}, {"answer": "two"}])
    with balanced() as trace, dspy.context(lm=lm):
        assert dspy.Predict("question -> answer")(question="?").answer == "one"
        assert (await dspy.Predict("question -> answer").acall(question="?")).answer == "two"
    assert trace.tree("dspy.lm.class") == ("\n" + "invoke_workflow Predict\n  chat dummy dspy.lm.class='DummyLM'\n" * 2)
    assert not [key for span in trace.spans for key in span.attributes if key.startswith("gen_ai.usage.")]


class Router:
    """An engine that passes requests on to another LM, of which it has two."""

    def __init__(self, cheap: dspy.LM, good: dspy.LM) -> None:
        self.cheap, self.good = cheap, good

    def complete(self, request: lm15.Request) -> lm15.Response:
        lm = self.good if "hard" in request.messages[-1].text else self.cheap
        return lm(replace(request, model=lm.model))

    def close(self) -> None:
        pass


def test_a_router_and_the_lm_that_it_chooses_are_two_spans(scripted_lm: ScriptedLM) -> None:
    """The router's own call contains the call that it makes; what that cost is in the sums once."""
    router = Router(scripted_lm.lm(), scripted_lm.lm(model="openai/gpt-4o"))
    lm = dspy.LM("acme/router", engine=router, cache=False)
    with balanced() as trace, dspy.context(lm=lm):
        dspy.Predict("question -> answer")(question="easy")
        dspy.Predict("question -> answer")(question="hard")
    assert trace.tree("dspy.lm.engine") == dedent("""
        invoke_workflow Predict
          chat router dspy.lm.engine='custom'
            chat gpt-4o-mini dspy.lm.engine='lm15'
        invoke_workflow Predict
          chat router dspy.lm.engine='custom'
            chat gpt-4o dspy.lm.engine='lm15'
    """)
    roots = trace.named("invoke_workflow Predict")
    assert [span.attributes["dspy.usage.lm_calls"] for span in roots] == [1, 1]
    assert sum(span.attributes["dspy.usage.input_tokens"] for span in roots) == scripted_lm.reported.input_tokens
    assert sum(span.attributes["dspy.usage.output_tokens"] for span in roots) == scripted_lm.reported.output_tokens


class Fallback(dspy.BaseLM):
    """An LM, written the old way, that tries another one first."""

    def __init__(self, first: dspy.LM, second: dspy.LM) -> None:
        super().__init__("own/fallback")
        self.first, self.second = first, second

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        try:
            (text,) = self.first(prompt, messages=messages)
        except dspy.LMError:
            (text,) = self.second(prompt, messages=messages)
        return completion(text)


def test_an_lm_that_falls_back_to_another_shows_both(scripted_lm: ScriptedLM) -> None:
    """A failed inner call is a failed span; the outer one, which goes on, is none."""
    broken = dspy.LM("openai/broken", engine=Broken(), cache=False, num_retries=0)
    with balanced() as trace, dspy.context(lm=Fallback(broken, scripted_lm.lm())):
        dspy.Predict("question -> answer")(question="?")
    assert trace.tree() == dedent("""
        invoke_workflow Predict
          chat fallback
            chat broken !LMServerError
            chat gpt-4o-mini
    """)
    told = trace.one("invoke_workflow Predict").attributes
    assert told["dspy.usage.input_tokens"] == scripted_lm.reported.input_tokens


class Broken:
    """An engine that is out of order."""

    def complete(self, request: lm15.Request) -> lm15.Response:
        raise lm15.ServerError("out of order")

    def close(self) -> None:
        pass


class Fixed:
    """An engine that always says the same."""

    def complete(self, request: lm15.Request) -> lm15.Response:
        usage = lm15.Usage(input_tokens=3, output_tokens=2, cache_write_tokens=1)
        return lm15.Response("r-1", "fixed-1", lm15.Message.assistant("hello"), "stop", usage)

    def close(self) -> None:
        pass


def test_the_responses_api_is_a_chat() -> None:
    """``model_type="responses"`` asks another endpoint for the same: a chat, with all that is known of the response."""
    with balanced(capture_content=True) as trace:
        assert dspy.LM("openai/gpt-5", model_type="responses", engine=Fixed(), cache=False)("hi") == [{"text": "hello"}]
    told = trace.one("chat gpt-5").attributes
    assert (told["gen_ai.response.id"], told["gen_ai.response.model"]) == ("r-1", "fixed-1")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.cache_write.input_tokens"]) == (3, 1)
    assert '"content":"hello"' in told["gen_ai.output.messages"]
