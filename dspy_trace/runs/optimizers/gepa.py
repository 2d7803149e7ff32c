"""GEPA: candidates with their parents, and how many examples each is among the best of (its Pareto front)."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from dspy_trace.guard import ask
from dspy_trace.points.optimizers import Discovery
from dspy_trace.runs.candidates import FULL
from dspy_trace.runs.evaluations import SCORE
from dspy_trace.runs.optimizers.any import Special, part

if TYPE_CHECKING:
    from dspy_trace.runs.candidates import Candidate
    from dspy_trace.runs.compiles import CompileRun


class Optimizer(Special):
    series = MappingProxyType({SCORE: FULL})  # the program that is optimized is evaluated without a name

    def __init__(self) -> None:
        self._found: dict[int, Candidate] = {}
        """By GEPA's own numbers, which leave out what was tried on a minibatch alone."""

    def progress(self, run: CompileRun) -> float | None:
        return part(run.tried, ask(getattr, run.fact.instance, "max_metric_calls"))

    def discovered(self, fact: Discovery, run: CompileRun) -> Sequence[Candidate]:
        if run.candidates:
            self._found.setdefault(0, run.candidates[0])
        same = [one for one in run.candidates if _texts(one) == dict(fact.texts)]
        if not same:
            return ()
        candidate = self._found[fact.number] = same[-1]
        candidate.parents = [self._found[number].number for number in fact.parents if number in self._found]
        fronts = fact.told.get("front", {})
        for number, one in self._found.items():
            one.told["best_on_examples"] = fronts.get(number, 0)
        candidate.told["metric_calls"] = fact.told.get("metric_calls")
        return list(self._found.values())


def _texts(candidate: Candidate) -> dict[str, str]:
    return candidate.snapshot.instructions
