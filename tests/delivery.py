"""What the tests of delivery share: rows made by hand, deliveries of their own, and waiting with a deadline."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson

from dspy_trace.export.items import Batch
from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Credential, Target


def row(
    trace_id: str, parent_id: str | None = None, *, root: bool = False, name: str = "step", **more: Any
) -> dict[str, Any]:
    """Make a span as the translation makes it."""
    now = time.time_ns()
    return {
        "trace_id": trace_id,
        "span_id": more.pop("span_id", None) or secrets.token_hex(8),
        "parent_id": parent_id,
        "name": name,
        "start": now - 10_000_000,
        "end": now,
        "kind": "INTERNAL",
        "status": "OK",
        "message": "",
        "root": root,
        "attributes": {"mlflow.spanType": "CHAIN", **more},
        "events": [],
        "links": [],
    }


def trace(target: Target, spans: int = 3, *, info: Any = None, complete: bool = True, **attributes: Any) -> Batch:
    """Make a trace of so many spans, the root last; without it if it is not `complete`."""
    trace_id = secrets.token_hex(16)
    root = row(trace_id, root=True, name="program", **{"mlflow.traceTag.mlflow.traceName": "Program", **attributes})
    children = [row(trace_id, root["span_id"], name=f"step {n}") for n in range(spans - complete)]
    return batch(target, trace_id, [*children, root] if complete else children, complete, info)


def batch(target: Target, trace_id: str, rows: list[dict[str, Any]], complete: bool = True, info: Any = None) -> Batch:
    """Make a batch of rows."""
    told = None if info is None else orjson.dumps(info)
    return Batch(target, trace_id, orjson.dumps(rows), len(rows), complete, told)


def spans_of(*batches: Batch) -> set[tuple[str, str]]:
    """Return trace and span ids of what some batches hold."""
    return {(one["trace_id"], one["span_id"]) for made in batches for one in orjson.loads(made.payload)}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment with a spool of its own, in which no worker process is started."""
    return {"DSPY_TRACE_SPOOL_DIR": str(folder / "spool"), "DSPY_TRACE_WORKER": "off", **more}


@contextmanager
def delivering(
    environ: Mapping[str, str], credential: Credential | None = None, durability: str = "async"
) -> Iterator[Delivery]:
    """Give a delivery, and end its threads."""
    delivery = Delivery(durability=durability, credentials=lambda target: credential, environ=environ)
    try:
        yield delivery
    finally:
        threads = [one for one in (*delivery._runners, delivery._spare) if one is not None]
        delivery.shutdown(timeout=0.0)
        for thread in threads:
            thread.join(5.0)


def eventually(check: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Return what `check` returns once that is true; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.01)
    raise AssertionError(f"still {check()!r} after {timeout} s")


PAGE = 4096


def checkpoint(file: Path) -> None:
    """Have all that is in a spool written where it can be damaged."""
    with closing(sqlite3.connect(file, timeout=30.0)) as db:
        eventually(lambda: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


def halved(file: Path) -> None:
    """Cut it off in the middle."""
    os.truncate(file, file.stat().st_size // 2 // PAGE * PAGE)


def adds_up(delivery: Delivery, put: int) -> bool:
    """Return whether all that was put is accounted for."""
    counters = delivery.counters
    return put == counters.delivered + counters.waiting + counters.dead + sum(counters.dropped.values())


def lives(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
