"""What an older ``mlflow.dspy`` has pickled, as the DSPy that is installed makes it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.points.programs import modules_in
from dspy_trace_flavor.untyped import untyped

PICKLE = "data/model.pkl"
"""Where ``mlflow.dspy`` keeps its pickle, unless its flavor says otherwise."""


def unpickled(path: Path) -> Any:
    """Return what is in a pickle; what DSPy has moved since is found under its name in ``dspy``."""
    with path.open("rb") as file:
        return _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            found = ask(getattr, untyped("dspy"), name) if module.partition(".")[0] == "dspy" else None
            if not isinstance(found, type):
                raise
            return _of_plain(found) if issubclass(found, untyped("pydantic").BaseModel) else found


def _of_plain(cls: Any) -> Any:
    """Return what makes an object of a class of pydantic's from the attributes of a plain one, as tools once were."""

    class Plain(cls):  # type: ignore[misc]  # it has no type
        def __setstate__(self, state: dict[str, Any]) -> None:
            of_pydantic = {"__dict__": state, "__pydantic_fields_set__": set(state)}
            cls.__setstate__(self, state if "__dict__" in state else of_pydantic)
            object.__setattr__(self, "__class__", cls)

    return Plain


def renew(program: Any, settings: dict[str, Any]) -> None:
    """Give a program and its settings the attributes that this DSPy's objects have and those of an older one lack.

    A pickle holds the attributes of its time, and no constructor runs when it is loaded.
    """
    dspy = untyped("dspy")

    lms: list[Any] = [settings.get("lm")]
    for _, module in modules_in(program):
        _fill(module, ask(dspy.Module))
        if isinstance(module, dspy.Predict):
            _fill(module, ask(dspy.Predict, module.signature))
            lms.append(module.lm)
        for tool in _tools(module):
            _fill(tool, ask(tool.model_construct))
        if isinstance(module, dspy.ReAct):
            _renew_finish(module)
    for lm in lms:
        if isinstance(lm, dspy.LM):
            _fill(lm, ask(dspy.LM, lm.model))
    adapter = settings.get("adapter")
    if isinstance(adapter, dspy.Adapter):
        _fill(adapter, ask(type(adapter)))


def _tools(module: Any) -> list[Any]:
    dspy = untyped("dspy")

    held = vars(module).get("tools")
    found = list(held.values()) if isinstance(held, dict) else held if isinstance(held, list) else []
    return [tool for tool in found if isinstance(tool, dspy.Tool)]


def _renew_finish(module: Any) -> None:
    """Have the tool by which an agent ends run the code of this DSPy, which can be saved by its name."""
    fresh = ask(untyped("dspy").ReAct, module.signature, [])
    old, new = ask(lambda: module.tools["finish"]), ask(lambda: fresh.tools["finish"])
    if old is not None and new is not None and old.func.__module__ == new.func.__module__:
        old.func = new.func


def _fill(old: Any, new: Any) -> None:
    for name, value in vars(new).items() if new is not None else ():
        vars(old).setdefault(name, value)
