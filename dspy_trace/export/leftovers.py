"""What is found in a spool that others have left, and what has to go from one spool into another."""

from __future__ import annotations

import logging

from dspy_trace.export import records
from dspy_trace.export.spool import Spool
from dspy_trace.runs import spooled

logger = logging.getLogger("dspy_trace")


def move(source: Spool, into: Spool, owner: str, kind: str | None = None) -> None:
    """Move what is the owner's from one spool into another: of one kind of target or of all, and all of runs."""
    for number, target, sealed, _ in source.targets():
        if kind is None or target.kind == kind:
            batches = source.take(source.heads(number, target, owner), owner)
            into.put(batches, owner, {target} if sealed else ())
            source.forget(batches)
    spooled.move(source, into, owner)


def say_older(spool: Spool) -> None:
    """Say what earlier programs have left, in one line."""
    left = records.waiting(spool)
    if left and left.oldest_age > 300:
        known = records.problems(spool)
        uris = ", ".join(sorted({one.uri for one in known})) or "their targets"
        logger.warning(
            "dspy-trace: %d spans of earlier programs wait for %s%s. `dspy-trace flush` delivers them.",
            left.spans,
            uris,
            f" ({known[0].message})" if known else "",
        )
