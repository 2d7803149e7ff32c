"""A scripted, OpenAI-compatible LM server on loopback: tests run DSPy's real clients and know every answer.

    def test_it(scripted_lm):
        scripted_lm.answer = lambda body: fill(body, answer="42")
        with dspy.context(lm=scripted_lm.lm()):
            assert dspy.Predict("question -> answer")(question="?").answer == "42"

It serves `/v1/chat/completions`, `/v1/completions` (both with `n` and `stream`) and `/v1/embeddings`.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from . import scripted_wire as wire
from .loopback import Handler, LoopbackServer
from .scripted_answers import Answer, Body, Reply, default_answer

if TYPE_CHECKING:
    import dspy

API_KEY = "scripted-key"


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Body


@dataclass(frozen=True)
class Reported:
    """Sums over the responses that carried usage: tokens and their number."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0

    def plus(self, usage: dict[str, Any]) -> Reported:
        """Return the sums with one more response."""
        return Reported(
            self.input_tokens + usage.get("prompt_tokens", 0),
            self.output_tokens + usage.get("completion_tokens", 0),
            self.requests + 1,
        )


class ScriptedLM(AbstractContextManager["ScriptedLM"]):
    """A running server. Close it, or use it as a context manager.

    `answer` may be set at any time; it is called in the thread of the request, so it must be thread-safe. If
    it raises, the client gets a 400 and the exception is kept in `failures`, which the fixture checks at the
    end. `embed` decides status, delay and fault of embedding calls; the vectors are always
    `scripted_wire.embedding`.
    """

    def __init__(
        self, answer: Answer = default_answer, *, embed: Callable[[Body], Reply] = lambda body: Reply()
    ) -> None:
        self.answer: Answer = answer
        self.embed = embed
        self.failures: list[BaseException] = []
        self._changed = threading.Condition()
        self._requests: list[Recorded] = []
        self._reported = {"lm": Reported(), "embeddings": Reported()}
        self._closing = threading.Event()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        """The base address to give to a client, with `/v1`."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def requests(self) -> list[Recorded]:
        """Every request so far in order of arrival, failed ones included; a copy."""
        with self._changed:
            return list(self._requests)

    @property
    def reported(self) -> Reported:
        """What chat and text completions have reported to their clients as usage.

        An error, a broken body, and a stream whose client asked for no usage report nothing.
        """
        with self._changed:
            return self._reported["lm"]

    @property
    def reported_embeddings(self) -> Reported:
        """What embedding calls have reported as usage."""
        with self._changed:
            return self._reported["embeddings"]

    def wait_for(self, requests: int, timeout: float = 10.0) -> None:
        """Return once that many requests have arrived; raise `TimeoutError` after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= requests, timeout):
                raise TimeoutError(f"{len(self._requests)} requests after {timeout} s, not {requests}")

    def lm(
        self,
        engine: Literal["auto", "lm15", "litellm"] = "auto",
        *,
        model: str = "openai/gpt-4o-mini",
        **kwargs: Any,
    ) -> dspy.LM:
        """Make a `dspy.LM` on this server, uncached unless `cache=True`; `kwargs` go to `dspy.LM`.

        From DSPy 3.4 on, `auto` is DSPy's own engine (lm15) unless something needs LiteLLM:
        `model_type="text"`, `headers`, an unknown provider, `OPENAI_BASE_URL` in the environment. Before,
        `auto` and `litellm` are the same, and `lm15` raises `ValueError`.
        """
        import dspy

        if "engine" in inspect.signature(dspy.LM.__init__).parameters:
            kwargs["engine"] = engine
        elif engine == "lm15":
            raise ValueError(f"DSPy {dspy.__version__} has no engine but LiteLLM")
        kwargs = {"api_base": self.url, "api_key": API_KEY, "cache": False, **kwargs}
        return dspy.LM(model, **kwargs)

    def embedder(self, *, model: str = "openai/text-embedding-3-small", **kwargs: Any) -> dspy.Embedder:
        """Make a `dspy.Embedder` on this server, uncached unless `caching=True`. It goes through LiteLLM."""
        import dspy

        kwargs = {"api_base": self.url, "api_key": API_KEY, "caching": False, **kwargs}
        return dspy.Embedder(model, **kwargs)

    def close(self) -> None:
        """Stop serving: end delays, close every connection, join the thread. May be called twice."""
        self._closing.set()
        self._server.stop()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def record(self, request: Recorded) -> int:
        """Keep the request and return its number, from 1. For the handler."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            return len(self._requests)

    def reply_to(self, request: Recorded) -> Reply:
        """Return the reply to a request, after the reply's delay. For the handler."""
        try:
            answer = self.embed if request.path.endswith("/embeddings") else self.answer
            given = answer(request.body)
            reply = given if isinstance(given, Reply) else Reply(given)
        except Exception as exc:  # noqa: BLE001 - the fixture reports it; the client gets an error
            self.failures.append(exc)
            return Reply(f"the scripted answer raised {exc!r}", status=400)
        self._closing.wait(reply.delay)
        return reply

    def wait(self, seconds: float) -> None:
        """Wait, unless the server is closing. For the handler."""
        if seconds:
            self._closing.wait(seconds)

    def report(self, kind: Literal["lm", "embeddings"], usage: dict[str, Any] | None) -> None:
        """Add usage that is about to be sent. For the handler."""
        if usage is not None:
            with self._changed:
                self._reported[kind] = self._reported[kind].plus(usage)


