"""Reads evaluations, their examples and compiles."""

from __future__ import annotations

import inspect
import itertools
import types
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from dspy_trace.facts import Compilation, Evaluation, ExampleRun, Fact, ModuleCall, Rewarded
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs, Notes
from dspy_trace.points.modules import without_trace
from dspy_trace.settings import LIMIT
from dspy_trace.values.scalars import number, text

_OPTIONS = ("max_errors", "failure_score")


class EvaluateReader:
    """Reads ``Evaluate.__call__(program, metric, devset, ...)``."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        program = args[0] if args else kwargs.get("program")
        metric = _argument(instance, args, kwargs, 1, "metric")
        devset = _argument(instance, args, kwargs, 2, "devset")
        fact = Evaluation(type(program).__name__, metric_name(metric), ask(len, devset))
        threads = _argument(instance, args, kwargs, 3, "num_threads")
        fact.threads = threads if type(threads) is int else None
        fact.subject, fact.devset = program, devset
        metadata = _argument(instance, args, kwargs, 6, "callback_metadata")
        fact.metadata = metadata if isinstance(metadata, dict) else {}
        fact.options = {name: ask(getattr, instance, name) for name in _OPTIONS}
        return fact

    def end(self, fact: Evaluation, instance: Any, result: Any, error: BaseException | None) -> None:
        # Before DSPy 3 the result is the score itself, or a tuple that begins with it.
        score = result[0] if isinstance(result, tuple) and result else result
        fact.score = as_score(score)


def _argument(evaluate: Any, args: Args, kwargs: Kwargs, position: int, name: str) -> Any:
    given = args[position] if len(args) > position else kwargs.get(name)
    return given if given is not None else ask(getattr, evaluate, name)


def metric_name(metric: Any) -> str | None:
    """Return the name of a metric: a function's own, else its class's."""
    if metric is None:
        return None
    if isinstance(metric, types.FunctionType | types.MethodType):
        return metric.__name__
    return type(metric).__name__


def as_score(value: Any) -> float | None:
    """Return what a metric gave as a number: a bool, a number of any kind, or an object that has a ``score``."""
    kind = type(value)
    if kind is not float and issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, int | float):
        return as_number(value)
    return as_number(ask(getattr, value, "score", default=value))


def as_number(value: Any) -> float | None:
    return ask(float, value) if value is not None and not isinstance(value, str) else None


_rounds = itertools.count()


class ExampleReader:
    """Reads the items that an evaluation or an optimizer runs, each of which is a trace of its own.

    An item is passed on as it is, and one object may stand in a set several times: positions are kept by identity.
    """

    def __init__(self, around: Evaluation | Compilation, items: Sequence[Any], subject: Any = None) -> None:
        self._around = around
        self._subject = subject
        self._round = next(_rounds)
        ids = [id(item) for item in items]
        self._first = dict(zip(reversed(ids), range(len(ids) - 1, -1, -1), strict=True))
        self._more: defaultdict[int, deque[int]] = defaultdict(deque)
        self._last: dict[int, int] = {}
        if len(self._first) < len(ids):
            for position, key in enumerate(ids):
                if self._first[key] != position:
                    self._more[key].append(position)

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        item = args[0]
        fact = ExampleRun(self._program(item), self._around)
        fact.subject = self._subject
        if isinstance(self._around, Compilation) and isinstance(item, tuple) and len(item) == 2:
            fact.subject = program_in(item[0])
        position = self._first.pop(id(item), None)
        if position is None and (left := self._more.get(id(item))):
            position = left.popleft()
        if position is not None:
            fact.index = self._last[id(item)] = position
        else:
            fact.index = self._last.get(id(item))
            fact.resubmitted = True
        fact.round, fact.begun = self._round, monotonic()
        fact.metric = getattr(self._around, "metric", None)
        fact.inputs = example_in(item)
        return fact

    def _program(self, item: Any) -> str:
        if isinstance(self._around, Evaluation):
            return self._around.program
        return self._around.program or "program"

    def end(self, fact: ExampleRun, instance: Any, result: Any, error: BaseException | None) -> None:
        """Read ``(prediction, score)`` of Evaluate, a dict with ``score`` of SIMBA, or the score alone of ReAnchor."""
        if isinstance(result, tuple) and len(result) == 2:
            fact.output, score = result
        elif isinstance(result, Mapping):
            fact.output, score = result.get("prediction"), result.get("score")
        else:
            score = result
        fact.output = without_trace(fact.output)
        fact.score = as_score(score)
        if type(score) is bool:
            fact.label = "pass" if score else "fail"
        elif not isinstance(score, int | float):
            fact.explanation = text(ask(getattr, score, "feedback"), LIMIT)


def program_in(runnable: Any) -> Any:
    """Return the program that an item runs: itself, or what a function of the optimizer's has closed over."""
    if not isinstance(runnable, types.FunctionType):
        return runnable
    held = [ask(lambda cell=cell: cell.cell_contents) for cell in runnable.__closure__ or ()]
    return next((one for one in held if callable(ask(getattr, one, "named_predictors"))), None)


def example_in(item: Any) -> Any:
    """Return the example of an item: itself, or the second of a ``(program, example)`` pair."""
    return item[1] if isinstance(item, tuple) and len(item) == 2 else item


def examples(around: Fact | None, items: Any, function: Any) -> ExampleReader | None:
    """Return a reader for the items that `around` itself runs by a function; ``None`` where they are no own traces."""
    if isinstance(around, Evaluation) and not around.items_taken:
        around.items_taken = True
        return ExampleReader(around, items)
    return ExampleReader(around, items, program_in(function)) if isinstance(around, Compilation) else None


class RewardNotes(Notes):
    """The reward of an attempt of ``BestOfN`` or ``Refine``: what ``reward_fn(inputs, prediction)`` gave."""

    def returned(self, fact: ModuleCall, instance: Any, result: Any) -> Fact | None:
        fact.attempts += 1
        return Rewarded(fact.attempts - 1, number(as_score(result)))


class CompileReader:
    """Reads ``compile(student, *, trainset, ...)`` of an optimizer."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        student = args[0] if args else kwargs.get("student")
        fact = Compilation(type(instance).__name__)
        fact.program = type(student).__name__ if student is not None else None
        fact.trainset = ask(len, kwargs["trainset"]) if kwargs.get("trainset") is not None else None
        fact.valset = ask(len, kwargs["valset"]) if kwargs.get("valset") is not None else None
        fact.instance = instance
        fact.arguments = ask(_bound, type(instance).compile, (instance, *args), kwargs, default=dict(kwargs))
        metric = ask(getattr, instance, "metric", default=None)
        fact.metric = metric_name(metric if metric is not None else ask(getattr, instance, "metric_fn"))
        return fact

    def end(self, fact: Compilation, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.result = result


def _bound(function: Any, args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """Return the arguments of a call by name, defaults included."""
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    told = {**bound.arguments}
    told.pop(next(iter(signature.parameters)), None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            told.update(told.pop(name, {}))
    return told
