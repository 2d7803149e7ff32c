"""A program with a secret in every place that DSPy, LiteLLM and providers accept one, and in what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

import dspy
import dspy.experimental
import litellm
import pytest

import dspy_trace
from tests import everything
from tests.parts.scripted_answers import Body, Reply, fill, in_turn
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding
from tests.planted import ENVIRONMENT, ENVIRONMENT_PLACES, PLANTED, all_known, odd, passing, secret


def lms(server: ScriptedLM) -> list[dspy.LM]:
    """Return LMs of both engines, with all that can be given to them; some cannot answer."""
    body = {"a": [{"deep": {"client_secret": odd("nested extra_body"), "max_tokens": 7}}]}
    login = server.url.replace("://", f"://user:{secret('api_base, user-info')}@")
    cloud: dict[str, Any] = {"api_base": server.url, "cache": False, "num_retries": 0, "engine": "litellm"}
    google = {"type": "service_account", "project_id": "p", "private_key": secret("vertex, private key")}
    return [
        server.lm("lm15", api_key=secret("constructor, lm15"), num_retries=1),
        server.lm(
            "litellm",
            api_key=secret("constructor, litellm"),
            headers={
                "Authorization": f"Bearer {secret('headers, authorization')}",
                "X-Api-Key": secret("headers, key"),
            },
            extra_headers={"x-goog-api-key": secret("extra_headers"), "Cookie": f"id={secret('cookie')}"},
            extra_body=body,
            num_retries=0,
        ),
        server.lm(api_base=login, num_retries=0),
        server.lm("litellm", api_base=f"{server.url}?api-key={secret('api_base, query')}", num_retries=0),
        dspy.LM(
            "bedrock/anthropic.claude-v2",
            aws_access_key_id=secret("aws, id"),
            aws_secret_access_key=secret("aws, secret"),
            aws_session_token=secret("aws, session"),
            **cloud,
        ),
        dspy.LM(
            "azure/gpt-4",
            azure_ad_token=secret("azure, token"),
            client_secret=secret("azure, client secret"),
            azure_password=secret("azure, password"),
            api_version="2024-02-01",
            **cloud,
        ),
        dspy.LM("vertex_ai/gemini-pro", vertex_credentials=json.dumps(google), vertex_project="p", **cloud),
    ]


class Client:
    """A provider's client, as a custom LM holds one."""

    def __init__(self) -> None:
        self.api_key = secret("client of a custom LM")
        self.default_headers = {"Proxy-Authorization": secret("headers of a custom LM")}


class Custom(dspy.BaseLM):
    """Says everything that it knows."""

    def __init__(self) -> None:
        super().__init__("custom")
        self.client = Client()
        self.access_token = secret("custom LM")

    def __call__(self, *args: Any, **kwargs: Any) -> list[str]:
        return [all_known()]


class Vault(dspy.Retrieve):
    """A retriever with a key, which it puts into its passages."""

    def __init__(self) -> None:
        super().__init__(k=1)
        self.api_key = secret("retriever")

    def forward(self, query: str, k: int | None = None, **kwargs: Any) -> dspy.Prediction:
        return dspy.Prediction(passages=[all_known(), query])


def log_in(user: str, password: str) -> Any:
    """Log in."""
    return {
        "session": {"token": passing("tool, result by name"), "cookies": [passing("tool, cookie")]},
        "all": all_known(),
    }


def broken(password: str) -> str:
    """Fail."""
    raise LookupError(f"401 for {password}: {all_known()}")


