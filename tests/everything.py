"""A program that uses everything of DSPy that is observed, with a canary in every value that is content.

Each place where a program's content can stand has a canary of its own, so that a test can tell what leaks, and what is
missing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Literal

import dspy
import dspy.experimental
import pytest

from tests.parts.scripted_answers import Body, Reply, fill, in_turn, output_fields
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding

pytest.importorskip("numpy", reason="DSPy's retrievers and embedders need it")

PLACES: set[str] = set()
"""Every canary that a run plants."""

BYTES = base64.b64encode(b"canary bytes of an image" * 20).decode()


def canary(place: str) -> str:
    """Return the text that stands for content at `place`."""
    PLACES.add(text := f"canary-{place}-7f3a")
    return text


class Instructed(dspy.Signature):
    """Made anew below, with a canary in its instructions."""

    question: str = dspy.InputField(desc=canary("input-description"))
    context: list[str] = dspy.InputField()
    answer: str = dspy.OutputField(desc=canary("output-description"))
    kind: Literal["short", "long"] = dspy.OutputField()


class Shelf(dspy.Retrieve):
    """Returns what stands on it."""

    def forward(self, query: str, k: int | None = None, **kwargs: Any) -> dspy.Prediction:
        return dspy.Prediction(passages=[canary("passage"), query])


def lookup(city: str) -> str:
    """Look up the weather."""
    return canary("tool-result")


def broken(city: str) -> str:
    """Fail."""
    raise LookupError(canary("tool-error"))


class Program(dspy.Module):
    """Retrieves, predicts with demos, acts, embeds and runs code."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(k=2)
        self.answer = dspy.ChainOfThought(Instructed.with_instructions(canary("instructions")))
        self.answer.predict.demos = [dspy.Example(question=canary("demo"), context=[], answer="a", kind="short")]
        self.agent = dspy.ReAct("question -> answer", tools=[lookup, broken], max_iters=4)
        self.embedder = dspy.Embedder(lambda texts: [embedding(text) for text in texts])
        self.search = dspy.Embeddings([canary("corpus"), "other"], self.embedder, k=1)
        self.interpreter = dspy.LocalInterpreter()

    def forward(self, question: str) -> dspy.Prediction:
        passages = self.shelf(canary("query")).passages
        self.embedder([canary("embedded")])
        self.search(canary("search"))
        self.interpreter.execute(f"print('{canary('code')}' + name)", {"name": canary("variable")})
        self.agent(question=canary("agent-input"))
        return self.answer(question=question, context=passages)


class Failing(dspy.Module):
    """Raises an error of the program's own."""

    def forward(self, question: str) -> None:
        raise ValueError(canary("error"))


def answers(body: Body) -> str:
    """Fill every field that is text with a canary."""
    values = {
        name: canary(f"completion-{name}")
        for name, schema in output_fields(body).items()
        if schema.get("type") == "string" and "enum" not in schema
    }
    return fill(body, **values)


def act(name: str, **arguments: Any) -> Callable[[Body], str]:
    """Return an answer that makes an agent call a tool."""
    return lambda body: fill(body, next_thought=canary("thought"), next_tool_name=name, next_tool_args=arguments)


def run(server: ScriptedLM) -> None:
    """Run all of it."""
    with dspy.context(lm=server.lm(num_retries=2)):
        _program(server)
        _failures(server)
        _evaluate_and_compile(server)
    _calls(server)
    _retrievers(server)


def _program(server: ScriptedLM) -> None:
    server.answer = in_turn(
        act("lookup", city=canary("tool-argument")),
        act("broken", city="Oslo"),
        act("finish"),
        answers,
        Reply(canary("lm-busy"), status=429, headers={"retry-after": "0"}),
        canary("unparsable"),
        then=answers,
    )
    program = Program()
    try:
        program(question=canary("input"))
    finally:
        program.interpreter.shutdown()


def _failures(server: ScriptedLM) -> None:
    server.answer = lambda body: Reply(canary("lm-error"), status=400)
    with contextlib.suppress(Exception):
        dspy.Predict("question -> answer")(question="?")
    server.answer = answers
    with contextlib.suppress(ValueError):
        Failing()(question="?")
    dspy.BestOfN(dspy.Predict("question -> answer"), 1, lambda inputs, prediction: 1.0, 1.0)(question="?")


def metric(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> Any:
    """Score, and say why; fail for one example."""
    if example.question == "fail":
        raise RuntimeError(canary("metric-error"))
    return dspy.Prediction(score=1.0, feedback=canary("feedback"))


def _evaluate_and_compile(server: ScriptedLM) -> None:
    server.answer = answers
    questions = [canary("example"), "fail"]
    devset = [dspy.Example(question=text, answer=canary("label")).with_inputs("question") for text in questions]
    dspy.Evaluate(devset=devset, metric=metric, num_threads=2, max_errors=5)(dspy.Predict("question -> answer"))
    dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=1).compile(
        dspy.Predict("question -> answer"), trainset=devset[:1]
    )


def _calls(server: ScriptedLM) -> None:
    """Call LMs in all ways: parameters, parts, tools, several choices, a text completion, a decision."""
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}}
    server.answer = in_turn(
        # Two choices are two requests of DSPy's own engine.
        Reply(canary("choice"), reasoning_content=canary("reasoning"), usage=details),
        Reply(canary("other-choice"), usage=details),
        Reply(None, [{"name": "lookup", "arguments": {"city": canary("called-argument")}}]),
        canary("text-completion"),
    )
    lm = server.lm(temperature=0.5, max_tokens=50, top_p=0.9, seed=7, reasoning_effort=None, stop=["END"])
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BYTES}"}}
    parts = [{"type": "text", "text": canary("part")}, image]
    lm(messages=[{"role": "system", "content": canary("system")}, {"role": "user", "content": parts}], n=2)
    function = {"name": "lookup", "description": canary("definition"), "parameters": {"type": "object"}}
    lm(canary("prompt"), tools=[{"type": "function", "function": function}])
    server.lm(model_type="text", model="text-completion-openai/gpt-3.5-turbo-instruct")(canary("text-prompt"))
    _decide()


def _decide() -> None:
    lm = dspy.experimental.TypeSafe(base_url="http://127.0.0.1:9")
    state, questions = {"ticket": canary("state")}, {"q": {"question": canary("decision")}}
    response = {"model": "jev-1", "usage": {}, "answers": {"q": {"choice": canary("decided")}}}
    dspy.cache.put(lm._request(state, questions), response)
    lm(state, questions)


class _Index(BaseHTTPRequestHandler):
    """A ColBERTv2 server of one passage."""

    def do_GET(self) -> None:
        body = json.dumps({"topk": [{"text": canary("colbert-passage"), "pid": 7, "score": 0.5}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def index() -> Iterator[int]:
    """Serve a ColBERTv2 index on a port of 127.0.0.1."""
    with HTTPServer(("127.0.0.1", 0), _Index) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _retrievers(server: ScriptedLM) -> None:
    server.embedder()([canary("hosted-embedded")])
    local = dspy.Embedder(lambda texts: [embedding(text) for text in texts])
    dspy.retrievers.EmbeddingsWithScores([canary("scored-corpus"), "other"], local, k=1)(canary("scored-search"))
    examples = [dspy.Example(question=canary("neighbour"), answer="a").with_inputs("question")]
    dspy.KNN(k=1, trainset=[*examples, *examples], vectorizer=local)(question=canary("knn-query"))
    with index() as port:
        dspy.ColBERTv2(url="http://127.0.0.1", port=port)(canary("colbert-query"), k=3)
