"""What tests of runs share: the records that ``autolog()`` leaves in the spool, put together as runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import dspy
import orjson

from tests.outlets import Kept

Row = dict[str, Any]


@dataclass
class Told:
    """A run, as its records tell of it."""

    id: str
    name: str = ""
    kind: str = ""
    uri: str = ""
    experiment: str = ""
    parent: str | None = None
    parent_id: str | None = None
    status: str = "RUNNING"
    start: int = 0
    end: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    tables: dict[str, dict[str, Row]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[str, str] = field(default_factory=dict)
    data: list[Row] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    beside: list[Row] = field(default_factory=list)
    models: list[Row] = field(default_factory=list)

    def add(self, record: Row) -> None:
        if start := record.get("start"):
            self.name, self.start, self.kind = start["name"], start["time"], start["tags"]["dspy_trace.kind"]
            self.parent, self.parent_id = start["parent"], start["parent_id"]
        for name in ("params", "tags", "files"):
            getattr(self, name).update(record.get(name, {}))
        for name in ("data", "traces", "beside"):
            getattr(self, name).extend(record.get(name, []))
        for key, value, _, step in record.get("metrics", []):
            self.metrics[key].append((step, value))
        for table, key, row in record.get("rows", []):
            self.tables[table][key] = row
        self.models += [record["model"]] if "model" in record else []
        if end := record.get("end"):
            self.status, self.end = end["status"], end["time"]

    def table(self, name: str) -> list[Row]:
        """Return the rows of a table, in order."""
        return [row for _, row in sorted(self.tables[name].items())]

    def last(self, metric: str) -> float | None:
        """Return the last value of a metric."""
        return self.metrics[metric][-1][1] if metric in self.metrics else None


def runs(kept: Kept) -> list[Told]:
    """Return the runs in the spool, in the order in which they began."""
    kept.out.runs.write_out()
    found: dict[str, Told] = {}
    query = (
        "SELECT run, payload, uri, experiment_id || experiment_name FROM runs JOIN targets ON targets.id = target"
        " ORDER BY runs.id"
    )
    for run, payload, uri, experiment in kept.out.delivery.file().read(query):
        told = found.setdefault(run, Told(run, uri=uri, experiment=experiment))
        told.add(orjson.loads(payload))
    return list(found.values())


def tree(told: list[Told]) -> str:
    """Return runs as an indented tree, with the last of their scores and their state if they have not finished."""
    lines = [""]

    def add(run: Told, depth: int) -> None:
        state = "" if run.status == "FINISHED" else f" {run.status}"
        score = run.last("eval") if run.kind == "evaluation" else run.last("best")
        lines.append("  " * depth + run.name + ("" if score is None else f" {score:g}") + state)
        for inner in told:
            if inner.parent == run.id:
                add(inner, depth + 1)

    for run in told:
        if run.parent is None:
            add(run, 0)
    return "\n".join(lines) + "\n"


class QA(dspy.Module):
    """The program that is evaluated and compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        if question == "broken":
            raise ValueError("cannot answer")
        return self.ask(question=question)


def example(question: str, answer: str = "a") -> dspy.Example:
    return dspy.Example(question=question, answer=answer).with_inputs("question")


def exact(gold: Any, predicted: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> bool:
    """A metric."""
    return gold.answer == predicted.answer
