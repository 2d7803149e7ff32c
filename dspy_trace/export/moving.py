"""From one spool into another: what had to wait in memory, or in a file that has lost its name."""

from __future__ import annotations

from typing import Literal

from dspy_trace.export import records
from dspy_trace.export.spool import Spool


def move(source: Spool, into: Spool, owner: str, kind: Literal["http", "database"] | None = None) -> None:
    """Move what `owner` may take; without a `kind` of targets all of it, with its accounts and dead letters."""
    for number, target, sealed, _ in source.targets():
        if kind in (None, target.kind):
            locked = {target} if sealed else ()
            while batches := source.take(source.heads(number, target, owner), owner):
                for one in {batch.owner for batch in batches}:
                    into.put([batch for batch in batches if batch.owner == one], one, locked)
                source.forget(batches)
            for followup in source.followups(number, target, owner, 1_000_000):
                into.put_followup(
                    target, followup.trace_id, followup.kind, followup.payload, followup.owner, bool(locked)
                )
                source.followed(followup)
    if kind is None:
        records.close_accounts(source, into, owner)