class _Server(LoopbackServer):
    request_queue_size = 256

    def __init__(self, owner: ScriptedLM) -> None:
        self.owner = owner
        super().__init__(_Handler, failures=owner.failures)


class _Handler(Handler):
    @property
    def owner(self) -> ScriptedLM:
        assert isinstance(self.server, _Server)
        return self.server.owner

    def do_POST(self) -> None:
        request = Recorded(self.command, self.path, self.lower_headers(), json.loads(self.body() or b"{}"))
        owner, body = self.owner, request.body
        ident = str(owner.record(request))
        reply = owner.reply_to(request)
        chat = self.path.endswith("/chat/completions")
        if reply.status >= 400:
            self._send(reply, wire.error(reply))
        elif self.path.endswith("/embeddings"):
            answer = wire.embeddings(body, reply)
            owner.report("embeddings", None if reply.fault else answer.get("usage"))
            self._send(reply, answer)
        elif not self.path.endswith("/completions"):
            self._send(replace(reply, status=404), wire.error(Reply("no such path", status=404)))
        elif body.get("stream"):
            self._stream(reply, list(wire.chunks(body, reply, ident, chat=chat)))
        else:
            answer = wire.whole(body, reply, ident, chat=chat)
            owner.report("lm", None if reply.fault else answer.get("usage"))
            self._send(reply, answer)

    def _head(self, reply: Reply, **more: str) -> None:
        self.send_response(reply.status)
        for name, value in {**more, **reply.headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _send(self, reply: Reply, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        if reply.fault == "malformed":
            data = data[:-1]
        self._head(reply, Content_Type="application/json", Content_Length=str(len(data)))
        self.wfile.write(data[: len(data) // 2] if reply.fault == "cut" else data)
        self.close_connection = self.close_connection or reply.fault == "cut"

    def _stream(self, reply: Reply, chunks: Iterable[dict[str, Any]]) -> None:
        self._head(reply, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        lines = [json.dumps(chunk) for chunk in chunks]
        if reply.fault:
            del lines[len(lines) // 2 :]
        if reply.fault == "malformed":
            lines.append('{"choices": [')
        for line, chunk in zip(lines, chunks, strict=False):
            self.owner.report("lm", chunk.get("usage") if not reply.fault else None)
            self._event(line)
            self.owner.wait(reply.pause)
        if reply.fault == "cut":
            self.close_connection = True
            return
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.flush()


@pytest.fixture
def scripted_lm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedLM]:
    """A fresh server with the default answer. It fails the test if an answer or the server raised."""
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with ScriptedLM() as server:
        yield server
    assert not server.failures, server.failures
