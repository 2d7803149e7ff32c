"""Records of runs in the spool: kept in order for each run, deleted when MLflow has them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time

from dspy_trace.export.items import Dead
from dspy_trace.export.spool import Spool, bury, number_of
from dspy_trace.export.target import Target

MOST_BYTES = 256 * 2**20
"""Payload of records that wait; more is refused, and counted by who puts it."""


@dataclass(frozen=True, slots=True)
class Record:
    """Something to be told of a run.

    Attributes:
        target: where the run is.
        run: our id of it.
        payload: JSON object, with some of ``start``, ``params``, ``metrics``, ``tags``, ``data``, ``rows`` of tables,
            ``files``, a ``model``, ``traces``, metrics of runs ``beside``, and ``end``.
        ends: whether it tells the end of the run.
    """

    target: Target
    run: str
    payload: bytes
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A record as it comes out of the spool."""

    id: int
    owner: str
    payload: bytes


def put(spool: Spool, records: Iterable[Record], owner: str, sealed: Container[Target] = ()) -> int:
    """Write records; return how many there was no room for."""
    now, refused = time(), 0
    with spool.writing() as db:
        (size,) = db.execute("SELECT n FROM totals WHERE name = 'run bytes'").fetchone()
        for record in records:
            size += len(record.payload)
            if size > MOST_BYTES:
                refused += 1
                continue
            number = number_of(db, record.target, record.target in sealed)
            db.execute(
                "INSERT INTO runs (target, run, owner, created, bytes, payload, ends) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, record.run, owner, now, len(record.payload), record.payload, record.ends),
            )
    return refused


def move(source: Spool, into: Spool, owner: str) -> None:
    """Move the records of one owner from one spool into another."""
    for number, target, sealed, _ in source.targets():
        query = "SELECT run, payload, ends FROM runs WHERE target = ? AND owner = ? ORDER BY id"
        records = [Record(target, run, payload, bool(ends)) for run, payload, ends in source.read(query, number, owner)]
        put(into, records, owner, {target} if sealed else ())
        with source.writing() as db:
            db.execute("DELETE FROM runs WHERE target = ? AND owner = ?", (number, owner))


def waiting_runs(spool: Spool, target_id: int) -> list[str]:
    """Return the runs of which something waits, in the order in which they began."""
    found = spool.read("SELECT run FROM runs WHERE target = ? GROUP BY run ORDER BY min(id)", target_id)
    return [run for (run,) in found]


def take(spool: Spool, target_id: int, run: str, most_bytes: int = 16 * 2**20) -> list[Taken]:
    """Return what waits of a run, oldest first, up to a size."""
    found = spool.read("SELECT id, bytes FROM runs WHERE target = ? AND run = ? ORDER BY id", target_id, run)
    taken: list[Taken] = []
    for number, size in found:
        most_bytes -= size
        if taken and most_bytes < 0:
            break
        taken += [Taken(*row) for row in spool.read("SELECT id, owner, payload FROM runs WHERE id = ?", number)]
    return taken


def settle(spool: Spool, target_id: int, run: str, taken: Sequence[Taken], refused: str | None, ended: bool) -> None:
    """Delete what has been written, with the rows of the run's tables if it has ended; or keep it as refused."""
    with spool.writing() as db:
        for one in taken:
            db.execute("DELETE FROM runs WHERE id = ?", (one.id,))
            if refused is not None:
                bury(db, target_id, Dead(run, "run", one.payload, refused, 0, one.owner), time())
        if ended:
            db.execute("DELETE FROM run_rows WHERE run = ?", (run,))


def has_ended(spool: Spool, run: str) -> bool:
    """Return whether the end of a run waits."""
    return bool(spool.read("SELECT 1 FROM runs WHERE run = ? AND ends LIMIT 1", run))


def mlflow_id(spool: Spool, run: str) -> str | None:
    """Return MLflow's id of a run, if it has one by now."""
    found = spool.read("SELECT mlflow_id FROM run_ids WHERE run = ?", run)
    return str(found[0][0]) if found else None


def note_id(spool: Spool, run: str, mlflow_id: str) -> None:
    """Keep the id that MLflow has given a run."""
    with spool.writing() as db:
        db.execute("INSERT OR REPLACE INTO run_ids VALUES (?, ?, ?)", (run, mlflow_id, time()))


def add_rows(spool: Spool, run: str, name: str, rows: Mapping[str, bytes]) -> None:
    """Keep rows of a table; one with the same key takes the place of the one before."""
    now = time()
    with spool.writing() as db:
        db.executemany(
            "INSERT OR REPLACE INTO run_rows VALUES (?, ?, ?, ?, ?)",
            [(run, name, key, now, payload) for key, payload in rows.items()],
        )


def rows(spool: Spool, run: str, name: str) -> list[bytes]:
    """Return the rows of a table, in the order of their keys."""
    found = spool.read("SELECT payload FROM run_rows WHERE run = ? AND name = ? ORDER BY key", run, name)
    return [payload for (payload,) in found]
