"""The programs that every supported DSPy can run, each given the LM server that it asks. None knows of tracing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dspy
from dspy.primitives.python_interpreter import PythonInterpreter
from dspy.utils import DummyLM

from tests.parts.scripted_answers import Body, Reply, default_answer, fill, output_fields, prompt_text, wants_json
from tests.parts.scripted_lm import ScriptedLM

SIGNATURE = "question -> answer"
QUESTIONS = [dspy.Example(question=f"question {number}").with_inputs("question") for number in range(2)]

Program = Callable[[ScriptedLM], Any]


def answer(body: Body) -> Reply | str:
    """Answer as the words of the prompt ask for."""
    prompt = prompt_text(body)
    if "next_tool_name" in output_fields(body):
        finished = "observation_0" in prompt
        tool, arguments = ("finish", {}) if finished else ("search", {"query": "lamps"})
        return fill(body, next_tool_name=tool, next_tool_args=arguments)
    if "a refusal" in prompt:
        return Reply("refused", status=400)
    if "no fields" in prompt and not wants_json(body):
        return "nothing that an adapter could read"
    return default_answer(body)


class Search(dspy.Module):
    """Two predictors, one of them inside another module in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("question -> query")
        self.steps = [dspy.ChainOfThought("query -> answer")]

    def forward(self, question: str) -> dspy.Prediction:
        return self.steps[0](query=self.plan(question=question).query)

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.steps[0].acall(query=(await self.plan.acall(question=question)).query)


class Fan(dspy.Module):
    """A program that asks on threads of DSPy's."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(SIGNATURE)

    def forward(self, question: str) -> dspy.Prediction:
        pairs = [(self.ask, {"question": f"{question} {number}"}) for number in range(2)]
        return dspy.Prediction(answers=dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs))


class Either(dspy.Module):
    """A module whose ``acall`` is its ``__call__``."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(SIGNATURE)

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(question=question)

    async def acall(self, **inputs: Any) -> dspy.Prediction:
        return self(**inputs)


class Shelf(dspy.Retrieve):
    """A retriever of the program's own."""

    def forward(self, query: str, k: int | None = None, **_: Any) -> dspy.Prediction:
        return dspy.Prediction(passages=["on the shelf"])


class OwnLM(dspy.BaseLM):
    """An LM of the program's own."""

    def forward(self, prompt: Any = None, messages: Any = None, **_: Any) -> Any:
        message = SimpleNamespace(content="[[ ## answer ## ]]\nyes", tool_calls=None)
        choice = SimpleNamespace(message=message, finish_reason="stop")
        return SimpleNamespace(
            choices=[choice], usage={"prompt_tokens": 3, "completion_tokens": 2}, model="own-1", id="own-id"
        )


def find(query: str) -> str:
    """Find something."""
    return f"found {query}"


