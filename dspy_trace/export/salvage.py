"""Out of a broken spool: whatever can still be read of what waited in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dspy_trace.export.items import Batch
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target

_BATCHES = "SELECT id, target, trace_id, owner, spans, complete, payload, info FROM batches ORDER BY id"


def salvage(broken: Path, spool: Spool) -> int:
    """Put what can be read of a broken spool into another; return the number of spans."""
    saved = 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(str(broken), timeout=1.0)) as connection:
        # So that SQLite reads what there is of a file that has been cut off.
        connection.execute("PRAGMA writable_schema = ON")
        found = connection.execute("SELECT id, uri, experiment_id, experiment_name, sealed FROM targets").fetchall()
        targets = {
            number: (Target(uri, ident or None, name or None), sealed) for number, uri, ident, name, sealed in found
        }
        rows: dict[int, tuple[Any, ...]] = {}
        for order in ("", " DESC"):  # up to what cannot be read, from both ends
            rows.update(_readable(connection, _BATCHES + order))
        for _, (target_id, trace_id, owner, spans, complete, payload, info) in sorted(rows.items()):
            if target_id in targets and isinstance(payload, bytes):
                target, sealed = targets[target_id]
                batch = Batch(target, trace_id, payload, spans, bool(complete), info)
                spool.put([batch], owner, {target} if sealed else ())
                saved += spans
    return saved


def _readable(connection: sqlite3.Connection, query: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    with suppress(sqlite3.DatabaseError):
        for row in connection.execute(query):
            yield row[0], row[1:]
