"""LM calls in the form that MLflow's chat tab reads: OpenAI's messages, choices and tools.

The tab appears only where every message parses, so that whatever it has no room for, such as an image, becomes text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from dspy_trace.guard import ask
from dspy_trace.jsonable import cut, dumps
from dspy_trace.media import BASE64, base64_digest, without_data
from dspy_trace.vocab.genai_messages import MOST_MESSAGES

_ROLES: Final = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "developer": "system",
    "function": "tool",
    "model": "assistant",
}
"""Roles that the chat tab knows, by what providers call them."""

_PLAIN: Final = ("user", "system", "assistant")
_TEXTS: Final = frozenset({"text", "input_text", "output_text"})
_OVERHEAD: Final = 40
"""Characters of JSON around the text of a message."""


def chat_messages(messages: Any, limit: int) -> list[dict[str, Any]]:
    """Return a prompt as chat messages whose texts are together short enough for `limit` characters of JSON."""
    if type(messages) is list and _are_plain(messages, limit):
        return messages
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return fitting([{"role": "user", "content": _text(messages)}], limit)
    most = min(MOST_MESSAGES, max(limit // (2 * _OVERHEAD), 2))
    if len(messages) > most:
        left_out = {"role": "system", "content": f"[cut: {len(messages) - most} more messages]"}
        told = [*messages[: most // 2], left_out, *messages[-(most - most // 2) :]]
    else:
        told = list(messages)
    return fitting([_message(message) for message in told], limit)


def _are_plain(messages: list[Any], limit: int) -> bool:
    """Return whether messages are what the chat tab wants already, as nearly all are."""
    room = limit * 7 // 8
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return False
        content = message.get("content")
        if type(content) is not str or BASE64 in content or message.get("role") not in _PLAIN:
            return False
        room -= len(content) + _OVERHEAD
        if room < 0:
            return False
    return bool(messages)


def fitting(messages: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Cut the longest texts of `messages` until all messages fit: the newest is as wanted as the first."""
    room = limit * 7 // 8 - _OVERHEAD * len(messages)
    sizes = [_size(message) for message in messages]
    if sum(sizes) <= room:
        return messages
    most = _largest_share(sizes, max(room, 0))
    return [
        _shortened(message, most) if size > most else message for message, size in zip(messages, sizes, strict=True)
    ]


def _largest_share(sizes: Sequence[int], room: int) -> int:
    """Return the size that, if nothing is larger, lets all `sizes` fit into `room`."""
    left = room
    ordered = sorted(sizes)
    for index, size in enumerate(ordered):
        share = left // (len(ordered) - index)
        if size > share:
            return share
        left -= size
    return left


def _size(message: Mapping[str, Any]) -> int:
    content = message["content"]
    size = len(content) if isinstance(content, str) else sum(len(part.get("text", "")) + 60 for part in content or ())
    calls = message.get("tool_calls")
    return size + sum(len(call["function"]["arguments"]) + 100 for call in calls) if calls else size


def _shortened(message: dict[str, Any], most: int) -> dict[str, Any]:
    content = message["content"]
    if isinstance(content, list):
        content = "\n\n".join(part["text"] for part in content if "text" in part)
    shorter = {**message, "content": cut(content, most) if content else content}
    if calls := message.get("tool_calls"):
        share = most // len(calls)
        shorter["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": cut(call["function"]["arguments"], share)}}
            for call in calls
        ]
    return shorter


def _message(message: Any) -> dict[str, Any]:
    get = _getter(message)
    if get is None:
        return {"role": "user", "content": _text(message)}
    role = get("role")
    told: dict[str, Any] = {
        "role": _ROLES.get(role, "user") if isinstance(role, str) else "user",
        "content": _content(get("content")),
    }
    if type(message) is dict and len(message) == 2:
        return told
    _add_more(told, get)
    if isinstance(call_id := get("tool_call_id"), str):
        told["tool_call_id"] = call_id
    return told


def _add_more(told: dict[str, Any], get: Callable[[str], Any]) -> None:
    if isinstance(reasoning := get("reasoning_content"), str) and reasoning:
        told["reasoning"] = reasoning
    if calls := tool_calls(get("tool_calls")):
        told["tool_calls"] = calls


