"""A broken spool: it is put aside, and whatever can still be read of what waited in it goes into a new one."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import time
from typing import Any

from dspy_trace.export.locks import ProcessLock
from dspy_trace.export.spool import Spool
from dspy_trace.export.spoolfile import beside

logger = logging.getLogger("dspy_trace")

PATIENCE = 10.0
"""Seconds to wait for another process that mends the same spool."""

_TABLES = ("targets", "batches", "followups", "dead", "accounts", "problems", "runs", "run_ids", "run_rows")
_ADDRESSED = ("batches", "followups", "dead", "runs")
_TYPES = {"TEXT": str, "BLOB": bytes, "INTEGER": int, "REAL": float}


def mend(broken: Spool) -> None:
    """Put a spool that is broken aside, and a new one in its place, with what can be read of it, ids and all.

    Nothing is done if another process has. The spool is closed; what opens it again opens the new one.

    Raises:
        OSError: the folder cannot be written.
        sqlite3.Error: the new spool cannot be written, or another process does not come to an end with it.
    """
    path, why = broken.path, broken.broken
    assert path is not None
    lock = ProcessLock(path.with_name(f"{path.name}.mending"))
    if not lock.acquire(timeout=PATIENCE):
        raise sqlite3.OperationalError(
            f"it is broken ({why}), and its folder cannot be written, or another process mends it"
        )
    try:
        if broken.has_vanished():
            return
        new = path.with_name(f"{path.name}.new")
        for left in (new, *beside(new)):  # by a process that was killed here
            left.unlink(missing_ok=True)
        spans, runs = _salvage(path, Spool(new))
        aside = path.with_name(f"{path.name}.broken-{time():.3f}")
        _rename(path, aside)
        _rename(new, path)
    finally:
        broken.close()  # not before it has another name: SQLite would take the files beside the new one for its own
        lock.release()
    logger.warning(
        "dspy-trace: the spool %s is broken (%s). It was put aside as %s and a new one begun. %d spans%s that waited "
        "in it could be read and wait on; what could not has not been delivered.",
        path,
        why,
        aside.name,
        spans,
        f" and {runs} records of runs" if runs else "",
    )


def was_put_aside(spool: Spool) -> bool:
    """Return whether another process has found a spool broken that is still open here."""
    path = spool.path
    return path is not None and any(map(spool.is_named, path.parent.glob(f"{path.name}.broken-*")))


def _rename(path: Path, name: Path) -> None:
    """Give a database another name; first what SQLite has beside it, which it would take for that of the next one."""
    for old, new in zip((*beside(path), path), (*beside(name), name), strict=True):
        with suppress(FileNotFoundError):
            old.replace(new)


def _salvage(broken: Path, made: Spool) -> tuple[int, int]:
    """Copy what can be read of a broken spool into a new one; return the number of spans and of records of runs."""
    with made.writing() as db:
        # What is being sent meanwhile will be settled by its id, which is not given again if it cannot be read.
        db.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", [(one, int(time() * 1000)) for one in _ADDRESSED])
        with suppress(sqlite3.Error), closing(sqlite3.connect(str(broken), timeout=1.0)) as source:
            # So that SQLite reads what there is of a file that has been cut off.
            source.execute("PRAGMA writable_schema = ON")
            source.text_factory = lambda found: found.decode("utf-8", "replace")
            for table in _TABLES:
                _copy(table, source, db)
        for table in _ADDRESSED:
            db.execute(f"DELETE FROM {table} WHERE target NOT IN (SELECT id FROM targets)")
    ((spans, runs),) = made.read("SELECT (SELECT total(spans) FROM batches), (SELECT count(*) FROM runs)")
    made.close()
    return int(spans), int(runs)


def _copy(table: str, source: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Copy a table up to what cannot be read, from both ends."""
    columns = db.execute(f"PRAGMA table_info({table})").fetchall()
    names = ", ".join(name for _, name, *_ in columns)
    marks = ", ".join("?" * len(columns))
    for order in ("ASC", "DESC"):
        keys = ", ".join(f"{name} {order}" for _, name, _, _, _, key in columns if key)
        found = _readable(source, f"SELECT {names} FROM {table} ORDER BY {keys}")
        fitting = (row for row in found if _fits(row, columns))
        db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", fitting)


def _readable(source: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.DatabaseError):
        yield from source.execute(query)


def _fits(row: tuple[Any, ...], columns: list[tuple[Any, ...]]) -> bool:
    """Return whether a row can be one of ours: pages of another table may stand where its own were."""
    return all(
        isinstance(value, _TYPES[kind]) or (value is None and not (needed or key))
        for value, (_, _, kind, needed, _, key) in zip(row, columns, strict=True)
    )
