"""Sets of examples as MLflow dataset inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from dspy_trace.export.source import source
from dspy_trace.guard import ask
from dspy_trace.values.jsonable import dumps

MOST: Final = 100_000
"""Examples that are looked at for digest and schema; of a larger set, every second, third and so on."""

_TYPES: Final[dict[type, str]] = {str: "string", bool: "boolean", int: "long", float: "double"}
_ANY: Final = "any"
"""MLflow's name for the type of what is nested, or of one kind here and of another there."""


def dataset(name: str, context: str, examples: Any) -> Callable[[], dict[str, Any]] | None:
    """Return what makes the record of a set, on our thread; ``None`` where it is no set.

    Args:
        name: what the program calls it. Example: ``devset``.
        context: what it is used for. Example: ``eval``.
        examples: the set.
    """
    items = ask(list, examples)
    return None if items is None else lambda: _told(name, context, items)


def _told(name: str, context: str, items: Sequence[Any]) -> dict[str, Any]:
    digest = hashlib.sha256(str(len(items)).encode())
    columns: dict[str, set[str]] = {}
    present: dict[str, int] = {}
    some = items[:: -(-len(items) // MOST) or 1]
    for item in some:
        fields = fields_of(item)
        digest.update(dumps(fields, 4_096).encode())
        for key, value in fields.items():
            columns.setdefault(key, set()).add(_TYPES.get(type(value), _ANY))
            present[key] = present.get(key, 0) + 1
    schema = [
        {"name": key, "type": next(iter(kinds)) if len(kinds) == 1 else _ANY, "required": present[key] == len(some)}
        for key, kinds in list(columns.items())[:1_000]
    ]
    profile = {"num_rows": len(items)} | ({"num_rows_read": len(some)} if len(some) < len(items) else {})
    place = ask(source, default={}).get("source", {})
    return {
        "name": name,
        "context": context,
        "digest": digest.hexdigest()[:16],
        "source_type": "code",
        "source": orjson.dumps({"tags": place}).decode(),
        "schema": orjson.dumps({"mlflow_colspec": schema}).decode(),
        "profile": orjson.dumps(profile).decode(),
    }


def fields_of(example: Any) -> dict[str, Any]:
    """Return the fields of an example, read without its code where it is DSPy's."""
    state = ask(vars, example, default={})
    store = state.get("_store") if isinstance(state, dict) else None
    if isinstance(store, dict):
        return {str(key): value for key, value in store.items()}
    return {str(key): value for key, value in example.items()} if type(example) is dict else {"value": example}


def inputs_of(example: Any) -> frozenset[str] | None:
    """Return the names of an example's inputs, if it says so."""
    names = ask(lambda: vars(example).get("_input_keys"))
    return frozenset(map(str, names)) if isinstance(names, set | frozenset | list | tuple) else None
