"""Types of fields as JSON data, and back: classes by name, generics by their parts."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from dspy_trace_flavor.errors import CannotLoad, CannotSave
from dspy_trace_flavor.importing import path_of, resolve

Encode = Callable[[Any, str], Any]
Decode = Callable[[Any], Any]


def told(annotation: Any, where: str, encode: Encode) -> Any:
    """Return a type as JSON data.

    Args:
        annotation: the type.
        where: path of the field, for errors.
        encode: encodes values, such as those of a ``Literal``.

    Raises:
        CannotSave: the type cannot be named, such as a class of ``__main__``.
    """
    if annotation is None or annotation is type(None):
        return {"none": True}
    if annotation is ...:
        return {"ellipsis": True}
    if isinstance(annotation, list):
        return {"list": [told(one, where, encode) for one in annotation]}
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"literal": [encode(value, where) for value in args]}
    if origin is Annotated:
        return {"annotated": told(args[0], where, encode), "with": [encode(one, where) for one in args[1:]]}
    if origin is Union or origin is types.UnionType:
        kind = "union" if origin is Union else "either"
        return {kind: [told(one, where, encode) for one in args]}
    if origin is not None:
        name = getattr(annotation, "_name", None)
        outer = f"typing:{name}" if isinstance(name, str) and hasattr(typing, name) else told(origin, where, encode)
        return {"of": outer, "args": [told(one, where, encode) for one in args]}
    if getattr(annotation, "__module__", None) == "typing" and (name := _typing_name(annotation)):
        return f"typing:{name}"
    path = path_of(annotation)
    if path is None:
        raise CannotSave(
            where,
            f"its type {annotation!r} cannot be imported in another process. Define it at the top of a module, "
            "and pass that module's file in code_paths if it is not installed.",
        )
    return path.removeprefix("builtins:")


def _typing_name(annotation: Any) -> str | None:
    name = getattr(annotation, "_name", None) or getattr(annotation, "__name__", None)
    return name if isinstance(name, str) and getattr(typing, name, None) is annotation else None


def meant(data: Any, decode: Decode) -> Any:
    """Return the type that :func:`told` has told of."""
    if isinstance(data, str):
        return resolve(data if ":" in data else f"builtins:{data}")
    if not isinstance(data, dict):
        raise CannotLoad(f"{data!r} is no type")
    if "none" in data:
        return type(None)
    if "ellipsis" in data:
        return ...
    if "list" in data:
        return [meant(one, decode) for one in data["list"]]
    if "literal" in data:
        return Literal[tuple(decode(value) for value in data["literal"])]
    if "annotated" in data:
        annotated: Any = Annotated
        return annotated.__class_getitem__((meant(data["annotated"], decode), *map(decode, data["with"])))
    if "union" in data:
        return Union[tuple(meant(one, decode) for one in data["union"])]  # noqa: UP007  # what it was
    if "either" in data:
        first, *rest = (meant(one, decode) for one in data["either"])
        for one in rest:
            first = first | one
        return first
    args = tuple(meant(one, decode) for one in data["args"])
    return meant(data["of"], decode)[args if len(args) != 1 else args[0]]
