"""LMs as JSON data, and back: DSPy's own state of them, with the names of variables in place of keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.secrets import looks_secret
from dspy_trace_flavor.importing import resolve
from dspy_trace_flavor.providers import key_variable
from dspy_trace_flavor.untyped import untyped

_MARK = "_dspy_lm_class"
"""Where DSPy keeps the class in its state, from 3.4 on."""


def state_of(lm: Any) -> dict[str, Any] | None:
    """Return DSPy's state of an LM with its key; ``None`` where DSPy's state cannot be all of it."""
    dspy = untyped("dspy")

    cls = type(lm)
    # What a subclass keeps beside it, DSPy's own method knows nothing of.
    kept = next((base for base in cls.__mro__ if "dump_state" in base.__dict__), None)
    made = next((base for base in cls.__mro__ if "__init__" in base.__dict__), None)
    if kept is None or made is None or not (issubclass(kept, made) or (kept is dspy.LM and made is dspy.LM)):
        return None
    state = dict(lm.dump_state())
    state.pop(_MARK, None)
    if "api_key" in lm.kwargs and lm.kwargs["api_key"] is not None:
        state["api_key"] = lm.kwargs["api_key"]
    return state


def told(state: dict[str, Any], where: str, encode: Callable[..., Any]) -> dict[str, Any]:
    """Return the state of an LM as JSON data, and the variable that its key was in if it has none of its own."""
    needs = None
    if "api_key" not in state:
        variable = key_variable(_Named(state["model"]))
        needs = variable if variable is not None and os.environ.get(variable) else None
    told_state = {key: encode(value, f"{where}.{key}", named=looks_secret(key)) for key, value in state.items()}
    return {"needs": needs, "state": told_state}


class _Named:
    """A model as `key_variable` takes it."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.kwargs: dict[str, Any] = {}


def made(path: str, state: dict[str, Any]) -> Any:
    """Return the LM of a class and a state, without asking anything of it."""
    dspy = untyped("dspy")

    cls = resolve(path)
    state = {key: value for key, value in state.items() if not (value is None and looks_secret(key))}
    base = getattr(dspy, "BaseLM", dspy.LM)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise TypeError(f"{path} is no LM")
    load = ask(getattr, base, "load_state")
    if load is None:
        return cls(**state)
    return load({_MARK: f"{cls.__module__}.{cls.__qualname__}", **state}, allow_custom_lm_class=True)
