"""What a chat message says, as MLflow's chat tab can show it: text, and images by their address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from dspy_trace.values.jsonable import dumps
from dspy_trace.values.media import BASE64, base64_digest, without_data
from dspy_trace.vocab.genai_messages import MOST_MESSAGES

_TEXTS: Final = frozenset({"text", "input_text", "output_text"})

_MEDIA: Final = {
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "video_url": "video",
    "file": "file",
}
"""Kinds of parts whose bytes are not told, by type."""


def content(told: Any) -> str | list[dict[str, Any]] | None:
    """Return the content of a message: text, or parts of which each is text or the address of an image."""
    if told is None:
        return None
    if isinstance(told, str) or not isinstance(told, Sequence):
        return text_of(told)
    return [_part(part) for part in islice(told, MOST_MESSAGES)]


def text_of(value: Any) -> str:
    """Return any content as text: what is no text as JSON, binary content by type, size and SHA-256."""
    return without_data(value) if isinstance(value, str) else dumps(value)


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        return _text_part(part)
    kind = part.get("type")
    if not isinstance(kind, str):
        return _text_part(part)
    if kind in _TEXTS and isinstance(text := part.get("text"), str):
        return _text_part(text)
    return _media(_MEDIA[kind], part.get(kind) or part.get("image_url")) if kind in _MEDIA else _text_part(part)


def _media(kind: str, body: Any) -> dict[str, Any]:
    file_id = None
    if isinstance(body, Mapping):
        data = body.get("data") or body.get("file_data")
        if isinstance(data, str) and BASE64 not in data:
            told = base64_digest(data, f"{kind}/{body.get('format') or '*'}")
            return _text_part(f"[{told['media_type']}: {told['size']} bytes, sha256 {told['sha256']}]")
        body, file_id = data or body.get("url"), body.get("file_id")
    if isinstance(body, str) and BASE64 not in body and kind == "image":
        return {"type": "image_url", "image_url": {"url": body}}
    return _text_part(body) if body is not None else _text_part(f"[{kind} {text_of(file_id)}]")


def _text_part(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": text_of(value)}
