"""Programs that call modules, tools, LMs and retrievers in the ways that DSPy offers.

Each takes the scripted LM server and returns all that its author would have of the run. `PROGRAMS` says what becomes
of each, so that a comparison of two untraced runs, or of two that failed early, would not pass for a test.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy

from tests.parts.scripted_answers import Reply, fill, in_turn
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding


@dataclass(frozen=True)
class Expected:
    """Names of roots that the trace of a program has, and the class of the error that it ends with."""

    roots: frozenset[str]
    raises: str | None = None


PROGRAMS: dict[Callable[[ScriptedLM], Any], Expected] = {}
"""Every program of this file and of `host_programs_more`."""


def program(*roots: str, raises: str | None = None) -> Callable[[Any], Any]:
    """Add the function to the programs."""

    def add(function: Any) -> Any:
        PROGRAMS[function] = Expected(frozenset(roots), raises)
        return function

    return add


class Nested(dspy.Module):
    """Modules in attributes, lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.ChainOfThought("question -> steps: list[str]")
        self.tools = [dspy.Predict("step -> note")]
        self.by_name = {"answer": dspy.Predict("question, notes -> answer, sure: bool")}

    def forward(self, question: str) -> dspy.Prediction:
        steps = self.plan(question=question).steps
        notes = [self.tools[0](step=step).note for step in steps]
        return self.by_name["answer"](question=question, notes=str(notes))

    async def aforward(self, question: str) -> dspy.Prediction:
        steps = (await self.plan.acall(question=question)).steps
        notes = await asyncio.gather(*(self.tools[0].acall(step=step) for step in steps))
        return await self.by_name["answer"].acall(question=question, notes=str(notes))


def broken_tool(city: str) -> str:
    """Look up the weather."""
    raise LookupError(f"no weather in {city}")


async def slow_tool(city: str) -> str:
    """Look up the weather."""
    await asyncio.sleep(0)
    return f"rain in {city}"


def _agent_script(server: ScriptedLM, tool: str) -> None:
    server.answer = in_turn(
        lambda body: fill(body, next_tool_name=tool, next_tool_args={"city": "Oslo"}),
        lambda body: fill(body, next_tool_name=tool, next_tool_args={"town": 1}),
        lambda body: fill(body, next_tool_name="finish", next_tool_args={}),
    )


@program("invoke_workflow Predict")
def predict(server: ScriptedLM) -> Any:
    inputs = {"question": "Why?", "context": ["a", "b"]}
    return dspy.Predict("question, context: list[str] -> answer: int, tags: list[str]")(**inputs), inputs


@program("invoke_workflow ChainOfThought")
def chain_of_thought(server: ScriptedLM) -> Any:
    program = dspy.ChainOfThought("question -> answer")
    return program(question="Why?", config={"temperature": 0.3}), program, len(program.history)


@program("invoke_workflow Nested")
def nested(server: ScriptedLM) -> Any:
    program = Nested()
    with dspy.context(track_usage=True):
        result = program(question="Why?")
    return result, result.get_lm_usage(), program, dspy.settings.trace


@program("invoke_agent ReAct")
def react_with_failing_tool(server: ScriptedLM) -> Any:
    """The traceback of the tool goes to the LM: it must be the host's own, to the last frame."""
    _agent_script(server, "broken_tool")
    return dspy.ReAct("question -> answer", tools=[broken_tool])(question="Rain?")


@program("invoke_agent ReAct")
async def async_react_with_failing_tool(server: ScriptedLM) -> Any:
    _agent_script(server, "broken_tool")
    return await dspy.ReAct("question -> answer", tools=[broken_tool, slow_tool]).acall(question="Rain?")


@program("invoke_agent ReAct")
def react_with_async_tool_in_sync(server: ScriptedLM) -> Any:
    _agent_script(server, "slow_tool")
    with dspy.context(allow_tool_async_sync_conversion=True):
        return dspy.ReAct("question -> answer", tools=[slow_tool])(question="Rain?")


@program("invoke_workflow Predict")
def parallel(server: ScriptedLM) -> Any:
    ask = dspy.Predict("question -> answer")
    pairs = [(ask, dspy.Example(question=f"q{i}").with_inputs("question")) for i in range(6)]
    return dspy.Parallel(num_threads=3, disable_progress_bar=True)(pairs)


@program("invoke_workflow Nested")
def batch_with_a_failure(server: ScriptedLM) -> Any:
    examples = [dspy.Example(question=q).with_inputs(*inputs) for q, inputs in (("a", ("question",)), ("b", ()))]
    result = Nested().batch(examples, num_threads=2, return_failed_examples=True, disable_progress_bar=True)
    return result, examples


@program("invoke_workflow Nested")
async def gathered(server: ScriptedLM) -> Any:
    program = Nested()
    return await asyncio.gather(*(program.acall(question=f"q{i}") for i in range(4)))


