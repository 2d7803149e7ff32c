"""A run that goes on, and the way in which it is told of."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

from dspy_trace.export.source import source
from dspy_trace.export.target import Target
from dspy_trace.guard import ask
from dspy_trace.runs.data import dataset
from dspy_trace.runs.values import LONGEST, params, surroundings
from dspy_trace.tally import Tally
from dspy_trace.vocab import mlflow_keys as mlflow
from dspy_trace.vocab import run_keys as keys

if TYPE_CHECKING:
    from dspy_trace.runs.compiles import CompileRun
    from dspy_trace.runs.recorder import Recorder

INTERRUPTED = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


def now() -> int:
    """Return the time as MLflow has it, in milliseconds since 1970."""
    return time_ns() // 1_000_000


class Run:
    """A run of MLflow's, told of in records. Safe across threads.

    Args:
        recorder: what makes it.
        kind: ``evaluation`` or ``compile``.
        name: name of the run.
        above: run that it is a child of, if that is one of ours.
    """

    def __init__(self, recorder: Recorder, kind: str, name: str, above: Run | None) -> None:
        self.id = uuid.uuid4().hex
        self.recorder = recorder
        self.begun = monotonic()
        self.compile: CompileRun | None = above.compile if above is not None else None
        """The compile that it is, or that it is a part of."""
        self.user_run: str | None = None
        """MLflow's id of the run that was active when it began."""
        self.target: Target | None = above.target if above is not None else None
        self.ended = False
        if above is None:
            self.target, self.user_run = recorder.outlet.here()
        start: dict[str, Any] = {"time": now(), "name": name, "parent_id": self.user_run}
        start["parent"] = above.id if above is not None else None
        self.tell(lambda: {"start": {**start, "tags": _tags(kind)}})

    def tell(self, record: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """Queue a record; where runs cannot be kept, nothing happens."""
        if self.target is not None and not self.ended:
            self.recorder.outlet.runs.put(self.target, self.id, record)

    def settings(self, told: dict[str, Any]) -> None:
        """Tell parameters, with those of the surroundings."""
        made = params({**told, **surroundings()})
        self.tell({"params": made})

    def data(self, name: str, context: str, examples: Any) -> None:
        """Tell of a set of examples, if it is one."""
        made = dataset(name, context, examples) if examples is not None else None
        if made is not None:
            self.tell(lambda: {"data": [made()]})

    def link(self, trace_id: int) -> None:
        """Take note of a trace that begins beneath it."""
        mlflow_id = self.recorder.outlet.trace_of(trace_id, self.target, self.id)
        self.tell({"traces": [mlflow_id]})

    def follow(self) -> None:
        """Go beneath the run that is active by now, as beneath one that was when this began."""
        active = self.recorder.outlet.here()[1]
        if self.user_run is None and active is not None:
            self.user_run = active
            self.tell({"tags": {keys.PARENT: active}})

    def example(self, call: Any, error: BaseException | None) -> None:
        """Take note of an example that has ended."""

    def close(self, error: BaseException | None, record: dict[str, Any]) -> None:
        """Tell the end, with the last record."""
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, INTERRUPTED) else "FAILED"
        record = {**record, "end": {"status": status, "time": now()}}
        if error is not None:
            record["tags"] = {**record.get("tags", {}), keys.REASON: self.recorder.words(error)}
        self.tell(record)
        self.ended = True

    @property
    def seconds(self) -> float:
        return round(monotonic() - self.begun, 3)


def usage(tally: Tally | None) -> dict[str, float]:
    """Return what LM calls have used."""
    if tally is None:
        return {}
    told: dict[str, float] = {
        "lm_calls": tally.lm_calls,
        "cache_hits": tally.cache_hits,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
    }
    if tally.cost is not None:
        told["cost"] = tally.cost
    return told


def spent(tally: Tally | None) -> dict[str, float | None]:
    """Return what LM calls have used as metrics, whose names, and so their charts, come behind those of scores."""
    return {f"usage_{name}": value for name, value in usage(tally).items()}


def metrics(told: dict[str, float | None], step: int = 0) -> list[list[Any]]:
    """Return numbers as MLflow's metrics of this moment; what is not known is left out."""
    return [[name, value, now(), step] for name, value in told.items() if value is not None]


def _tags(kind: str) -> dict[str, str]:
    about = ask(source, default={})
    told = {key: str(value)[:LONGEST] for key, value in about.get("source", {}).items()}
    if about.get("user"):
        told[mlflow.USER] = about["user"]
    return {**told, keys.KIND: kind}
