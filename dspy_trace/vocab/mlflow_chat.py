"""LM calls in the form that MLflow's chat tab reads: OpenAI's messages, choices and tools.

The tab appears only where every message parses, so that whatever it has no room for, such as an image, becomes text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

import orjson

from dspy_trace.guard import ask
from dspy_trace.values.jsonable import cut, dumps
from dspy_trace.values.media import BASE64
from dspy_trace.vocab.genai_messages import MOST_MESSAGES
from dspy_trace.vocab.mlflow_parts import content, text_of

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
_OF_TOOLS: Final = ("tool", "function")
_OVERHEAD: Final = 40
"""Characters of JSON around the text of a message; of a choice, twice as many around the message."""
_LONGEST_NAME: Final = 256
_MOST_CALLS: Final = 128
_LONGEST_ESCAPE: Final = 6
"""Characters that one character may take in JSON, as ``\\u001b`` does."""


_UNREADABLE: Final = "[unreadable]"
"""What stands for messages that cannot be looked at without an error of theirs."""


def chat_messages(messages: Any, limit: int) -> list[dict[str, Any]]:
    """Return a prompt as chat messages whose texts are together short enough for `limit` characters of JSON."""
    told: list[dict[str, Any]] = ask(
        _chat_messages, messages, limit, default=[{"role": "user", "content": _UNREADABLE}]
    )
    return told


def _chat_messages(messages: Any, limit: int) -> list[dict[str, Any]]:
    if type(messages) is list and _are_plain(messages, limit):
        return messages
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return fitting([{"role": "user", "content": text_of(messages)}], limit)
    most = min(MOST_MESSAGES, max(limit // (2 * _OVERHEAD), 2))
    if len(messages) > most:
        left_out = {"role": "system", "content": f"[cut: {len(messages) - most} more messages]"}
        told = [*messages[: most // 2], left_out, *messages[-(most - most // 2) :]]
    else:
        told = list(islice(messages, most))
    return fitting([_message(message) for message in told], limit)


def _are_plain(messages: list[Any], limit: int) -> bool:
    """Return whether messages are what the chat tab wants already, as nearly all are."""
    room = limit // _LONGEST_ESCAPE
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return False
        said, role = message.get("content"), message.get("role")
        if type(role) is not str or role not in _PLAIN or type(said) is not str or BASE64 in said:
            return False
        room -= len(said) + _OVERHEAD
        if room < 0:
            return False
    return bool(messages)


def fitting(messages: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Cut the longest texts of `messages` until all messages fit: the newest is as wanted as the first."""
    if sum(_size(message, len) for message in messages) <= limit // _LONGEST_ESCAPE:
        return messages
    sizes = [_size(message, _encoded) for message in messages]
    # Ids and names are not cut, so that the first share may be too large.
    for part in (16, 12, 8, 4):
        most = _largest_share(sizes, max(limit * part // 16 - _OVERHEAD * len(messages), 0))
        shorter = [
            _shortened(message, most / size) if size > most else message
            for message, size in zip(messages, sizes, strict=True)
        ]
        if _encoded(shorter) + 2 * _OVERHEAD * (len(messages) + 1) <= limit:
            return shorter
    return [{"role": messages[-1]["role"], "content": f"[cut: {len(messages)} messages]"}]


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


def _encoded(told: Any) -> int:
    """Return how long a text, or messages, are as JSON."""
    try:
        return len(orjson.dumps(told).decode())
    except orjson.JSONEncodeError:  # a lone surrogate
        return len(json.dumps(told, ensure_ascii=False))


def _size(message: Mapping[str, Any], measure: Callable[[str], int]) -> int:
    said = message["content"]
    size = measure(said) if isinstance(said, str) else sum(measure(part.get("text", "")) + 60 for part in said or ())
    if reasoning := message.get("reasoning"):
        size += measure(reasoning)
    for call in message.get("tool_calls") or ():
        size += measure(call["id"]) + sum(map(measure, call["function"].values())) + 80
    return size + len(message.get("tool_call_id", ""))


def _shortened(message: dict[str, Any], ratio: float) -> dict[str, Any]:
    """Return a message with each of its texts cut to that part of its length."""
    shorter = dict(message)
    said = message["content"]
    if isinstance(said, list):
        said = "\n\n".join(part["text"] for part in said if "text" in part)
    for key, text in (("content", said), ("reasoning", message.get("reasoning"))):
        if text:
            shorter[key] = cut(text, int(len(text) * ratio))
    if calls := message.get("tool_calls"):
        shorter["tool_calls"] = [{**call, "function": _shortened_call(call["function"], ratio)} for call in calls]
    return shorter


def _shortened_call(function: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    arguments = function["arguments"]
    return {**function, "arguments": cut(arguments, int(len(arguments) * ratio))}


def _message(message: Any) -> dict[str, Any]:
    get = _getter(message)
    if get is None:
        return {"role": "user", "content": text_of(message)}
    role = get("role")
    told: dict[str, Any] = {
        "role": _ROLES.get(role, "user") if isinstance(role, str) else "user",
        "content": content(get("content")),
    }
    if type(message) is dict and len(message) == 2:
        return told
    _add_more(told, get)
    if isinstance(call_id := get("tool_call_id"), str):
        told["tool_call_id"] = call_id[:_LONGEST_NAME]
    return told


def _add_more(told: dict[str, Any], get: Callable[[str], Any]) -> None:
    if isinstance(reasoning := get("reasoning_content"), str) and reasoning:
        told["reasoning"] = reasoning
    if calls := tool_calls(get("tool_calls")):
        told["tool_calls"] = calls


def speaks_of_tools(messages: Any) -> bool:
    """Return whether a prompt holds tool calls or their results, which only OpenAI's form of the chat tab shows."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return False
    seen = (type(message) is dict and _is_of_tools(message) for message in islice(messages, MOST_MESSAGES))
    return bool(ask(any, seen, default=False))


def _is_of_tools(message: dict[str, Any]) -> bool:
    calls, role = message.get("tool_calls"), message.get("role")
    return bool(type(calls) is list and calls) or (isinstance(role, str) and role in _OF_TOOLS)


def tool_calls(calls: Any) -> list[dict[str, Any]]:
    """Return tool calls in OpenAI's form."""
    told: list[dict[str, Any]] = []
    for call in islice(calls, _MOST_CALLS) if isinstance(calls, Sequence) and not isinstance(calls, str) else ():
        get = _getter(call)
        if get is None:
            continue
        function = _getter(get("function")) or get
        name, arguments, call_id = function("name"), function("arguments"), get("id")
        told.append(
            {
                "id": _name(call_id),
                "type": "function",
                "function": {
                    "name": _name(name),
                    "arguments": arguments if isinstance(arguments, str) else dumps(arguments),
                },
            }
        )
    return told


def _name(value: Any) -> str:
    return value[:_LONGEST_NAME] if isinstance(value, str) else ""


def texts(outputs: Any) -> list[str] | None:
    """Return completions that are nothing but text, else ``None``."""
    if isinstance(outputs, str):
        return [outputs]
    if type(outputs) is list and all(type(output) is str for output in outputs):
        return outputs
    return None


def completions(outputs: Any, limit: int) -> list[dict[str, Any]]:
    """Return completions as messages of the assistant, together short enough for `limit` characters of JSON."""
    unreadable = [{"role": "assistant", "content": _UNREADABLE}]
    told: list[dict[str, Any]] = ask(_completions, outputs, limit, default=unreadable)
    return told


def _completions(outputs: Any, limit: int) -> list[dict[str, Any]]:
    if isinstance(outputs, str | Mapping) or not isinstance(outputs, Sequence):
        outputs = [outputs]
    return fitting([_completion(output) for output in islice(outputs, MOST_MESSAGES)], limit)


def _completion(output: Any) -> dict[str, Any]:
    if not isinstance(output, Mapping):
        return {"role": "assistant", "content": None if output is None else text_of(output)}
    text = output.get("text")
    told: dict[str, Any] = {"role": "assistant", "content": None if text is None else text_of(text)}
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
    # No iterator: the program needs what it gives.
    for definition in islice(definitions, MOST_MESSAGES) if isinstance(definitions, Sequence) else ():
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
