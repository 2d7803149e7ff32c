"""What a person reads first of a run: its description, in Markdown. The page shows some four lines of it unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy_trace.values.jsonable import cut

if TYPE_CHECKING:
    from dspy_trace.runs.candidates import Candidate
    from dspy_trace.runs.compiles import CompileRun
    from dspy_trace.runs.evaluations import EvaluationRun
    from dspy_trace.runs.programs import Snapshot

LONGEST = 4_900
"""Characters; every tracking store holds a tag of 5,000."""


def of_compile(run: CompileRun, state: str) -> str:
    """Return what was optimized and how far it is, the best instructions, the best candidates, and what it cost."""
    fact = run.fact
    scores = [
        f"{name} **{score:g}**"
        for name, score in (("baseline", run.baseline), ("best", run.best_score), ("final", run.final))
        if score is not None
    ]
    found = f": {' → '.join(scores)}" if scores else ""
    metric = f"metric `{fact.metric}`, " if fact.metric is not None else ""
    head = f"**{fact.optimizer}** on `{fact.program}`{found} ({metric}{state})"
    parts = [head if run.best is None else f"{head}. {_best(run.best)}"]
    ranked = sorted((one for one in run.candidates if one.score is not None), key=lambda one: -(one.score or 0.0))
    if len(ranked) > 1:
        lines = ["| candidate | score | minibatch | demos | made from |", "|---|---|---|---|---|"]
        parts.append("\n".join([*lines, *map(_line, ranked[:10])]))
    if state != "running":
        parts.append(_cost(run))
    return cut("\n\n".join(parts), LONGEST)


def of_evaluation(run: EvaluationRun) -> str:
    """Return the score of an evaluation, of what it is, and the instructions that were evaluated."""
    fact = run.fact
    score = "no score" if fact.score is None else f"**{fact.score:g}**"
    metric = f" by metric `{fact.metric}`" if fact.metric is not None else ""
    which = f"candidate {run.candidate} of " if run.candidate is not None else ""
    told = f"{score} on {fact.examples} examples{metric}, {run.failures} failed: {which}`{fact.program}`"
    return cut(f"{told}, {_demos(run.snapshot)}{_quoted(run.snapshot)}", LONGEST)


def _best(best: Candidate) -> str:
    snapshot = best.snapshot
    about = ["the program that was optimized" if best.number == 0 else f"candidate {best.number}", _demos(snapshot)]
    about += [f"model `{snapshot.model}`"] if snapshot.model else []
    about += [f"decisions `{snapshot.decisions}`"] if snapshot.decisions else []
    return f"Best: {', '.join(about)}{_quoted(snapshot)}"


def _quoted(snapshot: Snapshot) -> str:
    """Return the instructions of a program, behind a colon; of several predictors each under its path."""
    parts = []
    for path, text in snapshot.instructions.items():
        quoted = [f"> {line}" for line in cut(text, 1_200).splitlines()]
        parts.append("\n".join([f"> `{path}`", ">", *quoted] if len(snapshot.instructions) > 1 else quoted))
    return ":\n" + "\n>\n".join(parts) if parts else ""


def _line(one: Candidate) -> str:
    cells = [one.number, f"{one.score:g}", _number(one.minibatch_score), one.snapshot.demos]
    return "| " + " | ".join(map(str, [*cells, ", ".join(map(str, one.parents))])) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _demos(snapshot: Snapshot) -> str:
    return "1 demo" if snapshot.demos == 1 else f"{snapshot.demos} demos"


def _cost(run: CompileRun) -> str:
    tally = run.fact.tally
    said = f"{run.evaluations} evaluations of {len(run.candidates)} candidates in {run.seconds:.0f} s"
    if tally is None:
        return said
    cost = f", {tally.cost:.4f} USD" if tally.cost is not None else ""
    return f"{said}: {tally.lm_calls} LM calls, {tally.input_tokens + tally.output_tokens} tokens{cost}"
