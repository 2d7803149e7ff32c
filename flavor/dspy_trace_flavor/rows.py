"""Inputs as calls of a program, one or many; and what it gives as plain data."""

from __future__ import annotations

import datetime
import enum
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from dspy_trace.guard import ask, attempt
from dspy_trace_flavor.errors import BadInput
from dspy_trace_flavor.fields import Field
from dspy_trace_flavor.untyped import untyped

Row = dict[str, Any]


def rows_of(data: Any, taken: list[Field]) -> tuple[list[Row], bool]:
    """Return the calls that an input asks for, and whether it is one: a text, a dict, a frame of one row.

    Args:
        data: text, dict, list of either, DataFrame, Series or array.
        taken: the inputs of the program.

    Raises:
        BadInput: it is of another type, empty, or its columns are not the program's.
    """
    np = untyped("numpy")
    pd = untyped("pandas")

    if isinstance(data, pd.DataFrame):
        unnamed = not all(isinstance(name, str) for name in data.columns)
        items: list[Any] = data.to_numpy().tolist() if unnamed else data.to_dict(orient="records")
        items = [item[0] if unnamed and len(item) == 1 else item for item in items]
        single = len(items) == 1
    elif isinstance(data, pd.Series | np.ndarray):
        items, single = (data.tolist() if np.ndim(data) else [data.item()]), np.ndim(data) == 0
    elif isinstance(data, list | tuple):
        items, single = list(data), False
    elif isinstance(data, str | Mapping):
        items, single = [data], True
    else:
        raise BadInput(
            "an input must be a text, a dict, a list of either, a DataFrame, a Series or an array, "
            f"not {type(data).__name__}"
        )
    if not items:
        raise BadInput("the input is empty: give at least one row")
    return [_row(item, taken, index) for index, item in enumerate(items)], single


def _row(item: Any, taken: list[Field], index: int) -> Row:
    names = [field.name for field in taken]
    if isinstance(item, Mapping):
        row = {str(key): plain(value) for key, value in item.items()}
    elif isinstance(item, list | tuple) and len(names) > 1:
        if len(item) != len(names):
            raise BadInput(
                f"row {index} has {len(item)} values, and the program takes {len(names)}: {', '.join(names)}"
            )
        row = dict(zip(names, plain(list(item)), strict=True))
    elif names:
        row = {names[0]: plain(item[0] if isinstance(item, list) and len(item) == 1 else item)}
    else:
        raise BadInput(f"row {index} must be a dict with the names of the program's inputs, not {type(item).__name__}")
    if not taken:
        return row
    lacking = [field.name for field in taken if field.required and row.get(field.name) is None and not _none(field)]
    if lacking:
        raise BadInput(f"row {index} lacks {lacking[0]!r}: the program takes {', '.join(names)}")
    known = {field.name: field for field in taken}
    return {
        name: _typed(value, known[name].annotation, name, index) if name in known else value
        for name, value in row.items()
        if not (value is None and name in known and not known[name].required)
    }


def _none(field: Field) -> bool:
    return field.annotation is Any or type(None) in get_args(field.annotation)


def plain(value: Any) -> Any:
    """Return a value without the types that pandas and numpy have put it into."""
    np = untyped("numpy")
    pd = untyped("pandas")

    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    if value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if type(value) is dict else value


def _typed(value: Any, annotation: Any, name: str, index: int) -> Any:
    """Return a value as the type that the program asks for, where JSON has no such type."""
    if value is None or annotation in (Any, str, bool, int, float, list, dict):
        return value
    if isinstance(annotation, type) and isinstance(value, annotation):
        return value
    if get_origin(annotation) in (Union, types.UnionType) and isinstance(value, str) and str in get_args(annotation):
        return value
    pydantic = untyped("pydantic")

    adapter = ask(pydantic.TypeAdapter, annotation)
    if adapter is None:
        return value
    made, error = attempt(adapter.validate_python, value)
    if error is not None:
        made, error = attempt(annotation, value) if isinstance(annotation, type) else (None, error)
    if error is not None:
        told = getattr(annotation, "__name__", None) or annotation
        raise BadInput(f"row {index}: {name!r} cannot be read as {told}: {str(error).splitlines()[0]}") from error
    return made


def output(value: Any) -> Any:
    """Return what a program gave as plain data: JSON's types, dates and bytes."""
    dspy = untyped("dspy")

    if isinstance(value, dspy.Example):
        return {key: output(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return output(value.value)
    if value is None or isinstance(value, bool | int | float | str | datetime.date | bytes):
        return value
    if isinstance(value, Mapping):
        return {str(output(key)): output(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [output(item) for item in value]
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return output(ask(dump, default=str(value)))
    found = ask(plain, value)
    return found if found is not value else str(value)
