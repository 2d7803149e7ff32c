"""What a scripted LM says: replies, and answers that understand DSPy's prompts.

An *answer* is a function of the parsed request body that returns a `Reply` or plain text. `default_answer`
fills whatever output fields ChatAdapter or JSONAdapter ask for; `fill` does so with some values given;
`in_turn` gives a different reply to each request. Nothing here imports dspy or a web server.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Body = dict[str, Any]

_CHAT_ASKS = "Respond with the corresponding output fields, starting with the field "
_JSON_ASKS = "Respond with a JSON object in the following order of fields: "
_JSON_SHAPE = "Outputs will be a JSON object with the following fields."
_OBJECTIVE = "In adhering to this structure, your objective is:"
_NOTE = "# note: the value you produce "
_LAST_TOOLS = ("submit", "finish")
_DEEPEST = 6


@dataclass(frozen=True)
class Reply:
    """What the server sends back for one request.

    `content` is the text of every choice, or a sequence with one text per choice (repeated when `n` is
    larger). `tool_calls` are `{"name": ..., "arguments": {...}}`, with an optional `"id"`; they turn a
    `finish_reason` of `stop` into `tool_calls`. `usage` is laid over the default figures (word counts);
    `None` leaves usage out. A `status` of 400 or more sends an OpenAI error object with `content` as message
    and `error_code` as code. `delay` is in seconds, before the first byte; `pause`, after each chunk of a
    stream. `fault="malformed"` breaks the JSON of the body (of a stream: in its middle); `fault="cut"` closes
    the connection half way.
    """

    content: str | Sequence[str] | None = ""
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    finish_reason: str = "stop"
    usage: Mapping[str, Any] | None = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    pause: float = 0.0
    model: str | None = None
    reasoning_content: str | None = None
    error_code: str | None = None
    fault: Literal["malformed", "cut"] | None = None


Answer = Callable[[Body], Reply | str]


def default_answer(body: Body) -> Reply:
    """Fill every output field that the prompt asks for; call a tool where the request offers tools.

    Deterministic: the text depends on the field's name and on the input only, so that it is the same for
    every version and adapter of DSPy. Of several tools, `submit` or `finish` is called, else the first, once.
    """
    content = fill(body)
    tools = body.get("tools") or []
    if not tools or last_role(body) == "tool":
        return Reply(content)
    functions = [tool["function"] for tool in tools]
    chosen = next((f for f in functions if f["name"] in _LAST_TOOLS), functions[0])
    arguments = sample(chosen.get("parameters") or {}, input_words(body))
    asked = bool(output_fields(body))
    return Reply(content if asked else None, [{"name": chosen["name"], "arguments": arguments or {}}])


def in_turn(*replies: Reply | str | Answer, then: Answer = default_answer) -> Answer:
    """Answer the first request with the first of `replies`, and so on, and all later ones with `then`.

    Thread-safe: each reply is given once.
    """
    waiting: Iterator[Reply | str | Answer] = iter(replies)
    lock = threading.Lock()

    def answer(body: Body) -> Reply | str:
        with lock:
            reply = next(waiting, then)
        return reply(body) if callable(reply) else reply

    return answer


def fill(body: Body, **values: Any) -> str:
    """Write the fields that the prompt asks for, in its format: `values` where given, else samples.

    Plain text comes back where it asks for no fields. Raise `KeyError` for a name that it does not ask for.
    """
    fields = output_fields(body)
    if unknown := values.keys() - fields.keys():
        raise KeyError(f"The prompt asks for {sorted(fields)}, not for {sorted(unknown)}")
    words = input_words(body)
    if not fields:
        return f"reply to {words}".strip()
    filled = {name: values.get(name, sample(schema, words, name)) for name, schema in fields.items()}
    return json.dumps(filled) if wants_json(body) else in_chat_format(filled)


def in_chat_format(fields: Mapping[str, Any]) -> str:
    """Write `fields` as ChatAdapter reads them."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in fields.values()]
    sections = [f"[[ ## {name} ## ]]\n{text}" for name, text in zip(fields, texts, strict=True)]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def wants_json(body: Body) -> bool:
    """Tell whether the request asks for a JSON object (JSONAdapter, or a `response_format`)."""
    kind = (body.get("response_format") or {}).get("type", "text")
    return kind != "text" or _JSON_ASKS in prompt_text(body)


