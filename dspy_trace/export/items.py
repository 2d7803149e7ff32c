"""What a spool holds, as it goes in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dspy_trace.export.target import Target

Kind = Literal["spans", "info", "feedback", "run"]


@dataclass(slots=True)
class Batch:
    """Spans of one trace that were written together.

    Attributes:
        target: where they go.
        trace_id: MLflow's trace, 32 hexadecimal digits.
        payload: JSON list of rows, see :func:`dspy_trace.export.mlflow.row`.
        spans: number of rows.
        complete: whether a local root is among them; then the trace may be sent at once.
        info: JSON object of what is to be said of the trace as a whole, after its spans.
        id: of the row in the spool; 0 before.
        owner: process that wrote it.
        created: when it was written, in seconds since 1970.
        size: bytes of the payload.
    """

    target: Target
    trace_id: str
    payload: bytes
    spans: int
    complete: bool
    info: bytes | None = None
    id: int = 0
    owner: str = ""
    created: float = 0.0
    size: int = 0


@dataclass(slots=True)
class Followup:
    """What follows a trace: information on it as a whole, or feedback."""

    id: int
    target: Target
    trace_id: str
    kind: Kind
    payload: bytes
    owner: str
    created: float
    tries: int


@dataclass(slots=True)
class Dead:
    """What a server has refused, with its words."""

    trace_id: str
    kind: Kind
    payload: bytes
    reason: str
    spans: int = 0
    owner: str = ""


@dataclass(slots=True)
class Settled:
    """What has become of batches that were sent: those are deleted, and what is to follow them is put down."""

    batches: list[Batch]
    dead: list[Dead] = field(default_factory=list)
    infos: list[tuple[str, bytes, str]] = field(default_factory=list)
    """Of traces: id, payload and owner."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits in a spool."""

    spans: int = 0
    batches: int = 0
    bytes: int = 0
    followups: int = 0
    oldest_age: float = 0.0
    dead: int = 0
    runs: int = 0
    """Records of runs."""

    def said(self, one: str = "waits", several: str = "wait") -> str:
        """Return what it is with what it does, for one or for several: spans, else what runs have told, else notes."""
        if self.runs and not self.batches:
            return f"what runs have told {one}"
        if self.followups and not self.batches:
            return f"1 note on a trace {one}" if self.followups == 1 else f"{self.followups} notes on traces {several}"
        return f"1 span {one}" if self.spans == 1 else f"{self.spans} spans {several}"

    def __bool__(self) -> bool:
        return bool(self.batches or self.followups or self.runs)

    def __add__(self, other: Waiting) -> Waiting:
        return Waiting(
            self.spans + other.spans,
            self.batches + other.batches,
            self.bytes + other.bytes,
            self.followups + other.followups,
            max(self.oldest_age, other.oldest_age),
            self.dead + other.dead,
            self.runs + other.runs,
        )


@dataclass(frozen=True, slots=True)
class Counters:
    """What has become of the spans that this process has put, exactly: they add up to what was put.

    Attributes:
        delivered: acknowledged by the server or the database.
        waiting: in the spool.
        dead: refused for good, and kept as dead letters.
        dropped: given up, by reason.
        retried: sent in vain and sent again; over HTTP.
        bytes: payload of what waits.
        age: seconds that the oldest of it has waited.
    """

    delivered: int = 0
    waiting: int = 0
    dead: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    retried: int = 0
    bytes: int = 0
    age: float = 0.0