@program("invoke_workflow Predict")
async def asyncified(server: ScriptedLM) -> Any:
    ask = dspy.asyncify(dspy.Predict("question -> answer"))
    return await asyncio.gather(ask(question="a"), ask(question="b"))


@program("invoke_workflow ChainOfThought", "invoke_workflow SyncWrapper")
def syncified(server: ScriptedLM) -> Any:
    in_place = dspy.syncify(dspy.ChainOfThought("question -> answer"))
    return in_place(question="a"), dspy.syncify(Nested(), in_place=False)(question="b")


@program("invoke_workflow Predict")
def three_completions(server: ScriptedLM) -> Any:
    server.answer = in_turn(*(lambda body, i=i: fill(body, answer=f"answer {i}") for i in range(3)))
    result = dspy.Predict("question -> answer", n=3)(question="Why?")
    return sorted(result.completions.answer)


@program("invoke_workflow Predict", "chat gpt-4o-mini")
def cache_hit(server: ScriptedLM) -> Any:
    dspy.cache.reset_memory_cache()
    lm = server.lm(cache=True)
    with dspy.context(lm=lm):
        results = [dspy.Predict("question -> answer")(question="cached?") for _ in range(2)]
        return results, lm("hello"), lm("hello"), [entry.get("cache_hit") for entry in lm.history]


@program("invoke_workflow Predict")
def adapter_fallback(server: ScriptedLM) -> Any:
    server.answer = in_turn("no fields at all")
    return dspy.Predict("question -> answer")(question="Why?")


@program("invoke_workflow Predict", raises="AdapterParseError")
def adapters_give_up(server: ScriptedLM) -> Any:
    server.answer = lambda body: "no fields at all"
    return dspy.Predict("question -> answer")(question="Why?")


@program("invoke_workflow Predict", raises="LMInvalidRequestError")
def bad_request(server: ScriptedLM) -> Any:
    server.answer = lambda body: Reply("the model is gone", status=400, error_code="model_gone")
    return dspy.Predict("question -> answer")(question="Why?")


@program("invoke_workflow Predict")
def rate_limit_then_success(server: ScriptedLM) -> Any:
    server.answer = in_turn(*(Reply("slow down", status=429, headers={"Retry-After": "0"}) for _ in range(2)))
    return dspy.Predict("question -> answer")(question="Why?")


@program("invoke_workflow Nested", raises="LMServerError")
async def server_error_to_the_end(server: ScriptedLM) -> Any:
    server.answer = lambda body: Reply("broken", status=503, headers={"Retry-After": "0"})
    return await Nested().acall(question="Why?")


@program("invoke_workflow Predict", raises="LMProviderError")
def broken_body(server: ScriptedLM) -> Any:
    server.answer = lambda body: Reply("half", fault="malformed")
    with dspy.context(lm=server.lm(num_retries=0)):
        return dspy.Predict("question -> answer")(question="Why?")


@program("chat gpt-4o-mini", "text_completion gpt-3.5-turbo-instruct")
async def direct_lm_calls(server: ScriptedLM) -> Any:
    lm = server.lm()
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    text_lm = server.lm(model="openai/gpt-3.5-turbo-instruct", model_type="text")
    results = [lm("hello"), lm(messages=messages), await lm.acall("hello", temperature=0.1), text_lm("hello")]
    return results, messages, len(lm.history)


@program("invoke_workflow Predict", "chat own")
def legacy_lm(server: ScriptedLM) -> Any:
    """DSPy warns of such a class, and names the program's line: the first frame that is not DSPy's."""

    class Own(dspy.BaseLM):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            return dspy.settings.lm.forward(prompt=prompt, messages=messages)

    own = Own("own")
    return own("hello"), dspy.Predict("question -> answer")(question="Why?", lm=own)


@program("retrieval Found", "retrieval Retrieve")
def retrieve(server: ScriptedLM) -> Any:
    class Found(dspy.Retrieve):
        def forward(self, query: str, k: int | None = None) -> Any:
            return [dspy.Example(long_text=f"{query} {i}") for i in range(k or self.k)]

    with dspy.context(rm=Found(k=2)):
        return dspy.Retrieve(k=3)("Oslo"), dspy.settings.rm("Bergen")


@program("embeddings text-embedding-3-small", "embeddings embed", "retrieval KNN", "retrieval Embeddings")
async def embedders(server: ScriptedLM) -> Any:
    import numpy as np

    def embed(texts: list[str]) -> Any:
        return np.array([embedding(text) for text in texts], dtype=np.float32)

    hosted, local = server.embedder(), dspy.Embedder(embed)
    trainset = [dspy.Example(question=q, answer=q).with_inputs("question") for q in ("red fox", "blue sky")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LiteLLM's own, once per process
        vectors = hosted("hello"), await hosted.acall(["a", "b"]), local(["c"])
    corpus = dspy.retrievers.Embeddings(corpus=["red fox", "blue sky"], embedder=local, k=1)
    return vectors, dspy.KNN(1, trainset, local)(question="a red one"), corpus("blue")
