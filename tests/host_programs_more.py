"""More programs: streams, wrong arguments, evaluations and optimizers. As `host_programs`."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dspy
import dspy.experimental
from dspy.utils.callback import BaseCallback

from tests.host import told
from tests.host_programs import Nested, program
from tests.parts.scripted_answers import fill, in_turn
from tests.parts.scripted_lm import ScriptedLM

_has_optuna = importlib.util.find_spec("optuna") is not None


class Generator(dspy.Module):
    """A `forward` that is a generator: listens to what it is sent and thrown, and says when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def forward(self, n: int) -> Iterator[Any]:
        try:
            for i in range(n):
                try:
                    self.said.append(f"got {yield i}")
                except KeyError as error:
                    self.said.append(f"caught {error}")
            return "the end"
        finally:
            self.said.append("closed")


class AsyncGenerator(dspy.Module):
    """A `forward` that is an async generator."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def forward(self, n: int) -> AsyncIterator[Any]:
        for i in range(n):
            yield await self.ask.acall(question=f"q{i}")
        raise RuntimeError("no more")


def _listened(server: ScriptedLM, **kwargs: Any) -> Any:
    server.answer = lambda body: fill(body, answer="one two three four five six seven eight nine ten")
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    return dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener], **kwargs)


@program("invoke_workflow Predict")
async def streamed(server: ScriptedLM) -> Any:
    return [value async for value in _listened(server)(question="Why?")]


@program("invoke_workflow Nested")
async def streamed_async_program(server: ScriptedLM) -> Any:
    stream = dspy.streamify(Nested(), is_async_program=True)
    return [type(value).__name__ async for value in stream(question="Why?")][-1]


@program("invoke_workflow Predict")
def streamed_sync(server: ScriptedLM) -> Any:
    return list(_listened(server, async_streaming=False)(question="Why?"))


@program("invoke_workflow Predict")
async def stream_abandoned(server: ScriptedLM) -> Any:
    stream = _listened(server, is_async_program=True)(question="Why?")
    first = await anext(stream)
    await stream.aclose()
    return first


@program("invoke_workflow Generator", raises="OSError")
def generators(server: ScriptedLM) -> Any:
    program, seen = Generator(), []
    stream = program(n=3)
    seen += [next(stream), stream.send("a"), stream.throw(KeyError("b"))]
    try:
        stream.send("c")
    except StopIteration as stop:
        seen.append(stop.value)
    closed = program(n=3)
    seen += [next(closed), closed.close(), stream.gi_frame]
    failing = program(n=1)
    next(failing)
    seen += [type(failing).__name__, failing.__name__, program.said]
    error = OSError("thrown in", told(seen))
    failing.throw(error)


@program("invoke_workflow AsyncGenerator")
async def async_generators(server: ScriptedLM) -> Any:
    seen: list[Any] = []
    half = AsyncGenerator()(n=2)
    seen.append(await anext(half))
    await half.aclose()
    try:
        async for value in AsyncGenerator()(n=2):
            seen.append(value)
    except RuntimeError as error:
        seen.append(error)
    return seen


@program("invoke_workflow Nested", raises="TimeoutError")
async def timed_out(server: ScriptedLM) -> Any:
    class Slow(Nested):
        async def aforward(self, question: str) -> Any:
            await asyncio.Event().wait()

    slow = Nested()
    slow.plan = Slow()
    return await asyncio.wait_for(slow.acall(question="Why?"), 0.05)


@program("invoke_workflow Outer", raises="KeyboardInterrupt")
def interrupted(server: ScriptedLM) -> Any:
    class Outer(dspy.Module):
        def forward(self) -> Any:
            raise KeyboardInterrupt("stop")

    return Outer()()


@program("invoke_workflow Predict", "invoke_workflow Nested", "execute_tool f", "chat gpt-4o-mini", "evaluate Nested")
def wrong_arguments(server: ScriptedLM) -> Any:
    def f(x: int) -> int:
        return x

    wrong: list[Callable[[], Any]] = [
        lambda: dspy.Predict("question -> answer")("Why?"),
        lambda: dspy.Predict("question -> answer")(question="Why?", lm="gpt"),
        lambda: dspy.Predict("question -> answer")(instance="x"),
        Nested(),
        lambda: Nested()("q", question="q"),
        lambda: Nested()(other="q"),
        lambda: dspy.Tool(f)(1),
        lambda: dspy.Tool(f)(x="no number"),
        lambda: dspy.Tool(f)(y=1),
        lambda: dspy.Evaluate(devset=[])(Nested()),
        dspy.Evaluate(devset=[]),
        lambda: dspy.BootstrapFewShot().compile(),
        lambda: dspy.settings.lm(1, 2, 3, 4, 5),
    ]
    return [_raised(call) for call in wrong]


def _raised(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001  # to be compared, whatever it is
        return error
    return None


class Log(BaseCallback):
    """A user's callback that writes down every call that it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda **kwargs: self.seen.append(f"{name} {type(kwargs.get('instance')).__name__}")


