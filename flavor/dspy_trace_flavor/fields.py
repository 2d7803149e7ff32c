"""What a program takes and gives, without running it: from its signature, its ``forward``, and what that returns."""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from dataclasses import dataclass
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.points.programs import modules_in
from dspy_trace_flavor.untyped import untyped

MISSING: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Field:
    """One input or output of a program."""

    name: str
    annotation: Any
    required: bool = True


def inputs(program: Any) -> list[Field]:
    """Return what a program takes, in order; nothing where it takes whatever it is given and has no signature."""
    dspy = untyped("dspy")

    method = next((found for name in ("forward", "aforward") if (found := _own(program, name)) is not None), None)
    parameters = list(inspect.signature(method).parameters.values())[1:] if method is not None else []
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if isinstance(program, dspy.Predict) or not named:
        signature = signature_of(program)
        return _of(signature.input_fields) if signature is not None else []
    hints = ask(typing.get_type_hints, method, default={})
    known = _known(program, "input_fields")
    return [Field(one.name, hints.get(one.name, known.get(one.name, Any)), one.default is MISSING) for one in named]


def takes_anything(program: Any) -> bool:
    """Return whether a program takes inputs that it does not name."""
    method = _own(program, "forward") or _own(program, "aforward")
    found = inspect.signature(method).parameters.values() if method is not None else ()
    return any(one.kind is one.VAR_KEYWORD for one in found)


def outputs(program: Any) -> list[Field] | None:
    """Return what a program gives, ``None`` where that cannot be known without running it."""
    signature = signature_of(program)
    if signature is not None:
        return _of(signature.output_fields)
    method = _own(program, "forward") or _own(program, "aforward")
    source = ask(inspect.getsource, method)
    tree = ask(ast.parse, textwrap.dedent(source)) if source else None
    if tree is None or not tree.body:
        return None
    assigned = {
        target.id: _called(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    returned = [_returned(program, node.value, assigned) for node in ast.walk(tree) if isinstance(node, ast.Return)]
    if not returned or any(found is None for found in returned):
        return None
    every = [found for found in returned if found is not None]
    common = set.intersection(*({field.name for field in found} for found in every))
    merged = {field.name: field for found in every for field in found}
    return [Field(field.name, field.annotation, field.required and field.name in common) for field in merged.values()]


def _returned(program: Any, node: ast.expr | None, assigned: dict[str, ast.Call | None]) -> list[Field] | None:
    call = assigned.get(node.id) if isinstance(node, ast.Name) else _called(node)
    if call is None:
        return None
    if ast.unparse(call.func) in ("dspy.Prediction", "Prediction"):
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            return None
        known = _known(program, "output_fields")
        return [Field(str(word.arg), known.get(str(word.arg), Any)) for word in call.keywords]
    path = ast.unparse(call.func)
    if not path.startswith("self."):
        return None
    module = dict(modules_in(program)).get(path.removeprefix("self.").removesuffix(".acall"))
    return outputs(module) if module is not None and module is not program else None


def _called(node: ast.expr | None) -> ast.Call | None:
    node = node.value if isinstance(node, ast.Await) else node
    return node if isinstance(node, ast.Call) else None


def signature_of(program: Any) -> Any:
    """Return the signature of one of DSPy's own modules: its own, or that of the one predictor that it is made of."""
    dspy = untyped("dspy")

    if not isinstance(program, dspy.Predict) and _own(program, "forward") is not None:
        return None
    for held in (program, getattr(program, "predict", None), getattr(program, "module", None)):
        signature = getattr(held, "signature", None)
        if isinstance(signature, type) and issubclass(signature, dspy.Signature):
            return signature
    inner = getattr(program, "module", None)
    if isinstance(inner, dspy.Module):
        return signature_of(inner)
    predictors = program.predictors()
    return predictors[0].signature if len(predictors) == 1 else None


def _own(program: Any, name: str) -> Any:
    """Return a method that the program's own classes define, not DSPy's."""
    for base in type(program).__mro__:
        if name in base.__dict__:
            return None if base.__module__.startswith("dspy.") else base.__dict__[name]
    return None


def _of(fields: dict[str, Any]) -> list[Field]:
    return [Field(name, field.annotation, field.is_required()) for name, field in fields.items()]


def _known(program: Any, kind: str) -> dict[str, Any]:
    """Return the types that the predictors of a program have for the names of fields."""
    known: dict[str, Any] = {}
    for predictor in program.predictors():
        for name, field in getattr(predictor.signature, kind).items():
            known.setdefault(name, field.annotation)
    return known
