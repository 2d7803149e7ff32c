"""Values as MLflow can store them: plain JSON data, valid Unicode without NUL, numbers that fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from dspy_trace.vocab import mlflow_keys as keys

_DEEPEST: Final = 250
"""Levels of nesting that orjson writes, less a few."""

_TOKEN_KINDS: Final = (
    keys.INPUT_TOKENS,
    keys.OUTPUT_TOKENS,
    keys.TOTAL_TOKENS,
    keys.CACHE_READ_TOKENS,
    keys.CACHE_WRITE_TOKENS,
    keys.CACHE_WRITE_LONG_TOKENS,
)
_COSTS: Final = (keys.INPUT_COST, keys.OUTPUT_COST, keys.TOTAL_COST)


def text(value: str) -> str:
    """Return `value` without what no database takes: lone surrogates and NUL."""
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode()
    return value


def clean(value: Any) -> Any:
    """Return an attribute's value as plain JSON data. What JSON has no form for becomes text."""
    kind = type(value)
    if kind is str:
        return text(value)
    if kind is bool or value is None:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else str(value)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    return _clean_other(value)


def _clean_other(value: Any) -> Any:
    if isinstance(value, str):
        return text(str.__str__(value))
    if isinstance(value, bytes):
        return text(value.decode("utf-8", "replace"))
    if isinstance(value, int | float):
        return clean(int(value) if isinstance(value, int) else float(value))
    if isinstance(value, Mapping):
        return {text(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [clean(item) for item in value]
    return text(str(value))


def decoded(value: Any) -> Any:
    """Return an attribute's value; JSON text of a list or an object as what it says.

    MLflow reads such text so, whoever sends it by OTLP, and understands other instrumentations' messages by it.
    """
    if type(value) is not str or value[:1] not in ("[", "{") or value[-1:] not in ("]", "}"):
        return clean(value)
    try:
        told = orjson.loads(text(value))
        if value.count("[") + value.count("{") > _DEEPEST:
            orjson.dumps(told)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return clean(value)
    return clean(told) if "\\u0000" in value else told


def mlflow_decoded(value: Any) -> Any:
    """Return the value of an attribute that MLflow's own tracing wrote: it writes all of them as JSON text."""
    if type(value) is not str:
        return clean(value)
    try:
        told = orjson.loads(text(value))
    except orjson.JSONDecodeError:
        return text(value)
    return decoded(value) if isinstance(told, list | dict) else clean(told)


def usage(value: Any) -> dict[str, int] | None:
    """Return usage that MLflow can add up, else ``None``: it refuses the whole request over any other."""
    if not isinstance(value, dict):
        return None
    told = {key: value[key] for key in _TOKEN_KINDS if type(value.get(key)) is int and 0 <= value[key] < 2**53}
    return told if len(told) == sum(value.get(key) is not None for key in _TOKEN_KINDS) else None


def cost(value: Any) -> dict[str, float] | None:
    """Return a cost that MLflow can add up, else ``None``; the same."""
    if not isinstance(value, dict):
        return None
    told = {key: value[key] for key in _COSTS if type(value.get(key)) in (int, float) and math.isfinite(value[key])}
    return told if len(told) == sum(value.get(key) is not None for key in _COSTS) else None


def reads_as_json(value: str) -> bool:
    """Return whether MLflow would take `value` for JSON text of an object, a list or a string and unwrap it."""
    if value.lstrip()[:1] not in ("[", "{", '"'):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True