def _content(content: Any) -> str | list[dict[str, Any]] | None:
    if content is None:
        return None
    if isinstance(content, str) or not isinstance(content, Sequence):
        return _text(content)
    return [_part(part) for part in islice(content, MOST_MESSAGES)]


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        return _as_text(part)
    kind = part.get("type")
    if kind in _TEXTS and isinstance(text := part.get("text"), str):
        return {"type": "text", "text": text}
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        if isinstance(url, str) and BASE64 not in url:
            return {"type": "image_url", "image_url": {"url": url}}
        return _as_text(url)
    body = part.get(kind) if isinstance(kind, str) else None
    if isinstance(body, Mapping) and isinstance(data := body.get("data") or body.get("file_data"), str):
        if BASE64 in data:
            return _as_text(data)
        told = base64_digest(data, f"{kind}/{body.get('format') or '*'}".replace("input_", ""))
        return _as_text(f"[{told['media_type']}: {told['size']} bytes, sha256 {told['sha256']}]")
    return _as_text(part)


def _as_text(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": _text(value)}


def _text(value: Any) -> str:
    """Return any content as text: what is no text as JSON, binary content by type, size and SHA-256."""
    return without_data(value) if isinstance(value, str) else dumps(value)


def speaks_of_tools(messages: Any) -> bool:
    """Return whether a prompt holds tool calls or their results, which only OpenAI's form of the chat tab shows."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return False
    return any(
        type(message) is dict and ("tool_calls" in message or message.get("role") == "tool")
        for message in islice(messages, MOST_MESSAGES)
    )


def tool_calls(calls: Any) -> list[dict[str, Any]]:
    """Return tool calls in OpenAI's form."""
    told: list[dict[str, Any]] = []
    for call in calls if isinstance(calls, Sequence) and not isinstance(calls, str) else ():
        get = _getter(call)
        if get is None:
            continue
        function = _getter(get("function")) or get
        name, arguments, call_id = function("name"), function("arguments"), get("id")
        told.append(
            {
                "id": call_id if isinstance(call_id, str) else "",
                "type": "function",
                "function": {
                    "name": name if isinstance(name, str) else "",
                    "arguments": arguments if isinstance(arguments, str) else dumps(arguments),
                },
            }
        )
    return told


def texts(outputs: Any) -> list[str] | None:
    """Return completions that are nothing but text, else ``None``."""
    if isinstance(outputs, str):
        return [outputs]
    if type(outputs) is list and all(type(output) is str for output in outputs):
        return outputs
    return None


def completions(outputs: Any, limit: int) -> list[dict[str, Any]]:
    """Return completions as messages of the assistant, together short enough for `limit` characters of JSON."""
    if isinstance(outputs, str | Mapping) or not isinstance(outputs, Sequence):
        outputs = [outputs]
    return fitting([_completion(output) for output in islice(outputs, MOST_MESSAGES)], limit)


def _completion(output: Any) -> dict[str, Any]:
    if not isinstance(output, Mapping):
        return {"role": "assistant", "content": None if output is None else _text(output)}
    text = output.get("text")
    told: dict[str, Any] = {"role": "assistant", "content": None if text is None else _text(text)}
    _add_more(told, output.get)
    return told


def choices(outputs: Any, finish_reasons: Sequence[str], limit: int) -> dict[str, Any]:
    """Return completions as the choices of OpenAI's response. `finish_reasons` may be empty."""
    told: list[dict[str, Any]] = []
    for index, message in enumerate(completions(outputs, limit)):
        choice: dict[str, Any] = {"index": index, "message": message}
        if index < len(finish_reasons):
            choice["finish_reason"] = finish_reasons[index]
        told.append(choice)
    return {"choices": told}


def tools(definitions: Any) -> list[dict[str, Any]]:
    """Return tool definitions in OpenAI's form, those that have a name: the page shows all or none."""
    told: list[dict[str, Any]] = []
    for definition in definitions if isinstance(definitions, Iterable) else ():
        get = _getter(definition)
        function = _getter(get("function")) or get if get is not None else None
        if function is not None and isinstance(function("name"), str):
            entries = {key: function(key) for key in ("name", "description", "parameters")}
            shown = {key: value for key, value in entries.items() if value is not None}
            if isinstance(parameters := shown.get("parameters"), Mapping):
                shown["parameters"] = _schema(parameters)
            told.append({"type": "function", "function": shown})
    return told


def _schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with one type a property, as the page wants it: ``string | null`` for several."""
    properties = parameters.get("properties")
    if not isinstance(properties, Mapping):
        return {key: value for key, value in parameters.items() if key != "properties"}
    return {**parameters, "properties": {name: _property(schema) for name, schema in properties.items()}}


def _property(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        return {}
    kind = schema.get("type")
    return {**schema, "type": " | ".join(map(str, kind))} if isinstance(kind, list) else dict(schema)


def _getter(holder: Any) -> Callable[[str], Any] | None:
    if isinstance(holder, Mapping):
        return holder.get
    if holder is None or isinstance(holder, str | int | float | bytes | Sequence):
        return None
    return partial(ask, getattr, holder)
