"""MLflow's signature of a program: columns for its fields, and the parameters of a call."""

from __future__ import annotations

import datetime
import enum
import json
import types
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

_SIMPLE = {
    **{str: "string", bool: "boolean", int: "long", float: "double"},
    **{datetime.datetime: "datetime", bytes: "binary"},
}
_ANY = {"type": "any"}


def told(program: Any) -> dict[str, str] | None:
    """Return a program's signature as MLflow's file of a model has it; made without MLflow.

    Returns:
        ``None`` where the program takes inputs that it does not name.
    """
    taken = fields.inputs(program)
    if not taken:
        return None
    given = fields.outputs(program)
    columns = {"inputs": _columns(taken), **({"outputs": _columns(given)} if given else {})}
    columns["params"] = [
        {"name": name, "type": kind, "default": default, "shape": None} for name, kind, default in PARAMETERS
    ]
    return {name: json.dumps(value) for name, value in columns.items()}


def infer(program: Any) -> Any:
    """Return MLflow's ``ModelSignature`` of a program, ``None`` likewise."""
    from mlflow.models import ModelSignature

    made = told(program)
    return ModelSignature.from_dict(made) if made is not None else None


def check(signature: Any, program: Any) -> None:
    """Refuse a signature that does not fit the program.

    Raises:
        CannotSave: it has inputs that the program does not take, or lacks some that it needs.
    """
    from mlflow.models import ModelSignature

    if not isinstance(signature, ModelSignature):
        raise CannotSave("signature", f"it must be one of MLflow's, a ModelSignature, not {type(signature).__name__}")
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


def _columns(found: Iterable[Field]) -> list[dict[str, Any]]:
    columns = []
    for field in found:
        kind, optional = _kind(field.annotation)
        columns.append({**kind, "name": field.name, "required": field.required and not optional and kind != _ANY})
    return columns


def _kind(annotation: Any, depth: int = 0) -> tuple[dict[str, Any], bool]:
    """Return MLflow's type for a field's, and whether the field may be missing."""
    simple = _SIMPLE.get(annotation) if isinstance(annotation, type) else None
    if simple is not None:
        return {"type": simple}, False
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Union or origin is types.UnionType:
        some = [one for one in args if one is not type(None)]
        kind = _kind(some[0], depth)[0] if len(some) == 1 else _ANY
        return kind, len(some) < len(args)
    if origin is Literal and len({type(one) for one in args}) == 1:
        return _kind(type(args[0]), depth)[0], False
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _kind(type(next(iter(annotation)).value), depth)[0], False
    if origin in (list, set, frozenset) and len(args) == 1 and depth < 4:
        inner, _ = _kind(args[0], depth + 1)
        return (_ANY if inner == _ANY else {"type": "array", "items": inner}), False
    if origin is dict and args[:1] == (str,) and depth < 4:
        inner, _ = _kind(args[-1], depth + 1)
        return (_ANY if inner == _ANY else {"type": "map", "values": inner}), False
    return _of_model(annotation, depth) or _ANY, False


def _of_model(annotation: Any, depth: int) -> dict[str, Any] | None:
    dspy = untyped("dspy")
    pydantic = untyped("pydantic")

    plain = isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)
    if not plain or issubclass(annotation, getattr(dspy, "Type", ())) or annotation is dspy.Image or depth > 3:
        return None
    properties = {}
    for name, field in annotation.model_fields.items():
        kind, optional = _kind(field.annotation, depth + 1)
        if kind == _ANY:
            return None
        properties[name] = {**kind, "required": field.is_required() and not optional}
    return {"type": "object", "properties": properties} if properties else None


def chat() -> Any:
    """Return MLflow's ``ModelSignature`` of the chat task."""
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    return ModelSignature(inputs=CHAT_MODEL_INPUT_SCHEMA, outputs=CHAT_MODEL_OUTPUT_SCHEMA)
