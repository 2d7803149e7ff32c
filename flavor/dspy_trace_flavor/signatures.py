"""DSPy signatures as JSON data, and back: instructions, and each field with its type and descriptions."""

from __future__ import annotations

from typing import Any

from dspy_trace.guard import ask
from dspy_trace_flavor import field_types
from dspy_trace_flavor.field_types import Decode, Encode
from dspy_trace_flavor.importing import path_of, resolve
from dspy_trace_flavor.untyped import untyped

_KIND = "__dspy_field_type"
_PLAIN = ("title", "description", "examples")


def told(signature: Any, where: str, encode: Encode) -> dict[str, Any]:
    """Return a signature class as JSON data."""
    return {
        "class": path_of(signature),
        "name": signature.__name__,
        "instructions": encode(signature.instructions, f"{where}.instructions"),
        "fields": [field_told(name, field, f"{where}.{name}", encode) for name, field in signature.fields.items()],
    }


def field_told(name: str, field: Any, where: str, encode: Encode) -> dict[str, Any]:
    """Return a field of a signature as JSON data."""
    extra = dict(field.json_schema_extra or {})
    entry: dict[str, Any] = {
        "name": name,
        "kind": extra.pop(_KIND, None),
        "type": field_types.told(field.annotation, where, encode),
        "extra": {key: encode(value, f"{where}.{key}") for key, value in extra.items()},
    }
    for key in _PLAIN:
        if getattr(field, key, None) is not None:
            entry[key] = encode(getattr(field, key), f"{where}.{key}")
    if not field.is_required():
        factory = field.default_factory
        entry["factory" if factory else "default"] = encode(factory or field.default, f"{where}.default")
    if field.metadata:
        entry["metadata"] = [encode(one, f"{where}.metadata") for one in field.metadata]
    return entry


def meant(data: dict[str, Any], encode: Encode, decode: Decode) -> Any:
    """Return the signature class that :func:`told` has told of: the class of that name, if it is still the same."""
    if data["class"] is not None:
        found = ask(resolve, data["class"])
        if found is not None and ask(told, found, "signature", encode) == data:
            return found
    dspy = untyped("dspy")

    fields = {
        entry["name"]: (field_types.meant(entry["type"], decode), field_meant(entry, decode))
        for entry in data["fields"]
    }
    return dspy.Signature(fields, decode(data["instructions"]), data["name"])


def field_meant(entry: dict[str, Any], decode: Decode) -> Any:
    """Return the field that :func:`field_told` has told of."""
    pydantic = untyped("pydantic")

    extra = {key: decode(value) for key, value in entry["extra"].items()}
    given = {key: decode(entry[key]) for key in (*_PLAIN, "default") if key in entry}
    if "factory" in entry:
        given["default_factory"] = decode(entry["factory"])
    field = pydantic.Field(**given, json_schema_extra={**extra, _KIND: entry["kind"]})
    field.annotation = field_types.meant(entry["type"], decode)
    field.metadata = [decode(one) for one in entry.get("metadata", ())]
    return field
