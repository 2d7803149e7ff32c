"""What is found in a spool that others have left, and what has to go from one spool into another."""

from __future__ import annotations

import logging
from typing import Literal

from dspy_trace.export import records
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from dspy_trace.runs import spooled

logger = logging.getLogger("dspy_trace")


def move(source: Spool, into: Spool, owner: str, kind: Literal["http", "database"] | None = None) -> None:
    """Move what `owner` may take; without a `kind` of targets all of it, with its accounts and dead letters."""
    for number, target, sealed, _ in source.targets():
        if kind in (None, target.kind):
            locked = {target} if sealed else ()
            while heads := source.heads(number, target, owner):
                with source.giving(heads, owner) as batches:
                    for one in {batch.owner for batch in batches}:
                        into.put([batch for batch in batches if batch.owner == one], one, locked)
            _move_followups(source, into, number, target, sealed)
    spooled.move(source, into, owner)
    if kind is None:
        records.close_accounts(source, into, owner)


def _move_followups(source: Spool, into: Spool, number: int, target: Target, sealed: bool) -> None:
    """Move all that follows traces of a target, whether it is due or not."""
    found = source.read("SELECT id, trace_id, kind, payload, owner FROM followups WHERE target = ?", number)
    for _, trace_id, kind, payload, owner in found:
        into.put_followup(target, trace_id, kind, payload, owner, sealed)
    with source.writing() as db:
        db.executemany("DELETE FROM followups WHERE id = ?", [(row[0],) for row in found])


def say_older(spool: Spool) -> None:
    """Say what earlier programs have left, in one line."""
    left = records.waiting(spool)
    if left and left.oldest_age > 300:
        known = records.problems(spool)
        uris = ", ".join(sorted({one.uri for one in known})) or "their targets"
        logger.warning(
            "dspy-trace: %s for %s%s. `dspy-trace flush` delivers them.",
            left.said("of earlier programs waits", "of earlier programs wait"),
            uris,
            f" ({known[0].message})" if known else "",
        )
