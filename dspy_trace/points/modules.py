"""Reads calls of ``dspy.Module`` and of its subclasses, ``Predict`` included."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dspy_trace.facts import Fact, ModuleCall
from dspy_trace.points import Args, Kwargs, agents
from dspy_trace.points.programs import Spot, View, models
from dspy_trace.values.fields import is_one_of

DSPY_OWN_ARGUMENTS = frozenset({"signature", "new_signature", "demos", "config", "lm", "_trace"})
"""Keyword arguments that DSPy's modules take besides their inputs. ``config`` may hold an API key."""


_PREDICTIONS = frozenset({"Prediction", "FailedPrediction"})


class ModuleReader:
    """Reads a module call: where the module stands in its program, its inputs and its output."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        view: View = within.program if within is not None else View(instance)
        spot = view.spot(instance)
        if spot is None:
            spot = Spot(instance, "")
        state = vars(instance)
        signature = state.get("signature")
        if signature is not None and signature is not spot.signature:
            spot.describe(signature)
        if args or spot.is_dspys:
            kwargs = _inputs(instance, args, kwargs, spot.is_dspys)
        fact = ModuleCall(spot.cls, kwargs)
        fact.program = view
        if spot.agent:
            fact.agent = True
            fact.steps_before = agents.steps_before(kwargs)
        if signature is not None:
            fact.signature = spot.signature_text
            fact.signature_name = spot.signature_name
            demos = state.get("demos")
            if type(demos) is list:
                fact.demos = len(demos)
        if within is None:
            fact.outermost = True
            view.program.refresh(instance)
            fact.version = view.program.version
        else:
            fact.path = spot.path or None
        if models:
            fact.model_id = models.get(id(instance))
        return fact

    def end(self, fact: ModuleCall, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.output = prediction_in(result)
        if fact.agent and error is None:
            agents.read(fact, instance)


def without_trace(result: Any) -> Any:
    """Return what a module has returned itself: bootstrap tracing and GEPA make it ``(prediction, trace)``.

    A trace is a list of ``(predictor, inputs, prediction)``; any other pair is the program's own.
    """
    if type(result) is not tuple or len(result) != 2 or type(result[1]) is not list:
        return result
    first, steps = result
    is_trace = all(type(step) is tuple and len(step) == 3 for step in steps[:1])
    return first if is_trace and (steps or is_one_of(type(first), _PREDICTIONS)) else result


def prediction_in(result: Any) -> Any:
    """Return the output of a module."""
    result = without_trace(result)
    # Its fields are what is told of a Prediction.
    return vars(result)["_store"] if type(result).__module__ == "dspy.primitives.prediction" else result


def _inputs(module: Any, args: Args, kwargs: Kwargs, is_dspys: bool) -> Mapping[str, Any]:
    if is_dspys and not DSPY_OWN_ARGUMENTS.isdisjoint(kwargs):
        kwargs = {name: value for name, value in kwargs.items() if name not in DSPY_OWN_ARGUMENTS}
    if not args:
        return kwargs
    return {**dict(zip(_parameters(module, len(args)), args, strict=True)), **kwargs}


def _parameters(module: Any, count: int) -> list[str]:
    """Return names for `count` positional arguments of ``forward``, found without reading ``module.forward``.

    DSPy warns about that read from anywhere but its own ``__call__``.
    """
    forward = vars(module).get("forward")
    bound = forward is not None and hasattr(forward, "__self__")
    if forward is None:
        forward = inspect.getattr_static(type(module), "forward", None)
        bound = not isinstance(forward, staticmethod)
    code = getattr(getattr(forward, "__func__", forward), "__code__", None)
    names = list(code.co_varnames[int(bound) : code.co_argcount]) if code is not None else []
    return [names[index] if index < len(names) else f"args[{index}]" for index in range(count)]
