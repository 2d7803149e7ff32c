"""What is known of a whole program: where its modules are, and which version of it this is.

Made once per program and kept while it lives. DSPy's own ``named_sub_modules()`` is not used: it descends into the
history of every call made so far.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from typing import Any, Final

import orjson

from dspy_trace.guard import ask
from dspy_trace.values.fields import is_one_of
from dspy_trace.values.jsonable import dumps, mended
from dspy_trace.values.scalars import text

AGENTS = frozenset({"ReAct", "ReActV2", "CodeAct", "RLM", "Avatar"})
"""DSPy's modules that act as agents; their subclasses do too."""

MOST_MODULES = 10_000
_DEEPEST = 6
_NOT_PROGRAM = frozenset(
    {"history", "callbacks", "demos", "traces", "train", "lm", "signature", "candidate_programs"}
    | {"mb_candidate_programs", "trial_logs", "detailed_results"}
)
"""Attributes that hold no part of the program; the last are what optimizers leave on the program that they return."""


class Spot:
    """One module of a program: its path, and what is told of its class and signature."""

    __slots__ = (
        "_module",
        "agent",
        "cls",
        "demos",
        "demos_count",
        "is_dspys",
        "path",
        "signature",
        "signature_name",
        "signature_text",
    )

    def __init__(self, module: Any, path: str) -> None:
        self._module = ask(weakref.ref, module, default=lambda: None)
        self.path = text(path) or ""
        self.cls = type(module).__name__
        self.agent = is_agent(type(module))
        self.is_dspys = type(module).__module__.startswith("dspy.")
        self.demos: Any = None
        self.demos_count = 0
        self.signature: Any = None
        self.signature_text: str | None = None
        self.signature_name: str | None = None

    def is_of(self, module: Any) -> bool:
        """Return whether `module` is meant, and not another object that took over its ``id()``."""
        return self._module() is module

    def describe(self, signature: Any) -> None:
        """Keep the text of `signature`."""
        self.signature = signature
        self.signature_text, self.signature_name = signature_text(signature)

    def changed(self) -> bool:
        """Return whether the signature or the demos are others than when the version was made."""
        state = vars(module) if (module := self._module()) is not None else {}
        demos = state.get("demos")
        return (
            state.get("signature") is not self.signature
            or demos is not self.demos
            or (type(demos) is list and len(demos) != self.demos_count)
        )


class Program:
    """The modules of one outermost module, by ``id()``, since modules may be unhashable."""

    __slots__ = ("_module", "_predictors", "_spots", "version")

    def __init__(self, module: Any) -> None:
        self._module = ask(weakref.ref, module, default=lambda: None)
        self._spots: dict[int, Spot] = {}
        self._predictors: list[Spot] = []
        self.version: str | None = None
        self.walk(module)

    def is_of(self, module: Any) -> bool:
        return self._module() is module

    def walk(self, module: Any | None = None) -> None:
        """Find all modules anew."""
        module = module if module is not None else self._module()
        if module is not None:
            self._spots = {id(found): Spot(found, path) for path, found in modules_in(module)}
            self._predictors = []
            self.version = None

    def spot(self, module: Any) -> Spot | None:
        found = self._spots.get(id(module))
        return found if found is not None and found.is_of(module) else None

    def refresh(self, module: Any) -> None:
        """Make the version again if a predictor has changed since."""
        if self.version is None or any(spot.changed() for spot in self._predictors):
            predictors = predictors_of(module)
            self._predictors = [spot for _, found in predictors if (spot := self.spot(found)) is not None]
            for spot, (_, found) in zip(self._predictors, predictors, strict=False):
                state = vars(found)
                spot.describe(state.get("signature"))
                spot.demos = state.get("demos")
                spot.demos_count = len(spot.demos) if type(spot.demos) is list else 0
            self.version = version_of(predictors)


class View:
    """One outermost call's view of its program: looks for an unknown module at most once."""

    __slots__ = ("_walked", "program")

    def __init__(self, module: Any) -> None:
        self.program = program_of(module)
        self._walked = False

    def spot(self, module: Any) -> Spot | None:
        """Return what is known of `module`, or ``None`` where it is no part of the program."""
        found = self.program.spot(module)
        if found is None and not self._walked:
            self._walked = True
            self.program.walk()
            found = self.program.spot(module)
        return found


