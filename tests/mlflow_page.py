"""What MLflow's page shows of a span: its chat tab, documents and tools, by the rules of its own TypeScript.

Written after ``model-trace-explorer/ModelTraceExplorer.utils.tsx`` and ``chat-utils/{openai,dspy}.ts`` of MLflow 3.17.
The tab appears only if both inputs and outputs parse, so that a message of a wrong form takes all others with it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

Row = dict[str, Any]


class Shown(NamedTuple):
    """One message of the chat tab; of each call the tool's name and its arguments as JSON."""

    role: str
    content: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    reasoning: str | None = None


def chat(row: Row) -> list[Shown] | None:
    """Return the messages of a span's chat tab, ``None`` where it has none."""
    attributes = row["attributes"]
    kind = attributes.get("mlflow.message.format")
    given = _conversation(attributes.get("mlflow.spanInputs"), kind)
    answered = _conversation(attributes.get("mlflow.spanOutputs"), kind)
    return given + answered if given and answered else None


def _conversation(told: Any, kind: str | None) -> list[Shown] | None:
    if isinstance(told, list) and told and all(_is_message(one) for one in told):
        return [_shown(one) for one in told]
    if kind == "dspy":
        return _of_dspy(told)
    messages = told.get("messages") if isinstance(told, dict) else None
    if isinstance(messages, list) and messages and all(_is_message(one) for one in messages):
        return [_shown(one) for one in messages]
    choices = told.get("choices") if isinstance(told, dict) else None
    if isinstance(choices, list) and choices:
        answers = [choice.get("message") if isinstance(choice, dict) else None for choice in choices]
        if all(_is_message(one) and not isinstance(one["content"], list) for one in answers):
            return [_shown(one) for one in answers]
    return None


def _of_dspy(told: Any) -> list[Shown] | None:
    """DSPy's form: the field markers become headings; tool calls in the prompt are not shown."""
    if isinstance(told, dict) and isinstance(told.get("messages"), list):
        return [Shown(one["role"], _text(one["content"])) for one in told["messages"]]
    if isinstance(told, list) and told and all(isinstance(one, str) for one in told):
        return [Shown("assistant", "\n".join(told))]
    return None


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system", "tool"):
        return False
    calls = message.get("tool_calls")
    if calls and not all(_is_call(call) for call in calls):
        return False
    content = message.get("content")
    return content is None or isinstance(content, str) or all(_is_part(part) for part in content)


def _is_call(call: Any) -> bool:
    function = call.get("function", {}) if isinstance(call, dict) else {}
    return isinstance(call, dict) and all(
        isinstance(text, str) for text in (call.get("id"), function.get("arguments"), function.get("name"))
    )


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    if part.get("type") == "text":
        return isinstance(part.get("text"), str)
    return part.get("type") == "image_url" and isinstance(part["image_url"].get("url"), str)


def _shown(message: Row) -> Shown:
    calls = tuple((call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ())
    return Shown(message["role"], _text(message.get("content")), calls, message.get("reasoning"))


def _text(content: Any) -> str | None:
    if not isinstance(content, list):
        return None if content is None else str(content)
    return "\n\n".join(
        part["text"] if part["type"] == "text" else f"![]({part['image_url']['url']})" for part in content
    )


def documents(row: Row) -> list[str] | None:
    """Return the texts that the page draws as documents, ``None`` where it draws plain JSON."""
    outputs = row["attributes"].get("mlflow.spanOutputs")
    retrieved = row["attributes"].get("mlflow.spanType") == "RETRIEVER" and isinstance(outputs, list) and outputs
    if not retrieved or not all(isinstance(one, dict) and "page_content" in one for one in outputs):
        return None
    return [one["page_content"] for one in outputs]


def tools(row: Row) -> list[str] | None:
    """Return the names of the tools that the page lists, ``None`` where one of them is in a form that it refuses."""
    offered = row["attributes"].get("mlflow.chat.tools")
    if not isinstance(offered, list) or not all(_is_tool(tool) for tool in offered):
        return None
    return [tool["function"]["name"] for tool in offered]


def _is_tool(tool: Any) -> bool:
    if tool.get("type") != "function" or "name" not in tool.get("function", {}):
        return False
    properties = (tool["function"].get("parameters") or {}).get("properties") or {}
    return all(isinstance(one.get("type", ""), str) for one in properties.values())


def preview(value: Any, role: str) -> str | None:
    """Return what the list of traces shows of a root's inputs or outputs, as MLflow's store cuts it."""
    if value is None:
        return None
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    messages = value.get("messages") if isinstance(value, dict) else None
    if messages:
        wanted = [one for one in messages if one.get("role") == role] or messages
        told = wanted[-1]["content"] or told
    return told if len(told) <= 1_000 else f"{told[:997]}..."
