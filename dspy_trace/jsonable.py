"""Bounded JSON of any value.

Never raises, never runs the host's code where that can be avoided (no ``repr``, no property, no ``__eq__``, no
generator), never loops, and costs no more for a huge value than for one at the limit. What is cut is said in place,
and the result is valid JSON.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import hashlib
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import orjson

from dspy_trace.guard import ask
from dspy_trace.settings import LIMIT

MAX_DEPTH = 24
MAX_NODES = 20_000

_STRINGLIKE = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)
_OPTIONS = orjson.OPT_NON_STR_KEYS


def dumps(value: Any, limit: int = LIMIT, redact: Callable[[Any], Any] | None = None) -> str:
    """Return `value` as JSON text of at most `limit` characters; `redact` sees the plain value first.

    A `redact` that raises costs the value: better nothing than what was meant to be hidden.
    """
    if redact is None and _room_left(value, limit) > 0:
        text = _encode(value)
        if len(text) <= limit:
            return text
    budget = limit
    for _ in range(4):
        plain = _Walk(budget).plain(value, MAX_DEPTH)
        if redact is not None:
            plain = _Walk(budget).plain(ask(redact, plain, default="[redact failed]"), MAX_DEPTH)
        text = _encode(plain)
        if len(text) <= limit:
            return text
        # Escapes made it longer than the walk could know.
        budget = max(budget * limit // len(text) - 64, 0)
    return '"[cut]"' if limit >= len('"[cut]"') else "0"


def cut(text: str, limit: int = LIMIT) -> str:
    """Return `text` in at most `limit` characters, saying how many are missing."""
    if len(text) <= limit:
        return text
    note = f"… [cut: {len(text)} characters in all]"
    return text[: max(limit - len(note), 0)] + note if limit > len(note) else text[:limit]


def digest(data: bytes | bytearray | memoryview, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """Return what is told of binary content: its type, size in bytes and SHA-256."""
    return {"media_type": media_type, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _room_left(value: Any, room: int) -> int:
    """Return what is left of `room` after flat dicts of strings, or a list of them; anything else gives -1.

    Nearly all messages, inputs and outputs are of this shape, and need no walk.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(item) is not str or type(key) is not str or item.startswith("data:"):
                return -1
            room -= len(item) + len(key)
        return room
    if kind is list and len(value) <= 256:
        for item in value:
            room = _room_left(item, room) if type(item) is dict else -1
            if room <= 0:
                return -1
        return room
    return -1


def _encode(plain: Any) -> str:
    try:
        return orjson.dumps(plain, option=_OPTIONS).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_mended(plain), option=_OPTIONS).decode()