def same_score(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    return 1.0


def nested(server: ScriptedLM) -> Any:
    return Search()(question="one")


def nested_async(server: ScriptedLM) -> Any:
    return asyncio.run(Search().acall(question="one"))


def on_threads(server: ScriptedLM) -> Any:
    return Fan()(question="one")


def as_batch(server: ScriptedLM) -> Any:
    return dspy.Predict(SIGNATURE).batch(QUESTIONS, num_threads=2, disable_progress_bar=True)


def call_by_acall(server: ScriptedLM) -> Any:
    return asyncio.run(Either().acall(question="one"))


def agent(server: ScriptedLM) -> Any:
    return dspy.ReAct(SIGNATURE, tools=[dspy.Tool(find, name="search")])(question="one")


def agent_async(server: ScriptedLM) -> Any:
    return asyncio.run(dspy.ReAct(SIGNATURE, tools=[dspy.Tool(find, name="search")]).acall(question="one"))


def embeddings(server: ScriptedLM) -> Any:
    local = dspy.Embedder(lambda texts: [[float(len(text)), 1.0] for text in texts])
    return [server.embedder()(["a b", "c d"]).tolist(), local("four").tolist()]


def retrievers(server: ScriptedLM) -> Any:
    embedder = server.embedder()
    found = [dspy.retrievers.Embeddings(corpus=["a b", "c d"], embedder=embedder, k=1)("a"), Shelf(k=2)("a")]
    with dspy.context(rm=lambda query, k: [dspy.Example(long_text=f"{k} of {query}")]):
        found.append(dspy.Retrieve(k=1)("a"))
    return [*(one.passages for one in found), dspy.KNN(1, QUESTIONS, embedder)(question="question 1")]


def evaluation(server: ScriptedLM) -> Any:
    evaluate = dspy.Evaluate(devset=QUESTIONS, metric=same_score, num_threads=1, display_progress=False)
    return str(evaluate(dspy.Predict(SIGNATURE)))


def optimizer(server: ScriptedLM) -> Any:
    bootstrap = dspy.BootstrapFewShot(metric=same_score, max_bootstrapped_demos=1, max_labeled_demos=1)
    return bootstrap.compile(Search(), trainset=QUESTIONS).dump_state()


def streaming(server: ScriptedLM) -> Any:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict(SIGNATURE), stream_listeners=[listener])

    async def consume() -> list[str]:
        items = [item async for item in program(question="one")]
        return [item.chunk if hasattr(item, "chunk") else item.answer for item in items]

    return asyncio.run(consume())


def fallback(server: ScriptedLM) -> Any:
    return dspy.Predict(SIGNATURE)(question="no fields")


def refusal(server: ScriptedLM) -> Any:
    return server.lm(num_retries=0)("a refusal")


def cache(server: ScriptedLM) -> Any:
    with dspy.context(lm=server.lm(cache=True)):
        return [dspy.Predict(SIGNATURE)(question="one") for _ in range(2)]


def cache_async(server: ScriptedLM) -> Any:
    with dspy.context(lm=server.lm(cache=True)):
        return [asyncio.run(dspy.Predict(SIGNATURE).acall(question="one")) for _ in range(2)]


def choices(server: ScriptedLM) -> Any:
    return dspy.Predict(SIGNATURE, n=3)(question="one").completions.answer


def text_completion(server: ScriptedLM) -> Any:
    return server.lm(model_type="text", temperature=0.5, max_tokens=77)("one")


def own_lm(server: ScriptedLM) -> Any:
    with dspy.context(lm=OwnLM("own", max_tokens=99)):
        return dspy.Predict(SIGNATURE)(question="one")


def dummy_lm(server: ScriptedLM) -> Any:
    with dspy.context(lm=DummyLM([{"answer": "yes"}])):
        return dspy.Predict(SIGNATURE)(question="one")


def dummy_lm_async(server: ScriptedLM) -> Any:
    with dspy.context(lm=DummyLM([{"answer": "yes"}])):
        return asyncio.run(dspy.Predict(SIGNATURE).acall(question="one"))


def interpreter(server: ScriptedLM) -> Any:
    """Run code where there is nothing to run it with."""
    return PythonInterpreter(deno_command=["/nonexistent/deno"]).execute("1 + 1")


def typed_lm(server: ScriptedLM) -> Any:
    """Ask DSPy 3.3's typed LMs: one of the program's own, and DSPy's by a typed call."""

    class TypedLM(dspy.BaseLM):
        forward_contract = "typed_lm"

        def forward(self, request: Any) -> Any:
            usage = {"input_tokens": 3, "output_tokens": 2, "cache_read_tokens": 1}
            return dspy.LMResponse.from_text("typed", model="own-2", usage=usage, cost=0.5, response_id="own-id")

    with dspy.context(experimental=True):
        lm = server.lm(temperature=0.5, max_tokens=77)
        request = dspy.LMRequest.from_call(model="openai/gpt-4o-mini", prompt="one", temperature=0.25)
        typed = lm(dspy.System("Be brief."), dspy.User("one"))
        return [TypedLM("own")("one").text, lm(request).text, typed.text, lm(dspy.User("one"), typed).text]