def output_fields(body: Body) -> dict[str, dict[str, Any]]:
    """Return the output fields that the request asks for, in order, each with a JSON schema of its value."""
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"]["schema"]
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        return {name: {**shared, **part} for name, part in schema.get("properties", {}).items()}
    prompt = prompt_text(body)
    _, found, asks = prompt.rpartition(_CHAT_ASKS)
    if found:
        names = [name for name in re.findall(r"`\[\[ ## (\w+) ## \]\]`", asks) if name != "completed"]
        notes = {name: _chat_note(prompt, name) for name in names}
    else:
        _, found, asks = prompt.rpartition(_JSON_ASKS)
        names = re.findall(r"`(\w+)`", asks) if found else []
        notes = _json_notes(prompt)
    return {name: _schema_of_note(notes.get(name, "")) for name in names}


def prompt_text(body: Body) -> str:
    """Return all text of the request: its messages, or the prompt of a text completion."""
    if "messages" not in body:
        prompt = body.get("prompt", "")
        return prompt if isinstance(prompt, str) else "\n".join(map(str, prompt))
    return "\n\n".join(message_text(message) for message in body["messages"])


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of one message; of content in parts, the text parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def last_role(body: Body) -> str:
    """Return the role of the last message (`user` for a text completion)."""
    messages = body.get("messages") or [{"role": "user"}]
    return str(messages[-1].get("role"))


def input_words(body: Body, count: int = 5) -> str:
    """Return the first `count` words of the newest input that a user message gives, without field markers."""
    texts = [message_text(m) for m in body.get("messages", []) if m.get("role") == "user"]
    for text in reversed(texts or [prompt_text(body)]):
        ends = [text.rfind(asks) for asks in (_CHAT_ASKS, _JSON_ASKS) if asks in text]
        given = text[: min(ends, default=len(text))].rpartition("[[ ## completed ## ]]")[2]
        if _OBJECTIVE in given:  # a text completion's prompt: the system message comes first
            given = given[max(given.find("[[ ## "), 0) :]
        if words := re.findall(r"\w+", re.sub(r"\[\[ ## \w+ ## \]\]", " ", given)):
            return " ".join(words[:count])
    return ""


def sample(
    schema: Mapping[str, Any],
    words: str = "",
    name: str = "value",
    depth: int = 0,
    root: Mapping[str, Any] | None = None,
) -> Any:
    """Return the one fixed value of a JSON schema: an enum's first option, an object with every property."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        return sample(target, words, name, depth + 1, root) if depth < _DEEPEST else None
    if "const" in schema or schema.get("enum"):
        return schema.get("const", (schema.get("enum") or [None])[0])
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return sample(schema[union][0], words, name, depth, root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object" and depth < _DEEPEST:
        parts = schema.get("properties", {}).items()
        return {key: sample(part, words, key, depth + 1, root) for key, part in parts}
    if kind == "array":
        items = schema.get("items")
        return [sample(items, words, name, depth + 1, root)] if items and depth < _DEEPEST else []
    text = f"{name} of {words}" if words else name
    simple: dict[str, Any] = {"boolean": True, "integer": 1, "number": 0.5, "null": None, "object": {}}
    return simple.get(kind, text) if isinstance(kind, str) else text


def _chat_note(prompt: str, name: str) -> str:
    found = re.findall(rf"\{{{name}\}} +{re.escape(_NOTE)}(.*)", prompt)
    return found[0] if found else ""


def _json_notes(prompt: str) -> dict[str, str]:
    _, found, shape = prompt.partition(_JSON_SHAPE)
    if not found or "{" not in shape:
        return {}
    try:
        fields, _ = json.JSONDecoder().raw_decode(shape[shape.index("{") :])
    except ValueError:
        return {}
    return {name: str(value).partition(_NOTE)[2] for name, value in fields.items()}


def _schema_of_note(note: str) -> dict[str, Any]:
    """Read the remark that DSPy makes about a field's type."""
    plain = {
        "must be True or False": "boolean",
        "must be a single int value": "integer",
        "must be a single float value": "number",
    }
    if note in plain:
        return {"type": plain[note]}
    if one_of := re.match(r"must (?:exactly match \(no extra characters\)|be) one of: (.*)", note):
        return {"enum": one_of[1].split("; ")}
    _, found, schema = note.partition("must adhere to the JSON schema: ")
    return dict(json.JSONDecoder().raw_decode(schema)[0]) if found else {"type": "string"}
