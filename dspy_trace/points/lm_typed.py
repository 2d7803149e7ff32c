"""Reads explicit requests of lm15's types (``dspy.lm15.Request``), in the words that OpenAI and all other calls use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CONFIG = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
)
_MEDIA = {"image": "image_url", "audio": "input_audio", "video": "video_url"}


def is_typed(request: Any) -> bool:
    """Return whether `request` is a ``Request`` of lm15's."""
    cls = type(request)
    return cls.__name__ == "Request" and cls.__module__.startswith("dspy._vendor.lm15.")


def parameters(request: Any) -> dict[str, Any]:
    """Return the parameters and tools of a request; the LM's own do not apply to it."""
    config = request.config
    told = {name: value for name in _CONFIG if (value := getattr(config, name)) is not None and value != ()}
    if config.reasoning is not None:
        told["reasoning_effort"] = config.reasoning.effort
    if request.tools:
        names = ("type", "name", "description", "parameters")
        told["tools"] = [{name: getattr(tool, name) for name in names if hasattr(tool, name)} for tool in request.tools]
    return told


def messages(request: Any) -> list[dict[str, Any]]:
    """Return the messages of a request, the system prompt first."""
    system = request.system
    parts = [] if isinstance(system, str) or not system else [part_of(part) for part in system]
    told = [{"role": "system", "content": parts or system}] if system else []
    return told + [read for message in request.messages for read in _read(message)]


def _read(message: Any) -> Iterator[dict[str, Any]]:
    content, calls, thoughts = [], [], []
    for part in message.parts:
        if part.type == "tool_result":
            result = [part_of(item) for item in part.content]
            texts = [item["text"] for item in result if item["type"] == "text"]
            told = "".join(texts) if len(texts) == len(result) else result
            yield {"role": "tool", "tool_call_id": part.id, "content": told}
        elif part.type == "tool_call":
            calls.append({"id": part.id, "function": {"name": part.name, "arguments": part.input}})
        elif part.type == "thinking":
            thoughts.append(part.text)
        else:
            content.append(part_of(part))
    if content or calls or thoughts:
        yield {
            "role": message.role,
            "content": content,
            "reasoning_content": "".join(thoughts),
            "tool_calls": calls,
        }


def part_of(part: Any) -> dict[str, Any]:
    """Return a part that is text, media, or of another kind."""
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if not hasattr(part, "media_type"):
        return {"type": part.type, "content": part}
    kind = _MEDIA.get(part.type, "file")
    if part.data is not None:
        return {"type": kind, kind: {"data": f"data:{part.media_type};base64,{part.data}"}}
    return {"type": kind, kind: {"url": part.url, "file_id": part.file_id or part.path}}
