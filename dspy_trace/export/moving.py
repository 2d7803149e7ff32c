"""From one spool into another: what had to wait in memory, or in a file that has lost its name."""

from __future__ import annotations

from typing import Literal

from dspy_trace.export import records
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target


def move(source: Spool, into: Spool, owner: str, kind: Literal["http", "database"] | None = None) -> None:
    """Move what `owner` may take; without a `kind` of targets all of it, with its accounts and dead letters."""
    for number, target, sealed, _ in source.targets():
        if kind in (None, target.kind):
            locked = {target} if sealed else ()
            while batches := source.take(source.heads(number, target, owner), owner):
                for one in {batch.owner for batch in batches}:
                    into.put([batch for batch in batches if batch.owner == one], one, locked)
                source.forget(batches)
            _move_followups(source, into, number, target, sealed)
    if kind is None:
        records.close_accounts(source, into, owner)


def _move_followups(source: Spool, into: Spool, number: int, target: Target, sealed: bool) -> None:
    """Move all that follows traces of a target, whether it is due or not."""
    found = source.read("SELECT id, trace_id, kind, payload, owner FROM followups WHERE target = ?", number)
    for _, trace_id, kind, payload, owner in found:
        into.put_followup(target, trace_id, kind, payload, owner, sealed)
    with source.writing() as db:
        db.executemany("DELETE FROM followups WHERE id = ?", [(row[0],) for row in found])
