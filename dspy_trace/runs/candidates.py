"""The candidates of a compile: one for each different program that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_trace import facts
from dspy_trace.guard import ask
from dspy_trace.runs.programs import Snapshot
from dspy_trace.runs.run import usage

if TYPE_CHECKING:
    from dspy_trace.runs.compiles import CompileRun


FULL, MINIBATCH = "eval_full", "eval_minibatch"
"""Series of scores, on all examples and on some, as DSPy names them."""

HELD_OUT = "eval_val"
"""Series of the scores on a validation set, where an optimizer compares candidates on the training set."""


@dataclass(slots=True)
class Scored:
    """What came of one evaluation of a candidate."""

    key: str
    score: float | None
    examples: int | None
    seconds: float
    usage: dict[str, float]


class Candidate:
    """A program that an optimizer has tried, with what came of it.

    Args:
        number: its place in the order in which they turned up; the program that is optimized is 0.
        snapshot: the program.
    """

    def __init__(self, number: int, snapshot: Snapshot) -> None:
        self.number = number
        self.snapshot = snapshot
        self.parents: Sequence[int] = ()
        self.score: float | None = None
        self.minibatch_score: float | None = None
        self.step: int | None = None
        self.key: str | None = None
        self.examples: int | None = None
        self.evaluations = 0
        self.seconds = 0.0
        self.usage: dict[str, float] = {}
        self.told: dict[str, Any] = {}
        """What the optimizer says of it, by name."""

    def scored(self, step: int, told: Scored, full: bool) -> None:
        """Take note of an evaluation of it."""
        if full or self.score is None:
            self.step, self.key, self.examples = step, told.key, told.examples
        if full:
            self.score = told.score
        else:
            self.minibatch_score = told.score
        self.evaluations += 1
        self.seconds += told.seconds
        _add(self.usage, told.usage)

    def row(self, table: str) -> list[Any]:
        """Return its row, under its key in a table."""
        used = self.usage
        told = {
            # The page shows the first four without being asked.
            "id": self.number,
            "score": self.score,
            "instructions": self.snapshot.said or None,
            "parents": ", ".join(map(str, self.parents)) or None,
            "minibatch_score": self.minibatch_score,
            "metric_key": self.key,
            "step": self.step,
            "examples": self.examples,
            "evaluations": self.evaluations,
            "demos": self.snapshot.demos,
            "decisions": self.snapshot.decisions,
            "model": self.snapshot.model,
            **self.told,
            "lm_calls": used.get("lm_calls"),
            "input_tokens": used.get("input_tokens"),
            "output_tokens": used.get("output_tokens"),
            "cost": used.get("cost"),
            "seconds": round(self.seconds, 3),
            "program_version": self.snapshot.version,
        }
        return [table, f"{self.number:09d}", told]


class Rounds:
    """Rollouts that an optimizer runs itself, many at once: each round of them scores the candidates that are in it."""

    def __init__(self, compile_run: CompileRun) -> None:
        self._run = compile_run
        self._round: int | None = None
        self._snapshots: dict[int, tuple[Any, Snapshot | None]] = {}
        """By identity of the program, which is held: as many rollouts are of one program, it is looked at once."""
        given = compile_run.fact.arguments
        known = {id(item) for item in ask(list, given.get("trainset"), default=())}
        self._held_out = {id(item) for item in ask(list, given.get("valset"), default=())} - known
        self._found: dict[str | None, _Group] = {}

    def add(self, fact: facts.ExampleRun, seconds: float) -> int | None:
        """Take note of a rollout; return the number of its candidate."""
        if fact.round != self._round:
            self.flush()
            self._round = fact.round
        snapshot = self._snapshot(fact.subject)
        if snapshot is None:
            return None
        self._found.setdefault(snapshot.identity, _Group(snapshot)).add(fact, seconds)
        return self._run.number_of(snapshot)

    def _snapshot(self, program: Any) -> Snapshot | None:
        known = self._snapshots.get(id(program))
        if known is None:
            known = self._snapshots[id(program)] = program, self._run.snapshot(program)
        return known[1]

    def flush(self) -> None:
        """Tell the scores of the round that is over."""
        found, self._found, self._snapshots = self._found, {}, {}
        trainset = self._run.fact.trainset or 0
        for group in found.values():
            held_out = not self._held_out.isdisjoint(group.examples)
            whole = len(group.examples) >= trainset and not held_out
            key = HELD_OUT if held_out else FULL if whole else MINIBATCH
            told = Scored(key, group.score, len(group.examples), group.seconds, group.usage)
            self._run.evaluated(group.snapshot, told, hidden=not whole)


class _Group:
    """Rollouts of one candidate."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.examples: set[int] = set()
        self.scores: list[float] = []
        self.seconds = 0.0
        self.usage: dict[str, float] = {}

    def add(self, fact: facts.ExampleRun, seconds: float) -> None:
        self.examples.add(id(fact.inputs))
        self.scores.append(fact.score or 0.0)
        self.seconds += seconds
        _add(self.usage, usage(fact.tally))

    @property
    def score(self) -> float:
        """In percent, as ``dspy.Evaluate`` has it."""
        return round(100 * sum(self.scores) / len(self.scores), 2)


def _add(sums: dict[str, float], more: dict[str, float]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0) + value
