"""What was said: the messages, inputs and outputs of a span, as lines beneath it in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from dspy_trace.guard import ask
from dspy_trace.store.traces import Span
from dspy_trace.vocab import keys
from dspy_trace.vocab import mlflow_keys as mlflow

GIVEN = (keys.INPUT_MESSAGES, mlflow.INPUTS, keys.INPUT_VALUE, keys.TOOL_ARGUMENTS)
TAKEN = (keys.OUTPUT_MESSAGES, mlflow.OUTPUTS, keys.OUTPUT_VALUE, keys.TOOL_RESULT, keys.RETRIEVAL_DOCUMENTS)
"""Where inputs and outputs stand, first that is there."""

LEAST = 20
"""Columns that a text gets at least, whatever stands before it."""

LONGEST_LABEL = 12


def lines(span: Span, before: str, width: int, console: Console) -> Iterator[Text]:
    """Yield lines with what a span was given and what it gave, each with `before` in front; none if none is known."""
    for arrow, names in (("> ", GIVEN), ("< ", TAKEN)):
        told = next((span.attributes[name] for name in names if span.attributes.get(name) not in (None, "")), None)
        for label, text in _said(_decoded(told)):
            yield from _wrapped(arrow + seen(label)[:LONGEST_LABEL], text, before, width, console)


def _wrapped(label: str, text: str, before: str, width: int, console: Console) -> Iterator[Text]:
    head = f"{before}{label}  " if label.strip() else before
    if width - len(head) < LEAST:
        head, before = label + "  ", ""
    told = Text("\n".join(seen(line) for line in text.splitlines()).strip() or "-")
    for number, line in enumerate(told.wrap(console, max(width - len(head), 1), overflow="fold")):
        line.rstrip()
        yield Text.assemble((head if not number else before + " " * (len(head) - len(before)), "dim"), line)


def seen(text: str) -> str:
    """Return a line without what cannot be seen, and steers terminals; indentation stays."""
    return "".join(char for char in text.expandtabs(4) if char.isprintable())


def _said(told: Any) -> list[tuple[str, str]]:
    """Return labels and texts of a value: its messages, if it is made of those, else its fields, else all of it."""
    if told is None:
        return []
    messages = _messages(told)
    if messages:
        return [(str(one.get("role", "")), _text(one)) for one in messages]
    if isinstance(told, dict) and told:
        return [(str(name), _plain(value)) for name, value in told.items()]
    if isinstance(told, list) and told:
        return [(str(number), _plain(value)) for number, value in enumerate(told, 1)]
    return [("", _plain(told))]


def _messages(told: Any) -> list[dict[str, Any]]:
    found: Any = told
    if isinstance(told, dict):
        choices = told.get("choices")
        if isinstance(choices, list):
            found = [one.get("message") for one in choices if isinstance(one, dict)]
        else:
            found = told.get("messages")
    whole = isinstance(found, list) and all(isinstance(one, dict) and "role" in one for one in found)
    return list(found) if whole else []


def _text(message: dict[str, Any]) -> str:
    """Return a message as text: OpenAI's form, or that of the GenAI conventions."""
    content = message.get("content", message.get("parts"))
    parts = content if isinstance(content, list) else [content]
    told = [_part(part) for part in parts if part not in (None, "")]
    told += [_plain(call) for call in message.get("tool_calls") or ()]
    return "\n".join(told)


def _part(part: Any) -> str:
    if isinstance(part, dict):
        text = part.get("text", part.get("content"))
        if isinstance(text, str):
            return text
    return _plain(part)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(ask(lambda: orjson.dumps(value).decode(), default=value))


def _decoded(value: Any) -> Any:
    return ask(orjson.loads, value, default=value) if isinstance(value, str) else value
