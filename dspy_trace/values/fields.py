"""What data objects hold, read without running code of theirs."""

from __future__ import annotations

import types
from collections.abc import Collection
from typing import Any, Final

from dspy_trace.guard import ask

_UNSET: Final = object()

_OF_TOOLS: Final = ("name", "desc", "args")
"""What a ``dspy.Tool`` says of itself; the rest is how it is called."""


def is_one_of(cls: type, names: Collection[str]) -> bool:
    """Return whether it is one of DSPy's classes of these names, or derived from one; DSPy need not be imported."""
    return any(base.__name__ in names and base.__module__.startswith("dspy.") for base in cls.__mro__)


def is_tool(cls: type) -> bool:
    """Return whether it is DSPy's ``Tool`` or derived from it."""
    return is_one_of(cls, ("Tool",))


def declared(value: Any, kind: type) -> dict[str, Any] | None:
    """Return the declared fields of a data object (Example, pydantic, dataclass, attrs), read without its code."""
    state: dict[str, Any] = ask(object.__getattribute__, value, "__dict__", default={})
    if is_tool(kind):
        return {name: state[name] for name in _OF_TOOLS if state.get(name) is not None}
    if isinstance(store := state.get("_store"), dict):
        return store
    if "__pydantic_fields__" in vars(kind):
        extra = ask(object.__getattribute__, value, "__pydantic_extra__")
        return {**state, **extra} if extra else state
    names = getattr(kind, "__dataclass_fields__", None) or [
        attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())
    ]
    if not names:
        return None
    found = {name: state[name] if name in state else _slot(value, kind, name) for name in names}
    return {name: item for name, item in found.items() if item is not _UNSET}


def _slot(value: Any, kind: type, name: str) -> Any:
    """Return what a slot holds, if it holds something; a property is not asked: it would run."""
    slot = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    return ask(slot.__get__, value, kind, default=_UNSET) if type(slot) is types.MemberDescriptorType else _UNSET
