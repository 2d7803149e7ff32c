"""A decision LM by its real client: what it decided, what that took, and the trace that its server joins."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator

import dspy
import dspy.experimental
import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.balanced import balanced
from tests.parts.environments import installed
from tests.parts.loopback import Handler, LoopbackServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*experimental")]

QUESTIONS = {"urgent": {"type": "choice", "question": "Is it urgent?", "criteria": {"yes": "Soon.", "no": "Later."}}}
ANSWER = {"type": "choice", "choice": "yes", "confidence": 0.9, "probabilities": {"yes": 0.9, "no": 0.1}}
REPLY = {"model": "jev-1", "answers": {"urgent": ANSWER}, "usage": {"input_tokens": 12, "output_tokens": 3}}


class Server(LoopbackServer):
    """Decides that everything is urgent."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        super().__init__(Answers)


class Answers(Handler):
    def do_POST(self) -> None:
        self.body()
        assert isinstance(self.server, Server)
        self.server.headers.append(self.lower_headers())
        body = json.dumps(REPLY).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve, for the client, which is in an environment of its own and comes last on the path."""
    (packages,) = installed("typesafe-sdk==0.7.5").parent.glob("lib/python*/site-packages")
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.stop()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_decision(asynchronous: bool, server: Server) -> None:
    """Model, tokens, address, state and answers; the request belongs to the span."""
    url = f"http://127.0.0.1:{server.server_port}"
    lm = dspy.experimental.TypeSafe(base_url=url, api_key="a-key-of-nobody", cache=False)
    with balanced(capture_content=True) as trace:
        if asynchronous:
            answers = asyncio.run(lm.acall({"ticket": "It burns."}, QUESTIONS))
        else:
            answers = lm({"ticket": "It burns."}, QUESTIONS)
    assert answers["urgent"]["choice"] == "yes"
    span = trace.one("decision jev-latest")
    told = dict(span.attributes or {})
    assert (told["gen_ai.response.model"], told["dspy.lm.cache_hit"]) == ("jev-1", False)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (12, 3)
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", server.server_port)
    assert "It burns." in str(told) and "a-key-of-nobody" not in str(told)
    (headers,) = server.headers
    parent = get_current_span(TraceContextTextMapPropagator().extract(headers)).get_span_context()
    assert span.context is not None
    assert (parent.trace_id, parent.span_id) == (span.context.trace_id, span.context.span_id)
