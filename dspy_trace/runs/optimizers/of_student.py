"""Optimizers that make every candidate from the program they were given: COPRO, random search, GRPO and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dspy_trace.runs.optimizers.any import Special

if TYPE_CHECKING:
    from dspy_trace.runs.candidates import Candidate
    from dspy_trace.runs.compiles import CompileRun


class Optimizer(Special):
    def parents(self, candidate: Candidate, run: CompileRun) -> Sequence[int]:
        return (0,) if run.initial is not None else ()
