"""Classes and functions by name: ``package.module:Outer.name``."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

LOCALS = "<locals>"


def path_of(thing: Any) -> str | None:
    """Return the name under which another process can import `thing`; ``None`` if it finds something else there."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    if name == "<lambda>":
        name = next((key for key, value in vars(sys.modules.get(module, types)).items() if value is thing), name)
    try:
        found = resolve(f"{module}:{name}")
    except (ImportError, AttributeError, ValueError):
        return None
    return f"{module}:{name}" if found is thing else None


def resolve(path: str) -> Any:
    """Import what a path names.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
        ValueError: the path is none.
    """
    module, colon, name = path.partition(":")
    if not module or not colon or not name or LOCALS in name:
        raise ValueError(f"{path!r} is no path of the form 'module:name'")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = found.__dict__[part] if isinstance(found, type) and part in found.__dict__ else getattr(found, part)
    return found


def nested_path(function: types.FunctionType) -> tuple[str, int] | None:
    """Return where the code of a function stands that was made inside an importable one, such as a tool's lambda.

    Returns:
        the outer function's path with the inner names, and which of the functions of that name it is.
    """
    outer, _, names = function.__qualname__.partition(f".{LOCALS}.")
    if not names or function.__module__ == "__main__":
        return None
    path = f"{function.__module__}:{outer}.{LOCALS}.{names}"
    try:
        codes = list(_codes(path))
    except (ImportError, AttributeError, ValueError):
        return None
    return next(((path, index) for index, code in enumerate(codes) if code == function.__code__), None)


def nested_function(
    path: str, index: int, defaults: tuple[Any, ...] | None, keywords: dict[str, Any] | None, cells: list[Any]
) -> types.FunctionType:
    """Make again what `nested_path` has found, with the values that it closed over."""
    code = list(_codes(path))[index]
    module = importlib.import_module(path.partition(":")[0])
    closure = tuple(types.CellType(value) for value in cells)
    made = types.FunctionType(code, vars(module), path.rpartition(".")[2], defaults, closure)
    made.__qualname__ = path.partition(":")[2]
    made.__kwdefaults__ = keywords
    return made


def _codes(path: str) -> Iterator[types.CodeType]:
    outer, *names = path.split(f".{LOCALS}.")
    function = resolve(outer)
    codes = [getattr(function, "__func__", function).__code__]
    for name in names:
        codes = [
            inner
            for code in codes
            for inner in code.co_consts
            if isinstance(inner, types.CodeType) and inner.co_name == name
        ]
    return iter(codes)
