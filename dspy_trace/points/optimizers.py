"""Reads what optimizers keep of their candidates, and that they log on their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy_trace.facts import Compilation, Fact
from dspy_trace.guard import ask
from dspy_trace.points import Notes


class Finding(Fact):
    """Something that an optimizer tells while it compiles."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class OwnRun(Finding):
    """An optimizer logs a run of its own in MLflow, as the program has asked it to."""


@dataclass(slots=True, eq=False)
class Discovery(Finding):
    """An optimizer has found a candidate, from parents; what it said of it, by name."""

    number: int
    parents: Sequence[int] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    score: float | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Proposed(Finding):
    """An optimizer has made candidates and tried them: the texts of each, and its parents' numbers."""

    candidates: Sequence[tuple[Mapping[str, str], Sequence[int]]]


class ProposedNotes(Notes):
    """Reads what GEPA has made of its candidates, whether it gets through or not: ``propose(state)`` of a proposer."""

    def returned(self, fact: Compilation, instance: Any, result: Any) -> Fact | None:
        made = result if isinstance(result, list) else [result]
        told = [ask(lambda one=one: (dict(one.candidate), list(one.parent_program_ids))) for one in made]
        known = [one for one in told if one is not None]
        return Proposed(known) if known else None


class DiscoveryNotes(Notes):
    """Reads what GEPA keeps of a candidate that has got through: ``update_state_with_new_program(...)``."""

    def returned(self, fact: Compilation, instance: Any, result: Any) -> Fact | None:
        if type(result) is not int:
            return None
        parents = ask(lambda: list(instance.parent_program_for_candidate[result]), default=[])
        texts = ask(lambda: dict(instance.program_candidates[result]), default={})
        fronts: dict[int, int] = defaultdict(int)
        for programs in ask(lambda: list(instance.program_at_pareto_front_valset.values()), default=[]):
            for number in programs:
                fronts[number] += 1
        calls = ask(lambda: int(instance.num_metric_calls_by_discovery[result]))
        told = {"front": dict(fronts), "metric_calls": calls}
        return Discovery(result, [one for one in parents if type(one) is int], texts, None, told)


class OwnRunNotes(Notes):
    """Reads that GEPA logs into MLflow itself, ``use_mlflow=True``: ``start_run()`` of its tracker has begun a run."""

    def returned(self, fact: Compilation, instance: Any, result: Any) -> Fact | None:
        return OwnRun() if ask(getattr, instance, "use_mlflow") is True else None
