"""OpenAI-shaped messages, as DSPy has them, in the message format of the GenAI semantic conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from dspy_trace.values.media import base64_digest, data_url_digest
from dspy_trace.values.quick import Plain

MOST_MESSAGES = 4_096
"""More are not looked at: they could not fit into the content limit."""

_MEDIA = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "video_url": "video",
    "file": "document",
}


def input_messages(messages: Any) -> list[dict[str, Any]] | Plain:
    """Return a prompt: messages as dicts, or a plain text, which is what the user said."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return [{"role": "user", "parts": _parts(messages)}]
    told = _texts(messages) if type(messages) is list and len(messages) <= MOST_MESSAGES else None
    return told or [_message(message) for message in islice(messages, MOST_MESSAGES)]


def output_messages(outputs: Any, finish_reasons: Sequence[str]) -> list[dict[str, Any]]:
    """Return completions: texts, or dicts of text, reasoning and tool calls. `finish_reasons` may be empty."""
    if isinstance(outputs, str) or not isinstance(outputs, Sequence):
        outputs = [outputs]
    messages = []
    for index, output in enumerate(islice(outputs, MOST_MESSAGES)):
        message: dict[str, Any] = {"role": "assistant", "parts": _completion(output)}
        if index < len(finish_reasons):
            message["finish_reason"] = finish_reasons[index]
        messages.append(message)
    return messages


def tool_definitions(tools: Any) -> list[Any]:
    """Return OpenAI tool definitions without the extra level of ``function``."""
    definitions: list[Any] = []
    # No iterator: the program needs what it gives.
    for tool in islice(tools, MOST_MESSAGES) if isinstance(tools, Sequence) and not isinstance(tools, str) else ():
        function = tool.get("function") if isinstance(tool, Mapping) else None
        definitions.append({"type": "function", **function} if isinstance(function, Mapping) else tool)
    return definitions


def _texts(messages: list[Any]) -> Plain | None:
    """Return messages of a role and a text each, which most are; ``None`` if one is anything else."""
    told, size = [], 0
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or type(content) is not str:
            return None
        size += len(role) + len(content)
        told.append({"role": role, "parts": [{"type": "text", "content": content}]})
    return Plain(told, size)


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        return {"role": "user", "parts": [{"type": "unknown", "content": message}]}
    role = message.get("role", "user")
    if role == "tool":
        response = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": message.get("content")}
        return {"role": "tool", "parts": [response]}
    parts = _parts(message.get("content"))
    if reasoning := message.get("reasoning_content"):
        parts.insert(0, {"type": "reasoning", "content": reasoning})
    parts.extend(_tool_calls(message.get("tool_calls")))
    return {"role": role, "parts": parts}


def _parts(content: Any) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    if isinstance(content, Sequence):
        return [_part(item) for item in islice(content, MOST_MESSAGES)]
    return [{"type": "unknown", "content": content}]


def _part(item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "content": item}
    if not isinstance(item, Mapping):
        return {"type": "unknown", "content": item}
    kind = item.get("type")
    if kind in ("text", "input_text", "output_text"):
        return {"type": "text", "content": item.get("text")}
    if kind in _MEDIA:
        return _media(_MEDIA[kind], item.get(kind), item)
    return dict(item)


def _media(modality: str, body: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part that tells of an image, audio or file without its bytes."""
    file_id = None
    if isinstance(body, Mapping):
        data = body.get("data") or body.get("file_data")
        if isinstance(data, str) and not data.startswith("data:"):
            return _blob(modality, base64_digest(data, f"{modality}/{body.get('format', '*')}"))
        body, file_id = body.get("url") or data, body.get("file_id")
    body = body or item.get("image_url")
    digest = data_url_digest(body) if isinstance(body, str) else None
    if digest is not None:
        return _blob(modality, digest)
    if body is None and file_id is not None:
        return {"type": "file", "modality": modality, "file_id": file_id}
    return {"type": "uri", "modality": modality, "uri": body}


def _blob(modality: str, digest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "blob",
        "mime_type": digest["media_type"],
        "modality": modality,
        "size": digest["size"],
        "sha256": digest["sha256"],
    }


def _completion(output: Any) -> list[dict[str, Any]]:
    if not isinstance(output, Mapping):
        return _parts(output)
    parts: list[dict[str, Any]] = []
    if reasoning := output.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": reasoning})
    parts.extend(_parts(output.get("text")))
    parts.extend(_tool_calls(output.get("tool_calls")))
    return parts


def _tool_calls(calls: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for call in calls if isinstance(calls, Sequence) and not isinstance(calls, str) else ():
        function = _get(call, "function") or call
        parts.append(
            {
                "type": "tool_call",
                "id": _get(call, "id"),
                "name": _get(function, "name"),
                "arguments": _get(function, "arguments"),
            }
        )
    return parts


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
