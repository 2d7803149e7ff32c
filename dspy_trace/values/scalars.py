"""Texts and numbers of the host's as ones that a span can hold: of the exact type, within bounds, sent by any exporter.

Decided by the type alone, and read without the code of a subclass.
"""

from __future__ import annotations

import math
from typing import Any

from dspy_trace.values.jsonable import cut_text

NAME_LIMIT = 1_024
"""Longest name, id or model, in characters."""


def text(value: Any, limit: int = NAME_LIMIT) -> str | None:
    """Return a text that UTF-8 can hold, cut to `limit` characters; ``None`` for anything else."""
    if type(value) is str and len(value) <= limit and value.isascii():
        return value
    return cut_text(value, limit) if issubclass(type(value), str) else None


def whole(value: Any) -> int | None:
    """Return a whole number of 64 bits; ``None`` for anything else, a bool included."""
    kind = type(value)
    if kind is not int:
        if kind is bool or not issubclass(kind, int):
            return None
        value = int.__int__(value)
    return value if -(2**63) <= value < 2**63 else None


def number(value: Any) -> float | None:
    """Return a finite number; ``None`` for anything else, a bool included."""
    kind = type(value)
    if kind is not float:
        value = float.__float__(value) if issubclass(kind, float) else whole(value)
    return float(value) if value is not None and math.isfinite(value) else None
