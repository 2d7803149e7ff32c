"""Compiles as runs: every optimizer's, whatever it does; what is special to one stands in ``optimizers``."""

from __future__ import annotations

import threading
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any

from dspy_trace import facts
from dspy_trace.guard import ask, shielded
from dspy_trace.points.optimizers import Finding, OwnRun
from dspy_trace.runs import values
from dspy_trace.runs.candidates import Candidate, Rounds, Scored
from dspy_trace.runs.evaluations import put_example
from dspy_trace.runs.optimizers import special
from dspy_trace.runs.programs import Snapshot
from dspy_trace.runs.run import Run, metrics, spent
from dspy_trace.runs.summary import of_compile
from dspy_trace.vocab import run_keys as keys

if TYPE_CHECKING:
    from dspy_trace.runs.recorder import Recorder

CANDIDATES = "candidates"
"""Table of the candidates."""

_SETS = {"trainset": "train", "valset": "validation", "devset": "eval"}


class CompileRun(Run):
    """One outermost ``compile``."""

    def __init__(self, recorder: Recorder, fact: facts.Compilation) -> None:
        self.fact, self.recorder = fact, recorder
        self.initial = self.snapshot(fact.arguments.get("student"))
        super().__init__(recorder, "compile", f"compile {fact.optimizer}", None)
        self.compile = self
        self.special = special(fact.optimizer)
        self.candidates: list[Candidate] = []
        self.best: Candidate | None = None
        self.best_score: float | None = None
        self.baseline: float | None = None
        self.final: float | None = None
        self.final_snapshot: Snapshot | None = None
        self.evaluations = 0
        self.tried = 0
        """Examples that were evaluated, each as often as it was."""
        self._lock = threading.RLock()
        self._steps: Counter[str] = Counter()
        self._largest = 0
        self._rounds = Rounds(self)
        self._tell_settings()
        if self.initial is not None:
            self.number_of(self.initial)
            self._file("programs/initial.json", self.initial)
        self._note()

    def snapshot(self, program: Any) -> Snapshot | None:
        """Return a program as it is now; ``None`` of what is none."""
        if not callable(ask(getattr, program, "named_predictors")):
            return None
        return Snapshot(program, self.recorder.capture is not None, self.recorder.redact)

    def _tell_settings(self) -> None:
        fact, initial = self.fact, self.initial
        told: dict[str, Any] = {"optimizer": fact.optimizer, "program": fact.program, "metric": fact.metric}
        if initial is not None:
            told |= {"signature": initial.signature, "program_version": initial.version}
        for name, value in values.made_with(fact.instance).items():
            told[f"optimizer.{name}"] = value
            told |= values.lm(f"optimizer.{name}", value)
        for name, value in fact.arguments.items():
            if name in _SETS:
                told[name] = ask(len, value) if value is not None else None
                self.data(name, _SETS[name], value)
            elif name != "student":
                told[f"compile.{name}"] = value
        self.settings(told)

    def begin_step(self, key: str) -> int:
        """Return the number of the next point of a series."""
        with self._lock:
            self._steps[key] += 1
            return self._steps[key] - 1

    def candidate(self, snapshot: Snapshot) -> Candidate:
        """Return the candidate that a program is, which is new if no other was the same."""
        with self._lock:
            for found in self.candidates:
                if found.snapshot.identity == snapshot.identity:
                    return found
            made = Candidate(len(self.candidates), snapshot)
            if made.number:
                made.parents = self.special.parents(made, self)
            self.candidates.append(made)
            return made

    def number_of(self, snapshot: Snapshot) -> int:
        return self.candidate(snapshot).number

    def evaluated(
        self,
        snapshot: Snapshot,
        result: Scored,
        *,
        hidden: bool,
        step: int | None = None,
    ) -> None:
        """Take note of an evaluation beneath: a step of its series, and a row of its candidate."""
        with self._lock:
            key, score = result.key, result.score
            full = self._is_full(key, result.examples or 0, hidden)
            key = self.special.series.get(key, key) if full else key
            step = self.begin_step(key) if step is None else step
            self.evaluations += 1
            candidate = self.candidate(snapshot)
            candidate.scored(step, result, full)
            self.tried += result.examples or 0
            told = metrics({key: score}, step)
            if full and score is not None:
                told += self._compare(candidate, score)
            so_far: dict[str, float | None] = {**spent(self.fact.tally), "progress": self.special.progress(self)}
            self.tell({"metrics": [*told, *metrics(so_far, self.evaluations)], "rows": [candidate.row(CANDIDATES)]})

    def _is_full(self, key: str, examples: int, hidden: bool) -> bool:
        """Return whether an evaluation can be compared with others: of all there is, as far as is known."""
        if hidden or "minibatch" in key or examples < self._largest:
            return False
        if examples > self._largest:
            self._largest, self.baseline, self.best, self.best_score = examples, None, None, None
        return True

    def _compare(self, candidate: Candidate, score: float) -> list[list[Any]]:
        told = []
        is_initial = self.initial is not None and candidate.snapshot.identity == self.initial.identity
        if is_initial and self.baseline is None:
            self.baseline = score
            told = metrics({"baseline": score})
        if self.best_score is None or score > self.best_score:
            self.best, self.best_score = candidate, score
            self._file("programs/best.json", candidate.snapshot)
            self._file(f"programs/candidate_{candidate.number}.json", candidate.snapshot)
            self._note()
        return [*told, *metrics({"best": self.best_score}, self.begin_step("best"))]

    def example(self, call: Any, error: BaseException | None) -> None:
        """Take note of a rollout that the optimizer runs itself."""
        fact: facts.ExampleRun = call.fact
        if type(fact.around) is not facts.Compilation:
            return
        with self._lock:
            number = self._rounds.add(fact, monotonic() - fact.begun)
        key = f"{fact.round:09d}-{fact.index or 0:09d}"
        put_example(self, "rollouts", key, call, error, candidate=number)

    def found(self, fact: Finding) -> None:
        """Take note of what the optimizer itself tells."""
        if isinstance(fact, OwnRun):
            self.follow()
            return
        with self._lock:
            changed = self.special.found(fact, self)
            self.tell({"rows": [candidate.row(CANDIDATES) for candidate in changed]})

    def finish(self, error: BaseException | None) -> None:
        """Tell the final program, its score and what all has cost."""
        with self._lock:
            self._rounds.flush()
            if error is None:
                self.final_snapshot = self.snapshot(self.fact.result)
            final = self.final_snapshot
            if final is not None:
                self._file("programs/final.json", final)
                self.final = self.candidate(final).score
            told: dict[str, float | None] = {"final": self.final, "seconds": self.seconds}
            told |= {"evaluations": self.evaluations, "candidates": len(self.candidates)}
            extra: dict[str, Any] = shielded("reading an optimizer's results", self.special.ended, self) or {}
            used = metrics(spent(self.fact.tally), self.evaluations)
            record: dict[str, Any] = {**extra, "metrics": [*metrics(told), *used]}
            record["rows"] = [*extra.get("rows", ()), *(one.row(CANDIDATES) for one in self.candidates)]
            if self.user_run is not None and self.final is not None:
                record["beside"] = [{"run_id": self.user_run, "metrics": metrics({"eval": self.final})}]
            record["tags"] = {keys.NOTE: of_compile(self, "failed" if error is not None else "finished")}
            self.close(error, record)

    def _file(self, path: str, snapshot: Snapshot) -> None:
        if snapshot.state is not None:
            self.tell({"files": {path: snapshot.state}})

    def _note(self) -> None:
        """Let the description of the run say how far it is."""
        self.tell({"tags": {keys.NOTE: of_compile(self, "running")}})
