"""GEPA: candidates with their parents, and how many examples each is among the best of (its Pareto front)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from dspy_trace.guard import ask
from dspy_trace.points.optimizers import Discovery, Finding, Proposed
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

    def found(self, fact: Finding, run: CompileRun) -> Sequence[Candidate]:
        if run.candidates:
            self._found.setdefault(0, run.candidates[0])
        if isinstance(fact, Proposed):
            made = [self._made(run, texts, parents) for texts, parents in fact.candidates]
            return [one for one in made if one is not None]
        return self._discovered(fact, run) if isinstance(fact, Discovery) else ()

    def _made(self, run: CompileRun, texts: Mapping[str, str], parents: Sequence[int]) -> Candidate | None:
        """Return the candidate that has these texts, with the parents that it was first made from."""
        same = [one for one in run.candidates if one.snapshot.instructions == texts]
        if not same:
            return None
        found = same[-1]
        if found.number and not found.parents:
            numbers = [self._found[number].number for number in parents if number in self._found]
            found.parents = [number for number in numbers if number != found.number]
        return found

    def _discovered(self, fact: Discovery, run: CompileRun) -> Sequence[Candidate]:
        candidate = self._made(run, fact.texts, fact.parents)
        if candidate is None:
            return ()
        self._found[fact.number] = candidate
        fronts = fact.told.get("front", {})
        for number, one in self._found.items():
            one.told["best_on_examples"] = fronts.get(number, 0)
        candidate.told["metric_calls"] = fact.told.get("metric_calls")
        return list(self._found.values())
