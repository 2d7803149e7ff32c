"""Which traces are wanted, in the words of MLflow's search."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dspy_trace.store import Unreadable
from dspy_trace.vocab import mlflow_keys as mlflow


@dataclass(frozen=True, slots=True)
class Wanted:
    """What traces are to have; each that is given narrows them.

    Attributes:
        errors: they failed.
        name: their name; ``*`` stands for anything.
        session: the session that they belong to.
        since: when they began at the earliest.
    """

    errors: bool = False
    name: str | None = None
    session: str | None = None
    since: datetime | None = None

    def __bool__(self) -> bool:
        return self.condition() is not None

    def condition(self) -> str | None:
        """Return the condition, ``None`` if all are wanted.

        Raises:
            Unreadable: MLflow's search has no way to say it.
        """
        parts = []
        if self.errors:
            parts.append("trace.status = 'ERROR'")
        if self.name is not None:
            # In MLflow's LIKE, % and _ of a name stand for others as well: that finds more, never less.
            told = ("LIKE", self.name.replace("*", "%")) if "*" in self.name else ("=", self.name)
            parts.append(f"trace.name {told[0]} {_quoted(told[1])}")
        if self.session is not None:
            parts.append(f"metadata.`{mlflow.TRACE_SESSION}` = {_quoted(self.session)}")
        if self.since is not None:
            parts.append(f"trace.timestamp_ms >= {int(self.since.timestamp() * 1_000)}")
        return " AND ".join(parts) or None


def _quoted(text: str) -> str:
    # There is no escape in it.
    mark = "'" if "'" not in text else '"'
    if mark in text or "\n" in text:
        raise Unreadable(f"MLflow's search cannot look for {text!r}: it holds both kinds of quotes, or a line break")
    return f"{mark}{text}{mark}"
