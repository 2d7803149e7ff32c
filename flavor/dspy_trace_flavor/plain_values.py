"""Values without identity as JSON data: dates, collections, functions, arrays, each by its own few parts."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import re
import types
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from dspy_trace.secrets import looks_secret
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.importing import nested_path, path_of
from dspy_trace_flavor.untyped import untyped

_TEXTS = (decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PurePath)
"""Classes whose values are made again from what ``str()`` gives."""

_TIMES = (datetime.datetime, datetime.date, datetime.time)
_CALLABLE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)

Encode = Callable[..., Any]


def told(value: Any, where: str, named: bool, encode: Encode) -> Any:
    """Return a value as JSON data, ``None`` where it is of no kind that is known here."""
    if isinstance(value, _CALLABLE):
        return _function(value, where, encode)
    for tell in (_scalar, _collection, _array):
        data = tell(value, where, named, encode)
        if data is not None:
            return data
    return None


def class_path(cls: type, where: str) -> str:
    """Return the name of a class.

    Raises:
        CannotSave: no other process can import it.
    """
    path = path_of(cls)
    if path is None:
        raise CannotSave(
            where,
            f"its class {cls.__module__}.{cls.__qualname__} cannot be imported in another process. Define it at the "
            "top of a module, and pass that module's file in code_paths; or save with format='cloudpickle'.",
        )
    return path


def _scalar(value: Any, where: str, named: bool, encode: Encode) -> Any:
    kind: Any = type(value)
    if issubclass(kind, enum.Enum):
        return {"$": "enum", "class": class_path(kind, where), "name": value.name}
    if kind in _TIMES:
        return {"$": "time", "class": kind.__name__, "value": value.isoformat(), "fold": getattr(value, "fold", 0)}
    if kind is datetime.timedelta:
        return {"$": "duration", "value": [value.days, value.seconds, value.microseconds]}
    home = kind.__module__.partition(".")[0]
    if issubclass(kind, _TEXTS) and home in ("decimal", "fractions", "uuid", "pathlib"):
        name = kind.__name__.removeprefix("Posix").removeprefix("Windows")
        return {"$": "text", "class": f"{home}:{name}", "value": encode(str(value), where, named=named)}
    if kind is complex:
        return {"$": "complex", "args": [value.real, value.imag]}
    if kind is range or kind is slice:
        return {"$": kind.__name__, "args": [value.start, value.stop, value.step]}
    if kind is re.Pattern:
        return {"$": "pattern", "pattern": encode(value.pattern, where), "flags": value.flags}
    return None


def _collection(value: Any, where: str, named: bool, encode: Encode) -> Any:
    kind = type(value)
    if kind in (tuple, set, frozenset, deque):
        items = sorted(value, key=repr) if kind in (set, frozenset) else list(value)
        if kind is tuple and len(items) == 2 and all(type(item) is str for item in items):
            # A header, as HTTP clients take them.
            data = [encode(items[0], where), encode(items[1], where, named=named or looks_secret(items[0]))]
        else:
            data = [encode(item, f"{where}[{index}]", named=named) for index, item in enumerate(items)]
        return {"$": kind.__name__, "items": data, **({"max": value.maxlen} if kind is deque else {})}
    if kind is OrderedDict or kind is defaultdict:
        pairs = [
            [encode(key, where), encode(item, f"{where}[{key!r}]", named=named or _is_named(key))]
            for key, item in value.items()
        ]
        factory = encode(value.default_factory, where) if kind is defaultdict else None
        return {"$": kind.__name__, "items": pairs, "factory": factory}
    return None


def _is_named(key: Any) -> bool:
    return type(key) is str and looks_secret(key)


def _array(value: Any, where: str, named: bool, encode: Encode) -> Any:
    if type(value).__module__ != "numpy":
        return None
    np = untyped("numpy")

    if not isinstance(value, np.generic | np.ndarray) or value.dtype.hasobject:
        return None
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    is_scalar = isinstance(value, np.generic)
    return {"$": "array", "dtype": value.dtype.str, "shape": list(value.shape), "data": data, "scalar": is_scalar}


def _function(value: Any, where: str, encode: Encode) -> Any:
    if isinstance(value, functools.partial):
        return {
            "$": "partial",
            "func": encode(value.func, f"{where}.func"),
            "args": [encode(one, f"{where}.args[{index}]") for index, one in enumerate(value.args)],
            "keywords": encode(value.keywords, f"{where}.keywords"),
        }
    if isinstance(value, types.MethodType):
        return {"$": "method", "of": encode(value.__self__, f"{where}.__self__"), "name": value.__name__}
    path = path_of(value)
    if path is not None:
        return {"$": "function", "path": path}
    found = nested_path(value) if isinstance(value, types.FunctionType) else None
    if found is None:
        raise CannotSave(
            where,
            f"the function {getattr(value, '__qualname__', value)!r} cannot be imported in another process. "
            "Define it at the top of a module, or save with format='cloudpickle'.",
        )
    names = value.__code__.co_freevars
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    return {
        "$": "nested",
        "path": found[0],
        "index": found[1],
        "defaults": encode(value.__defaults__, f"{where}.__defaults__"),
        "keywords": encode(value.__kwdefaults__, f"{where}.__kwdefaults__"),
        "cells": [
            encode(cell, f"{where}.{name}", named=looks_secret(name)) for name, cell in zip(names, cells, strict=True)
        ],
    }