def _mended(plain: Any) -> Any:
    """Replace lone surrogates, which no UTF-8 text can hold."""
    if isinstance(plain, str):
        return plain.encode("utf-8", "replace").decode()
    if isinstance(plain, dict):
        return {_mended(key): _mended(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_mended(value) for value in plain]
    return plain


class _Walk:
    """One walk over a value, within a budget of characters and of nodes."""

    __slots__ = ("left", "nodes")

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.nodes = MAX_NODES

    def plain(self, value: Any, depth: int) -> Any:
        """Return `value` made of nothing but dicts, lists, strings, numbers, booleans and ``None``."""
        kind = type(value)
        if kind is str:
            return self.string(value)
        self.left -= 4
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**63 else self.string(_digits(value))
        if kind is float:
            return value if math.isfinite(value) else str(value)
        self.nodes -= 1
        if depth <= 0:
            return "[cut: too deep]"
        if kind is dict:
            return self.entries(value.items(), len(value), depth)
        if kind is list or kind is tuple:
            return self.items(value, len(value), depth)
        return ask(self.other, value, depth, default=f"<{kind.__name__}>")

    def string(self, value: str) -> Any:
        if value.startswith("data:") and ";base64," in value[:256]:
            return _data_url(value)
        left = max(self.left, 0)
        self.left -= len(value) + 2
        return value if len(value) <= left else cut(value, max(left, 48))

    def entries(self, pairs: Iterable[tuple[Any, Any]], size: int | None, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for count, (key, value) in enumerate(islice(pairs, MAX_NODES)):
            if self.left <= 0 or self.nodes <= 0:
                result["[cut]"] = f"{size - count} more entries" if size is not None else "more entries"
                break
            name = key if type(key) is str else _key(key)
            self.left -= len(name)
            result[name if len(name) <= 256 else cut(name, 256)] = self.plain(value, depth - 1)
        return result

    def items(self, values: Iterable[Any], size: int, depth: int) -> list[Any]:
        result: list[Any] = []
        for count, value in enumerate(islice(values, MAX_NODES)):
            if self.left <= 0 or self.nodes <= 0:
                result.append(f"[cut: {size - count} more items]")
                break
            result.append(self.plain(value, depth - 1))
        return result

    def other(self, value: Any, depth: int) -> Any:
        """Return the plain form of anything but the common types; may raise."""
        kind = type(value)
        if isinstance(value, enum.Enum):
            return self.plain(value._value_, depth - 1)
        if isinstance(value, str):
            return self.string(str.__str__(value))
        if isinstance(value, int):
            return self.plain(int.__int__(value), depth)
        if isinstance(value, float):
            return self.plain(float.__float__(value), depth)
        if isinstance(value, bytes | bytearray | memoryview):
            return digest(value)
        if isinstance(value, dict):
            return self.entries(dict.items(value), dict.__len__(value), depth)
        if kind in _STRINGLIKE or isinstance(value, pathlib.PurePath):
            return self.string(str(value))
        return self.collection(value, kind, depth)

    def collection(self, value: Any, kind: type, depth: int) -> Any:
        if isinstance(value, tuple) and isinstance(names := getattr(kind, "_fields", None), tuple):
            return self.entries(zip(names, tuple.__iter__(value), strict=False), len(names), depth)
        builtins: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
        for builtin in builtins:
            if isinstance(value, builtin):
                return self.items(builtin.__iter__(value), builtin.__len__(value), depth)
        if kind.__module__.partition(".")[0] == "numpy":
            return self.array(value, depth)
        fields = _fields(value, kind)
        if fields is not None:
            return self.entries(fields.items(), len(fields), depth)
        if isinstance(value, Mapping):
            return self.entries(((key, ask(value.get, key)) for key in value), None, depth)
        return _label(value, kind)

    def array(self, value: Any, depth: int) -> Any:
        if not getattr(value, "shape", ()):
            return self.plain(value.item(), depth - 1)
        return f"<numpy.ndarray shape={tuple(value.shape)} dtype={value.dtype}>"


def _fields(value: Any, kind: type) -> dict[str, Any] | None:
    """Return the declared fields of a data object (Example, pydantic, dataclass, attrs), read without its code."""
    state: dict[str, Any] = ask(object.__getattribute__, value, "__dict__", default={})
    if isinstance(store := state.get("_store"), dict):
        return store
    if "__pydantic_fields__" in vars(kind):
        return state
    declared = getattr(kind, "__dataclass_fields__", None) or [
        attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())
    ]
    if not declared:
        return None
    return {name: state.get(name) if name in state else ask(object.__getattribute__, value, name) for name in declared}


def _label(value: Any, kind: type) -> str:
    if isinstance(value, type):
        return f"<class {value.__module__}.{value.__qualname__}>"
    if isinstance(value, BaseException):
        return f"{kind.__qualname__}: {ask(str, value, default='')}"
    name = getattr(value, "__qualname__", None) if callable(value) else None
    return f"<{kind.__name__} {name}>" if isinstance(name, str) else f"<{kind.__module__}.{kind.__qualname__}>"


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, bool | float):
        return str(key)
    if isinstance(key, int):
        return _digits(int(key))
    return _label(key, type(key))


def _digits(value: int) -> str:
    # Python refuses to print integers of over 4,300 digits.
    text: str = ask(str, value, default=f"<int of {value.bit_length()} bits>")
    return text


def _data_url(value: str) -> Any:
    head, _, body = value.partition(",")
    return {
        "media_type": head[5:].partition(";")[0] or "text/plain",
        "size": len(body) * 3 // 4,
        "sha256": hashlib.sha256(body.encode("ascii", "replace")).hexdigest(),
    }
