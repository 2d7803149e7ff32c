"""What may be special to an optimizer, and what holds for one of which nothing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dspy_trace.points.optimizers import Finding

if TYPE_CHECKING:
    from dspy_trace.runs.candidates import Candidate
    from dspy_trace.runs.compiles import CompileRun


def part(done: float, of: Any) -> float | None:
    """Return `done` as a part of a number that an optimizer was given."""
    return min(done / of, 1.0) if type(of) is int and of > 0 else None


class Special:
    """An optimizer of which nothing is known."""

    series: Mapping[str, str] = MappingProxyType({})
    """By the name of a series of scores, the one that evaluations of all examples are told in instead."""

    def parents(self, candidate: Candidate, run: CompileRun) -> Sequence[int]:
        """Return the numbers of the candidates that a new one was made from, if that is known."""
        return ()

    def progress(self, run: CompileRun) -> float | None:
        """Return which part of the compile is done, from 0 to 1, if that can be told."""
        return None

    def found(self, fact: Finding, run: CompileRun) -> Sequence[Candidate]:
        """Take note of what the optimizer has said of candidates; return those of which more is known now."""
        return ()

    def ended(self, run: CompileRun) -> dict[str, Any]:
        """Return what else there is to tell at the end, as a part of a record; the result is in ``run.fact``."""
        return {}
