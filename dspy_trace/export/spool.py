"""What waits for delivery: written within a fifth of a second of its end, deleted when it has been acknowledged.

Processes share one spool. A row is *held* by one process for a time; what a process has put there it holds first, and
whatever the holder leaves behind others may take when the time is up. So a process that dies loses nothing, and nothing
is sent by two at once.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Container, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

from dspy_trace.export.aside import tidy
from dspy_trace.export.items import Batch, Dead, Followup, Kind, Settled
from dspy_trace.export.many import insert, of
from dspy_trace.export.spoolfile import SpoolFile
from dspy_trace.export.target import Target

__all__ = ["Batch", "Spool"]

FIRST_HOLD = 30.0
"""Seconds that rows are held by the process that wrote them, before others may take them."""

HOLD = 90.0
"""Seconds that rows are held while they are being sent; longer than any request."""

FOREVER = 10 * HOLD
"""A hold that ends later than this was made under another clock."""


class Spool(SpoolFile):
    """The rows that wait, and the rules of who takes them.

    Args:
        path: its file, or ``None`` for memory.
        most_bytes: payload that it holds; beyond, the oldest is dropped and counted.
        most_seconds: age beyond which rows are dropped and counted.
    """

    def __init__(self, path: Path | None, most_bytes: int = 256 * 2**20, most_seconds: float = 7 * 86_400) -> None:
        super().__init__(path)
        self.most_bytes = most_bytes
        self.most_seconds = most_seconds

    def put(self, batches: Iterable[Batch], owner: str, sealed: Container[Target] = ()) -> None:
        """Write batches, all or none. Those in `sealed` go where only the holder of a credential gets in."""
        now = time()
        numbers: dict[Target, int] = {}
        rows: list[tuple[Any, ...]] = []
        with self.writing() as db:
            for batch in batches:
                target = batch.target
                if target not in numbers:
                    numbers[target] = number_of(db, target, target in sealed)
                # The worker takes what goes to a database; nobody holds it before.
                until = now + FIRST_HOLD if target.kind == "http" else 0.0
                fields = (numbers[target], batch.trace_id, owner, owner, until, now, batch.spans, len(batch.payload))
                rows.append((*fields, batch.complete, batch.payload, batch.info))
            insert(db, _PUT, rows)
            self._bound(db)

    def put_followup(self, target: Target, trace_id: str, kind: Kind, payload: bytes, owner: str, sealed: bool) -> None:
        """Write what follows a trace."""
        with self.writing() as db:
            _follow(db, number_of(db, target, sealed), kind, [(trace_id, payload, owner)])

    def targets(self, uri: str | None = None) -> list[tuple[int, Target, bool, str]]:
        """Return the targets known: id, target, whether a credential opens it, and the folder of the program."""
        found = self.read(
            "SELECT id, uri, experiment_id, experiment_name, sealed, folder FROM targets WHERE uri = ? OR ? IS NULL",
            uri,
            uri,
        )
        return [
            (number, Target(uri, ident or None, name or None), bool(sealed), folder)
            for number, uri, ident, name, sealed, folder in found
        ]

    def heads(self, target_id: int, target: Target, holder: str, most: int = 1_000) -> list[Batch]:
        """Return what `holder` may take for a target, oldest first, without the payload."""
        now = time()
        ((found,),) = self.read(_HEADS, target_id, holder, now, now + FOREVER, most)
        return [_head(target, *line.split()) for line in (found or "").split("\n") if line]

    def take(self, heads: Sequence[Batch], holder: str) -> list[Batch]:
        """Hold batches and return them with their payload, but for those that somebody else has taken."""
        with self.writing() as db:
            return _taken(db, heads, holder)

    def settle(self, target_id: int, settled: Settled) -> None:
        """Delete what was delivered or refused, count it, keep what was refused, put down what follows: in one step."""
        now = time()
        with self.writing() as db:
            left = _left(db, settled.batches)
            of(db, "DELETE FROM batches WHERE id IN", left)
            delivered, there = Counter[str](), set()
            for batch in left:
                delivered[batch.owner] += batch.spans
                there.add((batch.trace_id, batch.owner))
            for dead in settled.dead:
                if (dead.trace_id, dead.owner) in there:
                    delivered[dead.owner] -= dead.spans
                    bury(db, target_id, dead, now)
            for owner, spans in delivered.items():
                count(db, owner, "delivered", spans)
            infos = [told for told in settled.infos if (told[0], told[2]) in there]
            _follow(db, target_id, "info", infos)
            if settled.dead:
                self._bound_dead(db)

    @contextmanager
    def giving(self, heads: Sequence[Batch], holder: str) -> Generator[list[Batch]]:
        """Take batches for the block to put into another spool, and delete them after it: nothing settles them here."""
        with self.writing() as db:
            yield (taken := _taken(db, heads, holder))
            of(db, "DELETE FROM batches WHERE id IN", taken)

    def followups(self, target_id: int, target: Target, holder: str, most: int) -> list[Followup]:
        """Return what may follow now, oldest first, and hold it: nothing of its trace waits."""
        now = time()
        with self.writing() as db:
            rows = db.execute(_FOLLOWUPS, (target_id, now, holder, now, most)).fetchall()
            found = [Followup(row[0], target, *row[1:]) for row in rows]
            of(db, "UPDATE followups SET holder = ?, until = ? WHERE id IN", found, before=(holder, now + HOLD))
        return found

    def followed(self, followup: Followup) -> None:
        """Delete what has been delivered."""
        with self.writing() as db:
            db.execute("DELETE FROM followups WHERE id = ?", (followup.id,))

    def postpone(self, followup: Followup, seconds: float, *, failed: bool = True) -> None:
        """Try again later, whether this was a try or not."""
        with self.writing() as db:
            values = (failed, time() + seconds, followup.id)
            db.execute("UPDATE followups SET tries = tries + ?, until = 0, not_before = ? WHERE id = ?", values)

    def refuse(self, target_id: int, followup: Followup, reason: str) -> None:
        """Keep what the server has refused as a dead letter."""
        dead = Dead(followup.trace_id, followup.kind, followup.payload, reason, 0, followup.owner)
        with self.writing() as db:
            db.execute("DELETE FROM followups WHERE id = ?", (followup.id,))
            bury(db, target_id, dead, time())

    def release(self, holder: str) -> None:
        """Let others take what `holder` holds."""
        with self.writing() as db:
            for table in ("batches", "followups"):
                db.execute(f"UPDATE {table} SET until = 0 WHERE holder = ? AND until > 0", (holder,))

    def _bound(self, db: sqlite3.Connection) -> None:
        """Drop the oldest rows beyond the bounds, and count them."""
        (size,) = db.execute("SELECT n FROM totals WHERE name = 'bytes'").fetchone()
        if size > self.most_bytes:
            found = db.execute("SELECT id, owner, spans, bytes FROM batches ORDER BY id LIMIT 1000").fetchall()
            for number, owner, spans, each in found:
                if size <= self.most_bytes:
                    break
                db.execute("DELETE FROM batches WHERE id = ?", (number,))
                count(db, owner, "dropped: spool full", spans)
                size -= each

    def trim(self) -> None:
        """Drop what is too old, count it, and give back the disk that a long outage, or a broken spool, has used."""
        before = time() - self.most_seconds
        with self.writing() as db:
            for owner, spans in db.execute(
                "SELECT owner, sum(spans) FROM batches WHERE created < ? GROUP BY owner", (before,)
            ).fetchall():
                count(db, owner, "dropped: too old", spans)
            for table in ("batches", "followups", "runs", "run_ids", "run_rows"):
                db.execute(f"DELETE FROM {table} WHERE created < ?", (before,))
            self._bound_dead(db, before)
        (pages,) = self.read("PRAGMA page_count")[0]
        if pages > 4_096 and not self.read("SELECT 1 FROM batches LIMIT 1"):
            self.read("VACUUM")
        if self.path is not None:
            tidy(self.path)

    def _bound_dead(self, db: sqlite3.Connection, before: float = 0.0) -> None:
        size = 0
        found = db.execute("SELECT id, owner, spans, length(payload), created FROM dead ORDER BY id DESC").fetchall()
        for number, owner, spans, each, created in found:
            size += each
            if size > self.most_bytes // 4 or created < before:
                db.execute("DELETE FROM dead WHERE id = ?", (number,))
                count(db, owner, "dead", -spans)
                count(db, owner, "dropped: dead letters full", spans)


_PUT = "INSERT INTO batches (target, trace_id, owner, holder, until, created, spans, bytes, complete, payload, info)"
_HEADS = """SELECT group_concat(id || ' ' || owner || ' ' || trace_id || ' ' || created || ' ' || spans || ' ' || bytes
    || ' ' || complete, char(10)) FROM (SELECT * FROM batches
    WHERE target = ? AND (holder = ? OR until < ? OR until > ?) ORDER BY id LIMIT ?)"""
_TAKE = "UPDATE batches SET holder = ?, until = ? WHERE (holder = ? OR until < ? OR until > ?) AND id IN"
_TAKEN = "SELECT id, payload, info FROM batches WHERE holder = ? AND until = ? AND id IN"
_FOLLOW = "INSERT INTO followups (target, trace_id, kind, owner, holder, until, created, payload)"
_FOLLOWUPS = """SELECT id, trace_id, kind, payload, owner, created, tries FROM followups AS f
    WHERE target = ? AND not_before <= ? AND (holder = ? OR until < ?)
    AND NOT EXISTS (SELECT 1 FROM batches AS b WHERE b.trace_id = f.trace_id) ORDER BY id LIMIT ?"""


def _head(
    target: Target, number: str, owner: str, trace_id: str, created: str, spans: str, size: str, complete: str
) -> Batch:
    sizes = int(spans), bool(int(complete)), None, int(number), owner, float(created), int(size)
    return Batch(target, trace_id, b"", *sizes)


def _left(db: sqlite3.Connection, batches: Sequence[Batch]) -> Sequence[Batch]:
    """Return those that are still there: nearly always all."""
    if sum(n for (n,) in of(db, "SELECT count(*) FROM batches WHERE id IN", batches)) == len(batches):
        return batches
    left = {number for (number,) in of(db, "SELECT id FROM batches WHERE id IN", batches)}
    return [batch for batch in batches if batch.id in left]


def _taken(db: sqlite3.Connection, heads: Sequence[Batch], holder: str) -> list[Batch]:
    now = time()
    of(db, _TAKE, heads, before=(holder, now + HOLD, holder, now, now + FOREVER))
    found = {number: told for number, *told in of(db, _TAKEN, heads, before=(holder, now + HOLD))}
    taken = [head for head in heads if head.id in found]
    for head in taken:
        head.payload, head.info = found[head.id]
    return taken


def number_of(db: sqlite3.Connection, target: Target, sealed: bool) -> int:
    """Return the number of a target, which is noted if it is new."""
    names = (target.uri, target.experiment_id or "", target.experiment_name or "")
    where = "uri = ? AND experiment_id = ? AND experiment_name = ?"
    found = db.execute(f"SELECT id, sealed FROM targets WHERE {where}", names).fetchone()
    if found is None:
        # MLflow keeps artifacts beneath the working folder of who creates an experiment; the worker's is another.
        values = (*names, sealed, _working_folder())
        return (
            db.execute(
                "INSERT INTO targets (uri, experiment_id, experiment_name, sealed, folder) VALUES (?, ?, ?, ?, ?)",
                values,
            ).lastrowid
            or 0
        )
    if sealed and not found[1]:
        db.execute("UPDATE targets SET sealed = 1 WHERE id = ?", (found[0],))
    return int(found[0])


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _follow(db: sqlite3.Connection, target_id: int, kind: str, told: Sequence[tuple[str, bytes, str]]) -> None:
    """Put down what follows some traces: the trace's id, the payload and the owner of each."""
    now = time()
    rows = [(target_id, trace_id, kind, owner, owner, 0.0, now, payload) for trace_id, payload, owner in told]
    insert(db, _FOLLOW, rows)


def bury(db: sqlite3.Connection, target_id: int, dead: Dead, now: float) -> None:
    """Keep what was refused."""
    values = (target_id, dead.trace_id, dead.kind, dead.owner, now, dead.spans, dead.reason, dead.payload)
    db.execute(
        "INSERT INTO dead (target, trace_id, kind, owner, created, spans, reason, payload)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    count(db, dead.owner, "dead", dead.spans)


def count(db: sqlite3.Connection, owner: str, name: str, n: int) -> None:
    """Add to the accounts of a process."""
    if n:
        db.execute(
            "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT (owner, name) DO UPDATE SET n = n + excluded.n",
            (owner, name, n),
        )