class LogIn(dspy.Signature):
    """Log in with a password."""

    password: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    """Retrieves, embeds, runs code, acts and predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.vault = Vault()
        self.agent = dspy.ReAct("question -> answer", tools=[log_in, broken], max_iters=4)
        self.answer = dspy.ChainOfThought(LogIn)
        self.interpreter = dspy.LocalInterpreter()

    def forward(self, question: str) -> dspy.Prediction:
        self.vault(all_known())
        variables = {"password": passing("interpreter, variable"), "text": all_known()}
        self.interpreter.execute("print(text)", variables)
        self.agent(question=question)
        # It begins within what is kept of the prompt and ends behind it.
        return self.answer(
            question=question + "x" * 65_000 + 40 * secret("constructor, lm15"), password=passing("input field")
        )


class Failing(dspy.Module):
    """Raises an error that says everything."""

    def forward(self, question: str) -> None:
        raise ValueError(all_known())


def act(name: str, **arguments: Any) -> Any:
    return lambda body: fill(body, next_thought=all_known(), next_tool_name=name, next_tool_args=arguments)


def answers(body: Body) -> str:
    return fill(body) or "fine"


def unauthorized(body: Body) -> Reply:
    """Say no, as providers do: with the key in the message."""
    return Reply(f"Incorrect API key provided: {all_known()}", status=401, error_code="invalid_api_key")


def run(server: ScriptedLM) -> None:
    """Run every kind of call, succeeding and failing."""
    PLANTED.clear()
    for name in ENVIRONMENT_PLACES:
        secret(name)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            assert os.environ[name] == value
        patch.setattr(litellm, "api_key", secret("litellm, api_key"))
        patch.setattr(litellm, "groq_key", secret("litellm, groq_key"))
        made = lms(server)
        session = {"api_key": passing("session, metadata"), "note": "of the session"}
        with (
            dspy.context(lm=made[0], rm_password=secret("settings")),
            dspy_trace.session(session_id="s", metadata=session, tags={"auth": passing("session, tag")}),
        ):
            _calls(server, made)
            _programs(server)
            asyncio.run(_later(server))
            _evaluate(server)
        _others(server)


def _calls(server: ScriptedLM, made: list[Any]) -> None:
    made = [*made, Custom()]
    for answer, text in ((answers, lambda: "hi"), (lambda body: all_known(), all_known), (unauthorized, all_known)):
        server.answer = answer
        for lm in made:
            with contextlib.suppress(Exception):
                lm(text())
    server.answer = answers
    more = {"extra_headers": {"Authorization": f"Basic {secret('call, authorization')}"}}
    with contextlib.suppress(Exception):
        made[1](all_known(), api_key=secret("call, api_key"), extra_body={"o": {"token": secret("call, body")}}, **more)


def _programs(server: ScriptedLM) -> None:
    password = passing("tool, argument")
    server.answer = in_turn(
        act("log_in", user="me", password=password),
        act("broken", password=password),
        act("finish"),
        answers,
        Reply("busy " + all_known(), status=429, headers={"retry-after": "0"}),
        all_known(),
        then=answers,
    )
    question = all_known()
    program = Program()
    try:
        program(question=question)
    finally:
        program.interpreter.shutdown()
    with contextlib.suppress(ValueError):
        Failing()(question="?")
    server.answer = unauthorized
    with contextlib.suppress(Exception):
        dspy.Predict("question -> answer")(question=all_known())
    server.answer = answers


async def _later(server: ScriptedLM) -> None:
    predict = dspy.Predict("question -> answer")
    await predict.acall(question=all_known())
    async for _ in dspy.streamify(predict)(question=all_known()):
        pass
    server.answer = unauthorized
    with contextlib.suppress(Exception):
        await predict.acall(question=all_known())
    server.answer = answers


def metric(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    if example.question == "fail":
        raise RuntimeError(all_known())
    return 1.0


def _evaluate(server: ScriptedLM) -> None:
    devset = [
        dspy.Example(question=text, password=passing("example"), answer="a").with_inputs("question", "password")
        for text in (all_known(), "fail")
    ]
    dspy.Evaluate(devset=devset, metric=metric, num_threads=2, max_errors=5)(dspy.Predict(LogIn))
    dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=1).compile(dspy.Predict(LogIn), trainset=devset[:1])


def _others(server: ScriptedLM) -> None:
    embedder = server.embedder(api_key=secret("embedder"), extra_headers={"Authorization": secret("embedder, header")})
    embedder(["hi"])
    embedder([all_known()])
    server.embed = lambda body: Reply(f"no: {all_known()}", status=401)
    with contextlib.suppress(Exception):
        embedder([all_known()])
    local = dspy.Embedder(lambda texts: [embedding(text) for text in texts])
    dspy.retrievers.EmbeddingsWithScores([all_known(), "other"], local, k=1)(all_known())
    with everything.index() as port:
        dspy.ColBERTv2(url=f"http://me:{secret('colbert, url')}@127.0.0.1", port=port)(all_known(), k=3)
    lm = dspy.experimental.TypeSafe(base_url="http://127.0.0.1:9", api_key=secret("decision LM"))
    with contextlib.suppress(Exception):
        lm({"ticket": all_known()}, {"q": {"question": all_known()}})
