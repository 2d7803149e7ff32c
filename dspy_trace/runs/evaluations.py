"""Evaluations as runs."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from dspy_trace import facts
from dspy_trace.runs.candidates import FULL, MINIBATCH, Scored
from dspy_trace.runs.examples import row
from dspy_trace.runs.programs import Snapshot
from dspy_trace.runs.run import Run, metrics, spent, usage
from dspy_trace.runs.summary import of_evaluation
from dspy_trace.vocab import run_keys as keys

if TYPE_CHECKING:
    from dspy_trace.runs.recorder import Recorder

SCORE = "eval"
"""Metric that holds the score, under the name that MLflow's own logging gave it."""

EXAMPLES = "examples"
"""Table of the examples."""


def put_example(run: Run, table: str, key: str, call: Any, error: BaseException | None, **more: Any) -> None:
    """Put the row of an example that has ended into a table of a run."""
    recorder, context = run.recorder, call.span.get_span_context()
    trace_id = recorder.outlet.name_of(context.trace_id) if context.trace_flags.sampled else None
    words = recorder.words(error) if error is not None else None
    made = row(call.fact, words, trace_id, monotonic() - call.fact.begun, recorder.capture)
    run.tell(lambda: {"rows": [[table, key, {**more, **made()}]]})


class EvaluationRun(Run):
    """One call of ``dspy.Evaluate``."""

    def __init__(self, recorder: Recorder, fact: facts.Evaluation, above: Run | None) -> None:
        self.snapshot = Snapshot(fact.subject, recorder.capture is not None, recorder.redact)
        self.key = _key(fact)
        inner = above.compile if above is not None else None
        self.candidate = inner.number_of(self.snapshot) if inner is not None else None
        """Number of the candidate of the compile that it is a part of."""
        super().__init__(recorder, "evaluation", self._name(fact), above)
        self.fact = fact
        self._failed: set[int | None] = set()
        told: dict[str, Any] = {"program": fact.program, "signature": self.snapshot.signature}
        told |= {"program_version": self.snapshot.version, "metric": fact.metric}
        told |= {"examples": fact.examples, "num_threads": fact.threads, **fact.options}
        told |= {"metric_key": self.key if inner is not None else None, "candidate": self.candidate}
        self.settings(told)
        self.data("devset", "eval", fact.devset)
        if self.snapshot.state is not None:
            self.tell({"files": {"program.json": self.snapshot.state}})

    def _name(self, fact: facts.Evaluation) -> str:
        if self.candidate is None:
            return f"evaluate {fact.program}"
        return f"evaluate candidate {self.candidate}" + ("" if self.key in (SCORE, FULL) else f" ({self.key})")

    @property
    def failures(self) -> int:
        """Examples that have failed."""
        return len(self._failed)

    def example(self, call: Any, error: BaseException | None) -> None:
        fact: facts.ExampleRun = call.fact
        if fact.around is not self.fact:
            return
        if error is not None:
            self._failed.add(fact.index)
        else:
            self._failed.discard(fact.index)
        put_example(self, EXAMPLES, f"{fact.index or 0:09d}", call, error)

    def finish(self, error: BaseException | None) -> None:
        """Tell score, failures, usage and time, here, in the compile and in the user's run."""
        fact = self.fact
        told: dict[str, float | None] = {SCORE: fact.score, "failures": self.failures, "seconds": self.seconds}
        record: dict[str, Any] = {"metrics": metrics({**told, **spent(fact.tally)})}
        record["tags"] = {keys.NOTE: of_evaluation(self)}
        if self.user_run is not None and fact.score is not None:
            record["beside"] = [{"run_id": self.user_run, "metrics": metrics({SCORE: fact.score})}]
        if self.compile is not None:
            scored = Scored(self.key, fact.score, fact.examples, self.seconds, usage(fact.tally))
            self.compile.evaluated(self.snapshot, scored, hidden=False)
        self.close(error, record)


class Minibatch:
    """An evaluation that DSPy asks not to log as one: a step, and rows, of the compile's run."""

    def __init__(self, run: Run, fact: facts.Evaluation) -> None:
        assert run.compile is not None
        self.run, self.compile, self.fact = run, run.compile, fact
        self.key = _key(fact, MINIBATCH)
        self.snapshot = Snapshot(fact.subject, run.recorder.capture is not None, run.recorder.redact)
        self.step = self.compile.begin_step(self.key)
        self._begun = monotonic()

    # What a run is asked from beneath, its compile's answers.
    id = property(lambda self: self.compile.id)
    target = property(lambda self: self.compile.target)

    def link(self, trace_id: int) -> None:
        """Take note of a trace that begins beneath it."""
        self.compile.link(trace_id)

    def example(self, call: Any, error: BaseException | None) -> None:
        """Take note of an example that has ended."""
        fact = call.fact
        if fact.around is self.fact:
            key = f"{self.step:06d}-{fact.index or 0:06d}"
            number = self.compile.number_of(self.snapshot)
            put_example(self.compile, "minibatches", key, call, error, step=self.step, candidate=number)

    def finish(self, error: BaseException | None) -> None:
        """Tell the score as a step of the compile."""
        fact, seconds = self.fact, monotonic() - self._begun
        scored = Scored(self.key, fact.score, fact.examples, seconds, usage(fact.tally))
        self.compile.evaluated(self.snapshot, scored, hidden=True, step=self.step)


def _key(fact: facts.Evaluation, default: str = SCORE) -> str:
    """Return the series of scores that an evaluation belongs to, as DSPy names it."""
    key = fact.metadata.get("metric_key")
    return key if isinstance(key, str) and key else default