_programs: dict[int, Program] = {}

models: Final[dict[int, str]] = {}
"""MLflow's ids of the models that programs were loaded from, by the programs' own ``id()``."""


def loaded_from(program: Any, model_id: str) -> None:
    """Say which of MLflow's models a program was loaded from: traces of its calls are linked to it."""
    models[id(program)] = model_id
    weakref.finalize(program, models.pop, id(program), None).atexit = False


def program_of(module: Any) -> Program:
    """Return what is known of `module` as an outermost one."""
    key = id(module)
    program = _programs.get(key)
    if program is None or not program.is_of(module):
        program = Program(module)
        if program.is_of(module):
            _programs[key] = program
            weakref.finalize(module, _programs.pop, key, None).atexit = False
    return program


def modules_in(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield ``(path, module)`` for `module` itself (path ``""``) and every module that it holds, nearest first."""
    from dspy import Module

    seen = {id(module)}
    queue: list[tuple[str, Any]] = [("", module)]
    for path, found in queue:
        yield path, found
        for name, value in list(ask(vars, found, default={}).items()):
            # Names of other types are legal in ``vars(module)``, and nobody can mean them.
            if type(name) is str and name not in _NOT_PROGRAM:
                for inner_path, inner in _held(value, f"{path}.{name}" if path else name, Module, _DEEPEST):
                    if id(inner) not in seen and len(queue) < MOST_MODULES:
                        seen.add(id(inner))
                        queue.append((inner_path, inner))


def _held(value: Any, path: str, module_class: type, depth: int) -> Iterator[tuple[str, Any]]:
    kind = type(value)
    if issubclass(kind, module_class):
        yield path, value
    elif depth and (kind is list or kind is tuple):
        for index, item in enumerate(value[:MOST_MODULES]):
            yield from _held(item, f"{path}[{index}]", module_class, depth - 1)
    elif depth and kind is dict:
        for key, item in list(value.items())[:MOST_MODULES]:
            if type(key) in (str, int):
                yield from _held(item, f"{path}[{key!r}]", module_class, depth - 1)


def is_agent(cls: type) -> bool:
    return is_one_of(cls, AGENTS)


def predictors_of(program: Any) -> list[tuple[str, Any]]:
    """Return ``(path, predictor)`` for every predictor of a program."""
    return [(path, found) for path, found in modules_in(program) if _is_predictor(found)]


def _is_predictor(module: Any) -> bool:
    from dspy.predict.predict import Predict

    return issubclass(type(module), Predict)


def signature_text(signature: Any) -> tuple[str | None, str | None]:
    """Return a signature's fields, as ``question -> answer``, and the name of its class."""
    if isinstance(signature, str):
        return signature, None
    inputs = ask(getattr, signature, "input_fields")
    outputs = ask(getattr, signature, "output_fields")
    if not isinstance(inputs, dict) or not isinstance(outputs, dict):
        return None, None
    return f"{', '.join(inputs)} -> {', '.join(outputs)}", ask(getattr, signature, "__name__")


def version_of(predictors: list[tuple[str, Any]]) -> str:
    """Return the first 16 hex digits of a SHA-256 over canonical JSON of `predictors`, in order of path."""
    told = [_predictor(path, vars(module)) for path, module in sorted(predictors, key=lambda pair: pair[0])]
    try:
        canonical = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        canonical = orjson.dumps(mended(told), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()[:16]


def _predictor(path: str, state: dict[str, Any]) -> dict[str, Any]:
    signature = state.get("signature")
    fields = ask(getattr, signature, "fields", default=None)
    told = []
    for name, field in fields.items() if isinstance(fields, dict) else ():
        extra = ask(getattr, field, "json_schema_extra", default=None)
        extra = extra if isinstance(extra, dict) else {}
        annotation = ask(getattr, field, "annotation", default=None)
        kind = annotation.__qualname__ if type(annotation) is type else ask(str, annotation, default="")
        told.append([name, kind, extra.get("desc"), extra.get("__dspy_field_type")])
    demos = state.get("demos")
    return {
        "path": path,
        "instructions": ask(getattr, signature, "instructions", default=None),
        "fields": orjson.loads(dumps(told)),
        "demos": [orjson.loads(dumps(demo)) for demo in demos] if type(demos) is list else [],
    }
