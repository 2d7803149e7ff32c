"""MLflow's signature of a program: columns for its fields, and the parameters of a call."""

from __future__ import annotations

import datetime
import enum
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin

from dspy_trace_flavor import fields
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.fields import Field
from dspy_trace_flavor.untyped import untyped

PARAMETERS = (
    ("on_error", "string", "raise"),
    ("num_threads", "long", 8),
    ("include_final_prediction", "boolean", False),
)
"""What a call takes beside its inputs: name, MLflow's type, default."""


def infer(program: Any) -> Any:
    """Return MLflow's ``ModelSignature`` of a program; ``None`` where it takes inputs that it does not name."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema

    taken = fields.inputs(program)
    if not taken:
        return None
    given = fields.outputs(program)
    parameters = ParamSchema([ParamSpec(*one) for one in PARAMETERS])
    return ModelSignature(
        inputs=Schema(list(_columns(taken))),
        outputs=Schema(list(_columns(given))) if given else None,
        params=parameters,
    )


def check(signature: Any, program: Any) -> None:
    """Refuse a signature that does not fit the program.

    Raises:
        CannotSave: it has inputs that the program does not take, or lacks some that it needs.
    """
    taken = fields.inputs(program)
    columns = (
        signature.inputs.input_names() if signature.inputs is not None and signature.inputs.has_input_names() else None
    )
    if signature.inputs is None or not signature.inputs.inputs:
        raise CannotSave("signature", "its input schema must have at least one field")
    if columns is None or not taken:
        return
    names = [field.name for field in taken]
    unknown = [name for name in columns if name not in names]
    lacking = [field.name for field in taken if field.required and field.name not in columns]
    if (unknown and not fields.takes_anything(program)) or lacking:
        raise CannotSave(
            "signature",
            f"it does not fit the program, which takes {', '.join(names)}: "
            f"{f'it has {unknown[0]!r} as well' if unknown else f'it lacks {lacking[0]!r}'}. "
            "Leave signature= out to have it made from the program.",
        )


def _columns(found: Iterable[Field]) -> typing.Iterator[Any]:
    from mlflow.types import ColSpec
    from mlflow.types.schema import AnyType

    for field in found:
        kind, optional = _kind(field.annotation)
        required = field.required and not optional and not isinstance(kind, AnyType)
        yield ColSpec(type=kind, name=field.name, required=required)


def _kind(annotation: Any, depth: int = 0) -> tuple[Any, bool]:
    """Return MLflow's type for a field's, and whether the field may be missing."""
    from mlflow.types.schema import AnyType, Array, DataType, Map

    any_type: Any = AnyType  # it has no types
    simple = {str: DataType.string, bool: DataType.boolean, int: DataType.long, float: DataType.double}
    simple |= {datetime.datetime: DataType.datetime, bytes: DataType.binary}
    if annotation in (str, bool, int, float, datetime.datetime, bytes):
        return simple[annotation], False
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Union or origin is types.UnionType:
        some = [one for one in args if one is not type(None)]
        kind = _kind(some[0], depth)[0] if len(some) == 1 else any_type()
        return kind, len(some) < len(args)
    if origin is Literal and len({type(one) for one in args}) == 1:
        return _kind(type(args[0]), depth)[0], False
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _kind(type(next(iter(annotation)).value), depth)[0], False
    if origin in (list, set, frozenset) and len(args) == 1 and depth < 4:
        inner, _ = _kind(args[0], depth + 1)
        return (any_type() if isinstance(inner, AnyType) else Array(inner)), False
    if origin is dict and args[:1] == (str,) and depth < 4:
        inner, _ = _kind(args[-1], depth + 1)
        return (any_type() if isinstance(inner, AnyType) else Map(inner)), False
    return _of_model(annotation, depth) or any_type(), False


def _of_model(annotation: Any, depth: int) -> Any:
    dspy = untyped("dspy")
    pydantic = untyped("pydantic")
    from mlflow.types.schema import AnyType, Object, Property

    plain = isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)
    if not plain or issubclass(annotation, getattr(dspy, "Type", ())) or annotation is dspy.Image or depth > 3:
        return None
    properties = []
    for name, field in annotation.model_fields.items():
        kind, optional = _kind(field.annotation, depth + 1)
        if isinstance(kind, AnyType):
            return None
        properties.append(Property(name, kind, required=field.is_required() and not optional))
    return Object(properties) if properties else None


def chat() -> Any:
    """Return MLflow's ``ModelSignature`` of the chat task."""
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    return ModelSignature(inputs=CHAT_MODEL_INPUT_SCHEMA, outputs=CHAT_MODEL_OUTPUT_SCHEMA)
