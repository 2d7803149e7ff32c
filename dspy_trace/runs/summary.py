"""What a person reads first of a compile: the description of its run, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy_trace.jsonable import cut

if TYPE_CHECKING:
    from dspy_trace.runs.candidates import Candidate
    from dspy_trace.runs.compiles import CompileRun

LONGEST = 4_900
"""Characters; every tracking store holds a tag of 5,000."""


def summary(run: CompileRun, state: str) -> str:
    """Return what was optimized, how far it is, the best candidates, and the best instructions."""
    fact = run.fact
    metric = f", metric `{fact.metric}`" if fact.metric is not None else ""
    parts = [f"**{fact.optimizer}** on `{fact.program}`{metric}: {state}."]
    scores = [
        f"{name} **{score:g}**"
        for name, score in (("baseline", run.baseline), ("best", run.best_score), ("final", run.final))
        if score is not None
    ]
    if scores:
        parts.append(" → ".join(scores))
    if state != "running":
        parts.append(_cost(run))
    best = run.best
    if best is not None and best.snapshot.instructions:
        which = "the program that was optimized" if best.number == 0 else f"candidate {best.number}"
        parts.append(f"### Best instructions ({which}, {best.snapshot.demos} demos)")
        for path, text in best.snapshot.instructions.items():
            quoted = "\n".join(f"> {line}" for line in cut(text, 1_200).splitlines())
            parts.append(f"`{path}`\n{quoted}")
    ranked = sorted((one for one in run.candidates if one.score is not None), key=lambda one: -(one.score or 0.0))
    if len(ranked) > 1:
        lines = ["| candidate | score | minibatch | demos | made from |", "|---|---|---|---|---|"]
        parts.append("\n".join([*lines, *map(_line, ranked[:10])]))
    return cut("\n\n".join(parts), LONGEST)


def _line(one: Candidate) -> str:
    cells = [one.number, f"{one.score:g}", _number(one.minibatch_score), one.snapshot.demos]
    return "| " + " | ".join(map(str, [*cells, ", ".join(map(str, one.parents))])) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _cost(run: CompileRun) -> str:
    tally = run.fact.tally
    said = f"{run.evaluations} evaluations of {len(run.candidates)} candidates in {run.seconds:.0f} s"
    if tally is None:
        return said
    cost = f", {tally.cost:.4f} USD" if tally.cost is not None else ""
    return f"{said}: {tally.lm_calls} LM calls, {tally.input_tokens + tally.output_tokens} tokens{cost}"
