"""Waiting for delivery, ending it, accounts of it, and feedback on what was delivered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any, Final, Literal, get_args

import orjson

from dspy_trace.autologging import autolog, end_metrics
from dspy_trace.export.outlet import existing, outlet
from dspy_trace.guard import shielded
from dspy_trace.observing.last import last_trace
from dspy_trace.settings import LIMIT
from dspy_trace.values.jsonable import dumps
from dspy_trace.values.scalars import text

Source = Literal["HUMAN", "LLM_JUDGE", "CODE"]

FOREVER: Final = 1e8
"""Seconds that stand for no bound: more are too many for a thread to wait."""

SOURCES: Final = get_args(Source)
"""Who may say what is said of a trace."""


def flush(timeout: float = 30.0) -> bool:
    """Deliver everything that was recorded so far.

    Args:
        timeout: longest time to wait, in seconds.

    Returns:
        whether nothing waits any more.

    Raises:
        TypeError: `timeout` is no number.
    """
    seconds = _seconds(timeout)
    return all(shielded("flushing", out.flush, seconds) for out in existing())


def shutdown(timeout: float = 5.0, *, worker: bool = False) -> None:
    """Stop tracing, write out what is left and end our threads. DSPy is restored.

    Args:
        timeout: longest time to take, in seconds; less than one counts as one where something holds it up.
        worker: also end the process that writes into databases, which otherwise ends by itself when it is idle.

    Raises:
        TypeError: `timeout` is no number.
    """
    seconds = _seconds(timeout)
    autolog(disable=True)
    until = time.monotonic() + seconds
    end_metrics(seconds)
    for out in existing():
        shielded("shutting down", out.shutdown, max(until - time.monotonic(), 0.0), worker)


def _seconds(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or isnan(timeout):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    return min(max(timeout, 0.0), FOREVER)


@dataclass(frozen=True, slots=True)
class Stats:
    """What has become of the spans of this process, those of the application's own included.

    ``observed = queued + spooled + delivered + dead + filtered + sum(dropped.values())``

    Attributes:
        observed: spans that ended.
        queued: waiting in memory.
        spooled: waiting in the spool.
        delivered: acknowledged by the tracking store.
        dead: refused by it for good, and kept as dead letters.
        filtered: of traces that hold no DSPy call.
        dropped: given up, by reason.
        retried: sent in vain and sent again; over HTTP.
        bytes: payload that waits in the spool.
        age: seconds that the oldest of it has waited.
    """

    observed: int = 0
    queued: int = 0
    spooled: int = 0
    delivered: int = 0
    dead: int = 0
    filtered: int = 0
    dropped: Mapping[str, int] | None = None
    retried: int = 0
    bytes: int = 0
    age: float = 0.0


def stats() -> Stats:
    """Return the accounts of this process."""
    if not existing():
        return Stats(dropped={})
    out = existing()[0]
    counts, (delivered, refused) = out.processor.counted(out.accounts)
    dropped = {**delivered.dropped, "queue full": counts.dropped, **refused}
    return Stats(
        observed=counts.observed,
        queued=counts.queued,
        spooled=delivered.waiting,
        delivered=delivered.delivered,
        dead=delivered.dead,
        filtered=counts.filtered,
        dropped={reason: number for reason, number in dropped.items() if number},
        retried=delivered.retried,
        bytes=delivered.bytes,
        age=delivered.age,
    )


def last_trace_id() -> str | None:
    """Return the OpenTelemetry id of the trace that ended last in this task or thread, 32 hex digits.

    MLflow's id of it is ``tr-`` and the same digits. In a :func:`dspy_trace.session`, and once a program has been
    called here directly, what ``asyncify``, ``streamify``, ``Parallel`` and tasks have done for this task counts, too.
    """
    trace_id = last_trace.get()
    return None if trace_id is None else f"{trace_id:032x}"


def log_feedback(
    trace_id: str,
    name: str,
    value: float | int | str | bool | list[Any] | dict[str, Any],
    rationale: str | None = None,
    *,
    source_type: Source = "HUMAN",
    source_id: str = "default",
    metadata: Mapping[str, str] | None = None,
    span_id: str | None = None,
) -> None:
    """Attach feedback to a trace, as an MLflow assessment. It is delivered after the trace, never before.

    Args:
        trace_id: OpenTelemetry's or MLflow's id of the trace.
        name: name of the assessment. Example: ``helpful``.
        value: what was said.
        rationale: why.
        source_type: who said it.
        source_id: which of them. Example: a user's id.
        metadata: texts by name.
        span_id: span that is meant, 16 hex digits; the whole trace by default.

    Raises:
        TypeError: an argument has the wrong type, such as a `trace_id` of ``None``, or JSON has no such value.
        ValueError: `trace_id`, `span_id` or `source_type` is none, `name` is empty, or `value` is no finite number.
        dspy_trace.export.target.BadTarget: the tracking URI is one that traces cannot be kept in.
    """
    texts = {"trace_id": trace_id, "name": name, "source_type": source_type, "source_id": source_id}
    optional = {"rationale": rationale, "span_id": span_id}
    _check_texts({**texts, **{what: given for what, given in optional.items() if given is not None}})
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping, not {type(metadata).__name__}")
    digits = _digits("trace_id", trace_id.removeprefix("tr-"), 32)
    if not name:
        raise ValueError("name must not be empty")
    if source_type not in SOURCES:
        raise ValueError(f"source_type must be one of {SOURCES}, not {source_type!r}")
    told: dict[str, Any] = {
        "name": text(name),
        "value": _json(value),
        "time": time.time_ns(),
        "source_type": source_type,
        "source_id": text(source_id),
        "rationale": text(rationale, LIMIT),
        "metadata": {text(str(key)): text(str(item), LIMIT) for key, item in (metadata or {}).items()},
        "span_id": None if span_id is None else _digits("span_id", span_id, 16),
    }
    outlet().feedback(digits, {key: item for key, item in told.items() if key == "value" or item})


def _check_texts(told: Mapping[str, Any]) -> None:
    for what, given in told.items():
        if not isinstance(given, str):
            hint = "; last_trace_id() gives None where it knows of no trace" if what == "trace_id" else ""
            raise TypeError(f"{what} must be a string, not {type(given).__name__}{hint}")


def _digits(what: str, given: str, length: int) -> str:
    digits = given.lower()
    if len(digits) != length or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{what} must be {length} hexadecimal digits, not {given!r}")
    return digits


def _json(value: Any) -> Any:
    """Return a value as plain data."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"value must be finite, not {value}")
    plain = orjson.loads(dumps(value))
    # What JSON has no word for is told as a text.
    if plain is None or (isinstance(plain, str) and not isinstance(value, str)):
        raise TypeError(f"value must be a number, text, bool, list or dict, not {type(value).__name__}")
    return plain
