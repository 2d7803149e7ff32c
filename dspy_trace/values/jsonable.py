"""Bounded JSON of any value.

Never raises, never runs the host's code where that can be avoided (no ``repr``, no property, no ``__eq__``, no
generator), never loops, and costs no more for a huge value than for one at the limit. What is cut is said in place,
and the result is valid JSON.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import getitem
from typing import Any

import orjson

from dspy_trace.guard import ask
from dspy_trace.secrets import LONGEST, conceals, hide, hide_rest, scrub_end
from dspy_trace.settings import LIMIT
from dspy_trace.values.fields import declared
from dspy_trace.values.media import BASE64, data_url_digest, digest, without_data, without_media
from dspy_trace.values.quick import Plain, quick

MAX_DEPTH = 24
MAX_NODES = 20_000
_STRINGLIKE = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)


def dumps(value: Any, limit: int = LIMIT, redact: Callable[[Any], Any] | None = None) -> str:
    """Return `value` as JSON text of at most `limit` characters; `redact` sees the plain value first.

    A `redact` that raises costs the value: better nothing than what was meant to be hidden.
    """
    told = value
    if type(value) is Plain:
        value = value.value
    if redact is not None:
        value = ask(redact, _Walk(limit).plain(value, MAX_DEPTH), default="[redact failed]")
    else:
        text = quick(told, limit)
        if text is not None:
            return text
    budget, tries = limit, 0
    while budget > 0:
        text = _encode(_Walk(budget).plain(value, MAX_DEPTH))
        if len(text) <= limit:
            return text
        # Escapes and punctuation made it longer than the walk could know.
        tries += 1
        budget = budget * limit // len(text) * 15 // 16 if tries < 4 else budget // 2
    return '"[cut]"' if limit >= len('"[cut]"') else "0"


def cut(text: str, limit: int = LIMIT, size: int | None = None) -> str:
    """Return `text` in at most `limit` characters, saying how many there are; `size` if it is not all of them."""
    if len(text) <= limit and (size or 0) <= limit:
        return text
    text = scrub_end(text, limit)
    note = f"… [cut: {size or len(text)} characters in all]"
    return text[: max(limit - len(note), 0)] + note if limit > len(note) else text[:limit]


def cut_text(text: str, limit: int = LIMIT, hide: Callable[[str], str] | None = None) -> str:
    """Return text that is no JSON, such as an exception's, in at most `limit` characters that UTF-8 can hold.

    `hide` takes secrets out of what is about to be told.
    """
    enough = slice(limit + LONGEST + 1)
    start = str.__getitem__(text, enough)
    if BASE64 in start:
        text = without_data(str.__str__(text))
        start = text[enough]
    start = (hide or str)(start).encode("utf-8", "replace").decode()
    return cut(start, limit, str.__len__(text))


def _encode(plain: Any) -> str:
    try:
        return orjson.dumps(plain).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(mended(plain)).decode()


def mended(plain: Any) -> Any:
    """Replace lone surrogates in plain data, which no UTF-8 text can hold."""
    if isinstance(plain, str):
        return plain.encode("utf-8", "replace").decode()
    if isinstance(plain, dict):
        return {mended(key): mended(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [mended(value) for value in plain]
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
            return self.entries(without_media(value).items(), len(value), depth)
        if kind is list or kind is tuple:
            return self.items(value, len(value), depth)
        return ask(self.other, value, depth, default=f"<{kind.__name__}>")

    def string(self, value: str, size: int | None = None) -> Any:
        """Return a text, cut to what is left; `size` is its length where `value` is only its beginning."""
        left = max(self.left, 48)
        if value.find(BASE64, 0, left) >= 0:
            told = data_url_digest(value)
            if told is not None:
                self.left -= 160
                return told
            value = without_data(value)
        if len(value) <= left:
            self.left -= len(value) + 2
            return value
        self.left = 0
        return cut(value, left, size)

    def beginning(self, value: str, before: str = "") -> Any:
        """Return a text behind `before` without a copy of all of it, unless there is a data URL to tell of."""
        start = str.__getitem__(value, slice(max(self.left, 48) + LONGEST))
        text = before + (str.__str__(value) if BASE64 in start else start)
        return self.string(text, len(before) + str.__len__(value))

    def entries(self, pairs: Iterable[tuple[Any, Any]], size: int | None, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        try:
            for count, (key, value) in enumerate(pairs, 1):
                if self.left <= 0 or self.nodes <= 0:
                    result["[cut]"] = f"{size - count + 1} more entries" if size is not None else "more entries"
                    hide_rest(pairs)
                    break
                name = key if type(key) is str else self.key(key)
                self.left -= len(name)
                name = name if len(name) <= 256 else cut(name, 256)
                told = hide(name, value) if conceals(name, pairs) else value
                result[name if name not in result else f"{name} [{count}]"] = self.plain(told, depth - 1)
        except RuntimeError:
            result["[cut]"] = "changed while it was read"
        return result

    def key(self, key: Any) -> str:
        """Return a key as text: of anything but text, what its JSON would be."""
        plain = self.plain(key, 2)
        return plain if isinstance(plain, str) else _encode(plain)

    def items(self, values: Iterable[Any], size: int, depth: int) -> list[Any]:
        result: list[Any] = []
        for value in values:
            if self.left <= 0 or self.nodes <= 0:
                result.append(f"[cut: {size - len(result)} more items]")
                break
            result.append(self.plain(value, depth - 1))
        return result

    def other(self, value: Any, depth: int) -> Any:
        """Return the plain form of anything but the common types; may raise.

        Decided by the type alone: ``isinstance`` would ask a property of the value's.
        """
        kind = type(value)
        if issubclass(kind, enum.Enum):
            return self.plain(object.__getattribute__(value, "_value_"), depth - 1)
        if issubclass(kind, str):
            return self.beginning(value)
        if issubclass(kind, int):
            return self.plain(int.__int__(value), depth)
        if issubclass(kind, float):
            return self.plain(float.__float__(value), depth)
        if issubclass(kind, bytes | bytearray | memoryview):
            self.left -= 160
            return digest(value)
        if issubclass(kind, dict):
            return self.entries(dict.items(value), dict.__len__(value), depth)
        if kind in _STRINGLIKE or issubclass(kind, pathlib.PurePath):
            return self.string(str(value))
        return self.collection(value, kind, depth)

    def collection(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, tuple) and isinstance(names := getattr(kind, "_fields", None), tuple):
            return self.entries(zip(names, tuple.__iter__(value), strict=False), len(names), depth)
        builtins: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
        for builtin in builtins:
            if issubclass(kind, builtin):
                return self.items(builtin.__iter__(value), builtin.__len__(value), depth)
        if kind.__module__.partition(".")[0] == "numpy":
            return self.array(value, depth)
        fields = declared(value, kind)
        if fields is not None:
            return self.entries(without_media(fields).items(), len(fields), depth)
        if issubclass(kind, Mapping):
            return self.entries(((key, ask(getitem, value, key, default="[unreadable]")) for key in value), None, depth)
        if issubclass(kind, BaseException):
            return self.beginning(ask(str, value, default=""), f"{kind.__qualname__}: ")
        return self.string(_label(value, kind))

    def array(self, value: Any, depth: int) -> Any:
        if not getattr(value, "shape", ()):
            return self.plain(value.item(), depth - 1)
        return self.string(f"<numpy.ndarray shape={tuple(value.shape)} dtype={value.dtype}>")


def _label(value: Any, kind: type) -> str:
    if issubclass(kind, type):
        module, name = (type.__getattribute__(value, part) for part in ("__module__", "__qualname__"))
        return f"<class {module}.{name}>"
    name = ask(object.__getattribute__, value, "__qualname__") if callable(value) else None
    return f"<{kind.__name__} {name}>" if isinstance(name, str) else f"<{kind.__module__}.{kind.__qualname__}>"


def _digits(value: int) -> str:
    # Python refuses to print integers of over 4,300 digits, or takes forever.
    bits = value.bit_length()
    return str(value) if bits < 14_000 else f"<int of {bits} bits>"
