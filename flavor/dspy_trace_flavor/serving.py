"""MLflow's own scoring server with what it lacks: streams, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from typing import Any

from dspy_trace.guard import attempt
from dspy_trace_flavor.model import error_of
from dspy_trace_flavor.untyped import untyped


def app_of(model_uri: str) -> Any:
    """Return an ASGI application that serves a model.

    It has what ``mlflow models serve`` has, by MLflow's own code. Besides, ``POST /invocations/stream`` answers
    ``{"inputs": {...}, "params": {...}}`` with the records of ``predict_stream``, and, for the chat task,
    ``POST /v1/chat/completions`` does what OpenAI's does, streamed with ``"stream": true``.
    """
    pyfunc, server = untyped("mlflow.pyfunc"), untyped("mlflow.pyfunc.scoring_server")
    responses = untyped("fastapi.responses")
    request_class = untyped("fastapi").Request
    model = pyfunc.load_model(model_uri)
    app = server.init(model)

    def streaming(iterate: Callable[[], Iterator[Any]]) -> Any:
        return responses.StreamingResponse(_events(iterate), media_type="text/event-stream")

    async def stream(request: Any) -> Any:
        body, error = attempt(json.loads, await request.body())
        if error is not None or not isinstance(body, dict) or "inputs" not in body:
            return responses.JSONResponse({"message": 'the body must be {"inputs": {...}} in JSON'}, 400)
        return streaming(lambda: model.predict_stream(body["inputs"], body.get("params")))

    async def chat(request: Any) -> Any:
        body, error = attempt(json.loads, await request.body())
        if error is not None or not isinstance(body, dict):
            return responses.JSONResponse({"error": {"message": "the body must be JSON"}}, 400)
        if body.pop("stream", False):
            return streaming(lambda: model.predict_stream(_of_chat(body)))
        given, error = await asyncio.to_thread(attempt, model.predict, _of_chat(body))
        if error is not None:
            wrong = type(error).__name__ == "MlflowException"
            return responses.JSONResponse(error_of(error), 400 if wrong else 500)
        return responses.JSONResponse(given)

    for path, handler in (("/invocations/stream", stream), ("/v1/chat/completions", chat)):
        handler.__annotations__["request"] = request_class
        app.post(path)(handler)
    return app


def _of_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return a request without what only says which model of a server is meant."""
    return {key: value for key, value in body.items() if key not in ("model", "user", "stream_options")}


async def _events(iterate: Callable[[], Iterator[Any]]) -> AsyncIterator[str]:
    """Yield server-sent events of what an iterator gives, which runs on one thread from its beginning to its end."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    left, end = threading.Event(), object()

    def put(item: Any) -> None:
        # Where nobody listens any more, the loop may be closed.
        attempt(loop.call_soon_threadsafe, queue.put_nowait, item)

    def run() -> None:
        for item in iterate():
            if left.is_set():
                return
            put(item)

    def pump() -> None:
        _, error = attempt(run)
        if error is not None:
            put(error_of(error))
        put(end)

    # Its trace is beneath the request.
    context = copy_context()
    threading.Thread(target=context.run, args=(pump,), name="dspy-trace-stream", daemon=True).start()
    try:
        while (item := await queue.get()) is not end:
            yield f"data: {json.dumps(item, default=str)}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        left.set()
