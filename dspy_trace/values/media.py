"""What is told of images, audio and files: type, size and SHA-256, never the bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from dspy_trace.guard import ask

BASE64 = ";base64,"
"""What every data URL of binary content has in it."""

_DATA_URL = re.compile(r"data:([^;,\s]{0,100})(?:;[^;,\s]{0,100}){0,3};base64,([A-Za-z0-9+/=_-]*)")
BYTES = frozenset(("data", "file_data", "b64_json"))
"""Names of binary content in base64: of audio and images, beside what it is; of OpenAI's files and made images."""

_HINTS = ("format", "audio_format", "media_type", "mime_type", "mimeType")


def digest(data: bytes | bytearray | memoryview, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """Return what is told of binary content: its type, size in bytes and SHA-256."""
    view = memoryview(data)
    sha256 = hashlib.sha256(view if view.c_contiguous else view.tobytes()).hexdigest()
    return {"media_type": media_type, "size": view.nbytes, "sha256": sha256}


def base64_digest(text: str, media_type: str) -> dict[str, Any]:
    """Return what is told of binary content that is given in base64."""
    return digest(ask(base64.b64decode, text, default=None) or text.encode("utf-8", "replace"), media_type)


def data_url_digest(text: str) -> dict[str, Any] | None:
    """Return what is told of a text that is one data URL in base64, else ``None``."""
    url = _DATA_URL.fullmatch(text) if text.startswith("data:") else None
    return base64_digest(url[2], url[1] or "text/plain") if url is not None else None


def without_data(text: str) -> str:
    """Return `text` with type, size and SHA-256 in place of each data URL in it."""
    return _DATA_URL.sub(_told_of, text) if BASE64 in text else text


def without_media(entries: dict[Any, Any]) -> dict[Any, Any]:
    """Return entries that hold binary content in base64, such as an audio's, with its digest in place of it."""
    return ask(_with_digest, entries, default=entries) if len(entries) <= 8 else entries


def _told_of(url: re.Match[str]) -> str:
    told = base64_digest(url[2], url[1] or "text/plain")
    return f"[{told['media_type']}: {told['size']} bytes, sha256 {told['sha256']}]"


def _with_digest(entries: dict[Any, Any]) -> dict[Any, Any]:
    # Looking them up would compare them with keys of other types, by their own code.
    names = [key for key in entries if type(key) is str and key in BYTES]
    if not names:
        return entries
    texts = {key: value for key, value in entries.items() if type(key) is str and type(value) is str}
    hint = next((texts[name] for name in _HINTS if name in texts), None)
    if names[0] != "data":
        hint = hint or "application/octet-stream"
    if hint is None or len(texts.get(names[0], "")) < 32:
        return entries
    return {**entries, names[0]: digest(base64.b64decode(texts[names[0]], validate=True), hint)}