@program("invoke_workflow Nested")
def users_callbacks(server: ScriptedLM) -> Any:
    log, own = Log(), Log()
    program = Nested()
    program.plan.callbacks.append(own)
    with dspy.context(callbacks=[log]):
        program(question="Why?")
    return log.seen, own.seen


def _devset() -> list[dspy.Example]:
    return [dspy.Example(question=f"q{i}", answer=f"a{i}").with_inputs("question") for i in range(4)]


def metric(example: Any, prediction: Any, trace: Any = None) -> float:
    if example.question == "q2":
        raise ZeroDivisionError("the metric's own")
    return 0.5


def lenient(example: Any, prediction: Any, trace: Any = None) -> bool:
    return example.question != "q1"


@program("evaluate Predict", "evaluate_example Predict")
def evaluated(server: ScriptedLM) -> Any:
    devset = _devset()
    evaluate = dspy.Evaluate(devset=devset, metric=metric, num_threads=2)
    return evaluate(dspy.Predict("question -> answer")), devset


@program("evaluate Predict", "evaluate_example Predict", raises="Exception")
def evaluation_breaks_off(server: ScriptedLM) -> Any:
    evaluate = dspy.Evaluate(devset=_devset(), metric=metric, num_threads=1, max_errors=1, provide_traceback=True)
    return evaluate(dspy.Predict("question -> answer"))


@program("compile BootstrapFewShot", "invoke_workflow Nested")
def bootstrapped(server: ScriptedLM) -> Any:
    optimizer = dspy.BootstrapFewShot(metric=lenient, max_bootstrapped_demos=2, max_labeled_demos=1)
    return optimizer.compile(Nested(), trainset=_devset())


@program("compile MIPROv2", "invoke_workflow GenerateModuleInstruction", raises=None if _has_optuna else "ImportError")
def mipro(server: ScriptedLM) -> Any:
    """Without optuna DSPy says so, late; with it, it compiles: either way the same."""
    optimizer = dspy.MIPROv2(metric=lenient, auto=None, num_candidates=2, num_threads=1, verbose=False)
    options = {"num_trials": 2, "minibatch": False, "max_bootstrapped_demos": 1, "max_labeled_demos": 1}
    return optimizer.compile(dspy.ChainOfThought("question -> answer"), trainset=_devset(), valset=_devset(), **options)


@program("compile KNNFewShot", "invoke_workflow Predict", "embeddings embed")
def knn_few_shot(server: ScriptedLM) -> Any:
    import numpy as np

    def embed(texts: list[str]) -> Any:
        return np.array([[float(len(text)), 1.0] for text in texts], dtype=np.float32)

    optimizer = dspy.KNNFewShot(k=2, trainset=_devset(), vectorizer=dspy.Embedder(embed), metric=lenient)
    return optimizer.compile(dspy.Predict("question -> answer"))(question="q7")


@program("invoke_workflow Refine")
def refined(server: ScriptedLM) -> Any:
    scores = iter([0.1, 0.4, 0.2])
    program = dspy.Refine(Nested(), N=3, reward_fn=lambda args, pred: next(scores), threshold=1.0)
    return program(question="Why?"), dspy.settings.trace


@program("decision jev-latest", "invoke_workflow Predict")
def decisions(server: ScriptedLM) -> Any:
    """A decision LM whose answers stand in DSPy's cache: the rest of the path is DSPy's own."""
    lm = dspy.experimental.TypeSafe(base_url="http://127.0.0.1:1")
    state, questions = {"text": "fine"}, {"good": {"type": "noul", "description": "good?"}}
    answers = {"good": {"noul": True, "confidence": 0.9}}
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    dspy.cache.put(lm._request(state, questions), {"model": "jev-1", "usage": usage, "answers": answers})
    unanswered = _raised(lambda: dspy.Predict("text -> good: bool")(text="fine", lm=lm))
    return lm(state, questions), lm.history[0]["usage"], unanswered


@program("invoke_agent RLM")
def rlm(server: ScriptedLM) -> Any:
    server.answer = in_turn(
        lambda body: fill(body, code="print(1 / 0)"),
        lambda body: fill(body, code="print(llm_query('what?'))"),
        lambda body: "queried",
        lambda body: fill(body, code="SUBMIT(answer='found')"),
    )
    return dspy.RLM("question -> answer", max_iters=4, interpreter_factory=dspy.LocalInterpreter)(question="Why?")
