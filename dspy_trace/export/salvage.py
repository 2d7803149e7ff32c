"""A broken spool: it is put aside, and whatever can still be read of what waited in it goes into a new one."""

from __future__ import annotations

import logging
import sqlite3
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic, time
from typing import Any

from dspy_trace.export.aside import put_aside, rename
from dspy_trace.export.locks import ProcessLock
from dspy_trace.export.spool import Spool, count
from dspy_trace.export.spoolfile import beside

logger = logging.getLogger("dspy_trace")

PATIENCE = 10.0
"""Seconds to wait for another process that mends the same spool."""

_TABLES = ("targets", "batches", "followups", "dead", "accounts", "problems", "runs", "run_ids", "run_rows")
_ADDRESSED = ("batches", "followups", "dead", "runs")
_NUMBERED = ("targets", *_ADDRESSED)
_TYPES = {"TEXT": str, "BLOB": bytes, "INTEGER": int, "REAL": float}

_SECONDS = 4.0
"""For what is left between pages that cannot be read, less than others have patience."""


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
        found = _salvage(path, Spool(new))
        aside = put_aside(path)
        rename(new, path)
    finally:
        broken.close()  # not before it has another name: SQLite would take the files beside the new one for its own
        lock.release()
    logger.warning(
        "dspy-trace: the spool %s is broken (%s). It was put aside as %s and a new one begun. %s that waited "
        "in it could be read and wait on%s; what could not has not been delivered.",
        path,
        why,
        aside.name,
        found.kept,
        found.lost,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What was in a broken spool: spans and records of runs that could be read, and at least so many that could not."""

    spans: int
    runs: int
    lost_spans: int
    lost_runs: int

    @property
    def kept(self) -> str:
        return _told(self.spans, self.runs)

    @property
    def lost(self) -> str:
        lost = self.lost_spans or self.lost_runs
        return f", at least {_told(self.lost_spans, self.lost_runs)} could not" if lost else ""


def _told(spans: int, runs: int) -> str:
    return f"{spans} spans" + (f" and {runs} records of runs" if runs else "")


def _salvage(broken: Path, made: Spool) -> _Found:
    """Copy what can be read of a broken spool into a new one, and count what cannot be."""
    with made.writing() as db, closing(sqlite3.connect(str(broken), timeout=1.0)) as source:
        # What is being sent meanwhile will be settled by its id, which is not given again if it cannot be read.
        db.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", [(one, int(time() * 1000)) for one in _ADDRESSED])
        with suppress(sqlite3.DatabaseError):  # it is none at all
            # So that SQLite reads what there is of a file that has been cut off.
            source.execute("PRAGMA writable_schema = ON")
        source.text_factory = lambda found: found.decode("utf-8", "replace")
        there = {name for (name,) in _readable(source, "SELECT name FROM sqlite_master")}
        until = monotonic() + _SECONDS
        for table in filter(there.__contains__, _TABLES):
            _copy(table, source, db, until)
        _copy_addresses(source, db)
        for table in _ADDRESSED:
            db.execute(f"DELETE FROM {table} WHERE target NOT IN (SELECT id FROM targets)")
        lost = _count_lost(source, db), len(_lost("runs", source, db))
    ((spans, runs),) = made.read("SELECT (SELECT total(spans) FROM batches), (SELECT count(*) FROM runs)")
    made.close()
    return _Found(int(spans), int(runs), *lost)


def _copy(table: str, source: sqlite3.Connection, db: sqlite3.Connection, until: float) -> None:
    """Copy of a table what can be read."""
    columns = db.execute(f"PRAGMA table_info({table})").fetchall()
    names = ", ".join(name for _, name, *_ in columns)
    query = f"SELECT {names} FROM {table}"
    if table in _NUMBERED:
        found = _around(source, query, _ids(table, source), until)
    else:
        keys = [name for _, name, _, _, _, key in columns if key]
        found = chain.from_iterable(
            _readable(source, f"{query} ORDER BY {', '.join(f'{name} {order}' for name in keys)}")
            for order in ("ASC", "DESC")
        )
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", (row for row in found if _fits(row, columns)))


def _copy_addresses(source: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Copy targets that cannot be read themselves out of their index; without one nothing for them could be sent."""
    names = "id, uri, experiment_id, experiment_name"
    found = _readable(source, f"SELECT {names} FROM targets ORDER BY uri, experiment_id, experiment_name")
    db.executemany(f"INSERT OR IGNORE INTO targets ({names}) VALUES (?, ?, ?, ?)", found)


def _ids(table: str, source: sqlite3.Connection) -> Sequence[int]:
    """Return the ids of a table's rows, from an index where there is one; else all that it may have given."""
    most = 2**62
    with suppress(sqlite3.DatabaseError):
        listed = [number for (number,) in source.execute(f"SELECT id FROM {table}") if type(number) is int]
        return sorted({1, *listed, most})
    given = dict(_readable(source, "SELECT name, seq FROM sqlite_sequence")).get(table)
    return range(1, (given if type(given) is int and 0 < given < most else most) + 1)


def _around(source: sqlite3.Connection, query: str, ids: Sequence[int], until: float) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of these ids that can be read, on either side of each page that cannot be.

    What is left between the first that fails and the last is halved, and so on, `until` a moment. What is on either
    side of all of them is always read.
    """
    left = deque([ids])
    while left:
        part = left.popleft()
        for order in ("ASC", "DESC"):
            last = 0 if order == "ASC" else 2**63
            try:
                for row in source.execute(f"{query} WHERE id BETWEEN ? AND ? ORDER BY id {order}", (part[0], part[-1])):
                    last = row[0]
                    yield row
            except sqlite3.DatabaseError:
                part = part[bisect_right(part, last) :] if order == "ASC" else part[: bisect_left(part, last)]
            else:
                part = ()
            if not part:
                break
        if len(part) > 1:
            left += (part[: len(part) // 2], part[len(part) // 2 :])
        if monotonic() > until:
            return


def _lost(table: str, source: sqlite3.Connection, db: sqlite3.Connection) -> dict[int, str]:
    """Return the rows that an index has and that have not been copied, each with who put it."""
    copied = {number for (number,) in db.execute(f"SELECT id FROM {table}")}
    listed = _readable(source, f"SELECT id, owner FROM {table} INDEXED BY {table}_by_owner")
    return {number: owner for number, owner in listed if type(owner) is str and number not in copied}


def _count_lost(source: sqlite3.Connection, db: sqlite3.Connection) -> int:
    """Count the spans that are lost, as dropped: one for a batch of which nothing is left; who lives counts more."""
    lost = 0
    for number, owner in _lost("batches", source, db).items():
        (spans,) = next(_readable(source, f"SELECT spans FROM batches WHERE id = {number}"), (None,))
        spans = spans if type(spans) is int and spans > 0 else 1
        count(db, owner, "dropped: spool broken", spans)
        lost += spans
    return lost


def _readable(source: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.DatabaseError):
        yield from source.execute(query)


def _fits(row: tuple[Any, ...], columns: list[tuple[Any, ...]]) -> bool:
    """Return whether a row can be one of ours: pages of another table may stand where its own were."""
    return all(
        isinstance(value, _TYPES[kind]) or (value is None and not (needed or key))
        for value, (_, _, kind, needed, _, key) in zip(row, columns, strict=True)
    )
