"""JSON of what needs no walk, as nearly all messages, inputs and outputs need none: small, and made of texts alone."""

from __future__ import annotations

from typing import Any

import orjson

from dspy_trace.secrets.names import looks_secret
from dspy_trace.values.media import BASE64, BYTES

_TEXT = {str}
_MOST_SHAPES, _MOST_NAMES = 256, 16


class Plain:
    """What is known to be made of dicts, lists and texts alone, with no name in it of a secret's or of bytes.

    Args:
        value: that.
        size: characters of the texts in it that are the host's.
    """

    __slots__ = ("size", "value")

    def __init__(self, value: Any, size: int) -> None:
        self.value = value
        self.size = size


def quick(value: Any, limit: int) -> str | None:
    """Return the JSON of a small and simple value in at most `limit` characters, or ``None`` for any other."""
    try:
        if type(value) is Plain:
            small, value = value.size <= limit, value.value
        else:
            small = _is_small(value, limit)
        if not small:
            return None
        text = orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, RuntimeError):
        # A lone surrogate, or another thread is changing the value: the walk copes with both.
        return None
    return None if len(text) > limit or BASE64 in text else text


def _is_small(value: Any, room: int) -> bool:
    """Return whether `value` is made of dicts, lists and texts alone and fits into about `room` characters."""
    found = [value]
    for item in found:
        kind = type(item)
        if kind is dict:
            if len(item) > room or not _are_harmless(item):
                return False
            room -= sum(map(len, item)) + 4 * len(item)
            inner = item.values()
        elif kind is list:
            inner = item[: max(room, 0)]
        elif kind is str:
            inner = (item,)
        else:
            return False
        for part in inner:
            if type(part) is str:
                room -= len(part) + 4
            else:
                found.append(part)
        room -= 4
        if room <= 0:
            return False
    return True


_harmless: set[tuple[str, ...]] = set()
"""Names that have been found to be harmless together: nearly all dicts have the names of one before."""


def _are_harmless(names: dict[Any, Any]) -> bool:
    """Return whether all names are texts, and none of them a secret's or that of bytes."""
    if {*map(type, names)} != _TEXT:
        return not names
    shape = tuple(names)
    if shape in _harmless:
        return True
    if any(name in BYTES or looks_secret(name) for name in shape):
        return False
    if len(shape) <= _MOST_NAMES:
        if len(_harmless) >= _MOST_SHAPES:
            _harmless.clear()
        _harmless.add(shape)
    return True
