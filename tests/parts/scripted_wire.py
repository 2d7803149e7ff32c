"""How a `Reply` is spelled in OpenAI's HTTP API: bodies, stream chunks, errors, usage and embeddings."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .scripted_answers import Body, Reply, prompt_text

CREATED = 1_700_000_000
_ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def contents(reply: Reply, choices: int) -> list[str | None]:
    """Return the text of each of `choices` choices."""
    if reply.content is None or isinstance(reply.content, str):
        return [reply.content] * choices
    return [reply.content[index % len(reply.content)] for index in range(choices)]


def tool_calls(reply: Reply) -> list[dict[str, Any]]:
    """Return the reply's tool calls in OpenAI's form; ids are `call_0`, `call_1` unless given."""
    calls = []
    for index, call in enumerate(reply.tool_calls or ()):
        arguments = call.get("arguments", {})
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        function = {"name": call["name"], "arguments": text}
        calls.append({"id": call.get("id", f"call_{index}"), "type": "function", "function": function})
    return calls


def finish_reason(reply: Reply) -> str:
    """Return why each choice ended."""
    return "tool_calls" if reply.tool_calls and reply.finish_reason == "stop" else reply.finish_reason


def usage(body: Body, reply: Reply) -> dict[str, Any] | None:
    """Return the usage that is reported: the words of prompt and choices, overlaid by `reply.usage`."""
    if reply.usage is None:
        return None
    texts = [text or "" for text in contents(reply, body.get("n") or 1)]
    texts += [call["function"]["arguments"] for call in tool_calls(reply)] + [reply.reasoning_content or ""]
    figures: dict[str, Any] = {
        "prompt_tokens": _words(prompt_text(body)),
        "completion_tokens": sum(map(_words, texts)),
        **reply.usage,
    }
    figures.setdefault("total_tokens", figures["prompt_tokens"] + figures["completion_tokens"])
    return figures


def whole(body: Body, reply: Reply, ident: str, *, chat: bool) -> dict[str, Any]:
    """Return the body of a chat completion, or of a text completion, that is not streamed."""
    choices = []
    for index, text in enumerate(contents(reply, body.get("n") or 1)):
        choice: dict[str, Any] = {"index": index, "finish_reason": finish_reason(reply), "logprobs": None}
        choices.append({**choice, **({"message": _message(reply, text)} if chat else {"text": text or ""})})
    answer = {**_envelope(body, reply, ident, chat=chat, chunk=False), "choices": choices}
    reported = usage(body, reply)
    return answer if reported is None else {**answer, "usage": reported}


def chunks(body: Body, reply: Reply, ident: str, *, chat: bool) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream, a word at a time; the usage chunk comes last, if it was asked for."""
    envelope = _envelope(body, reply, ident, chat=chat, chunk=True)
    for index, text in enumerate(contents(reply, body.get("n") or 1)):
        pieces = list(_deltas(reply, text)) if chat else [{"text": piece} for piece in _pieces(text)]
        for piece in pieces:
            part = {"delta": piece} if chat else piece
            yield {**envelope, "choices": [{"index": index, **part, "finish_reason": None}]}
        last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        yield {**envelope, "choices": [{"index": index, **last, "finish_reason": finish_reason(reply)}]}
    reported = usage(body, reply)
    if reported is not None and (body.get("stream_options") or {}).get("include_usage"):
        yield {**envelope, "choices": [], "usage": reported}


def error(reply: Reply) -> dict[str, Any]:
    """Return the error object of a reply whose status is 400 or more."""
    kind = _ERROR_TYPES.get(reply.status, "server_error" if reply.status >= 500 else "invalid_request_error")
    said = reply.content if isinstance(reply.content, str) else ""
    message = said or f"scripted {reply.status}"
    return {"error": {"message": message, "type": kind, "param": None, "code": reply.error_code}}


def embeddings(body: Body, reply: Reply) -> dict[str, Any]:
    """Return the body of an embeddings call: one vector per input, in base64 where the client asks for it."""
    given = body.get("input", "")
    texts = [given] if isinstance(given, str) else [str(text) for text in given]
    vectors = [embedding(text, body.get("dimensions") or 16) for text in texts]
    packed = [_base64(v) if body.get("encoding_format") == "base64" else v for v in vectors]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(packed)]
    answer: dict[str, Any] = {"object": "list", "data": data, "model": reply.model or body.get("model")}
    if reply.usage is None:
        return answer
    figures = {"prompt_tokens": sum(map(_words, texts)), **reply.usage}
    return {**answer, "usage": {"total_tokens": figures["prompt_tokens"], **figures}}


def embedding(text: str, size: int = 16) -> list[float]:
    """Return the unit vector of `text`: its words hashed into `size` bins; shared words mean nearness."""
    bins = [0.0] * size
    for word in re.findall(r"\w+", text.lower()) or [""]:
        bins[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % size] += 1.0
    length = math.sqrt(sum(value * value for value in bins))
    return [value / length for value in bins]


def _words(text: str) -> int:
    return len(text.split())


def _pieces(text: str | None) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text or "")


def _base64(vector: list[float]) -> str:
    import base64
    import struct

    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _message(reply: Reply, text: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if reply.reasoning_content is not None:
        message["reasoning_content"] = reply.reasoning_content
    return {**message, "tool_calls": tool_calls(reply)} if reply.tool_calls else message


def _deltas(reply: Reply, text: str | None) -> Iterator[Mapping[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for piece in _pieces(reply.reasoning_content):
        yield {"reasoning_content": piece}
    for piece in _pieces(text):
        yield {"content": piece}
    for index, call in enumerate(tool_calls(reply)):
        arguments = call["function"]["arguments"]
        head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        yield {"tool_calls": [head]}
        for piece in _pieces(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _envelope(body: Body, reply: Reply, ident: str, *, chat: bool, chunk: bool) -> dict[str, Any]:
    kind = ("chat.completion.chunk" if chunk else "chat.completion") if chat else "text_completion"
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{ident}",
        "object": kind,
        "created": CREATED,
        "model": reply.model or body.get("model"),
    }
