"""Chats in the form that OpenInference's numbered keys spell: one item a message, by what comes behind its number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from dspy_trace.vocab import Capture
from dspy_trace.vocab import openinference_keys as oi
from dspy_trace.vocab.numbered import Numbered


def _left_out(count: int) -> dict[str, Any]:
    return {oi.MESSAGE_ROLE: "system", oi.MESSAGE_CONTENT: f"[cut: {count} more messages]"}


def messages_in(captured: str) -> Numbered:
    """Return captured messages as what is numbered; whatever else redaction has made of them as one text."""
    plain = orjson.loads(captured)
    messages = plain.get("messages", plain) if isinstance(plain, dict) else plain
    return Numbered(map(_message, messages if isinstance(messages, list) else [messages]), _left_out)


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {oi.MESSAGE_ROLE: "user", oi.MESSAGE_CONTENT: _text(message)}
    told: dict[str, Any] = {oi.MESSAGE_ROLE: _text(message.get("role"))}
    content, reasoning = message.get("content"), message.get("reasoning")
    if reasoning or isinstance(content, list):
        parts = [{"type": "reasoning", "text": reasoning}] if reasoning else []
        parts += content if isinstance(content, list) else [content] if content is not None else []
        for index, part in enumerate(parts):
            for name, value in _part(part).items():
                told[f"{oi.MESSAGE_CONTENTS}.{index}.{name}"] = value
    elif content is not None:
        told[oi.MESSAGE_CONTENT] = _text(content)
    if (call_id := message.get("tool_call_id")) is not None:
        told[oi.MESSAGE_TOOL_CALL_ID] = _text(call_id)
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        for name, value in _tool_call(call).items():
            told[f"{oi.MESSAGE_TOOL_CALLS}.{index}.{name}"] = value
    return told


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        return {oi.CONTENT_TYPE: "text", oi.CONTENT_TEXT: _text(part)}
    image = part.get("image_url")
    if isinstance(image, dict):
        return {oi.CONTENT_TYPE: "image", oi.CONTENT_IMAGE_URL: _text(image.get("url"))}
    return {oi.CONTENT_TYPE: _text(part.get("type", "text")), oi.CONTENT_TEXT: _text(part.get("text"))}


def _tool_call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return {oi.TOOL_CALL_ARGUMENTS: _text(call)}
    told: dict[str, Any] = {oi.TOOL_CALL_ID: _text(call["id"])} if call.get("id") else {}
    told[oi.TOOL_CALL_NAME] = _text(function.get("name"))
    told[oi.TOOL_CALL_ARGUMENTS] = _text(function.get("arguments"))
    return told


def _text(value: Any) -> str:
    """Return a captured value as text, without the quotes of JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def definitions(tools: Iterable[Any], capture: Capture) -> Numbered:
    """Return tool definitions, each as one JSON text."""
    return Numbered({oi.TOOL_JSON_SCHEMA: capture(tool)} for tool in tools)
