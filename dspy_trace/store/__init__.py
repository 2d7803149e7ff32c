"""Traces read back from where they were delivered to: a server by its REST interface, a database by MLflow itself.

Looking changes nothing: no database, experiment or folder is made, and no schema is brought up to date.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from dspy_trace.export.target import Credential, Target
from dspy_trace.store.traces import Summary, Trace

PAGE = 500
"""Most traces that MLflow lists at once."""

_IDENTIFIER = re.compile(r"(tr-)?([0-9a-f]{1,32})")

LISTED = 5
"""Most names or ids that a message lists."""


class Unreadable(Exception):
    """A trace cannot be shown; the message says why, and what to do, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Unknown(Unreadable):
    """There is no such trace."""


class Store(Protocol):
    """One experiment of a tracking store, and every trace of the store by its id.

    Each method raises :class:`Unreadable`.

    Attributes:
        uri: tracking URI as MLflow takes it, with what opens a database.
    """

    uri: str

    def newest(self, most: int, condition: str | None = None) -> list[Summary]:
        """Return the newest traces of the experiment that meet a condition of MLflow's search, newest first."""
        ...

    def beginning(self, identifier: str, most: int) -> list[Summary]:
        """Return traces of all experiments whose id begins so, newest first."""
        ...

    def trace(self, trace_id: str) -> Trace:
        """Return a trace of any experiment by MLflow's id of it.

        Raises:
            Unknown: there is none.
        """
        ...

    def experiments(self) -> list[str]:
        """Return the names of the experiments there are."""
        ...


def opened(target: Target, credential: Credential | None, environ: Mapping[str, str] = os.environ) -> Store:
    """Return the store that a target names, for reading.

    Raises:
        Unreadable: there is none, or nothing can be read there.
    """
    if target.kind == "http":
        from dspy_trace.store.http import HttpStore

        return HttpStore(target, credential, environ)
    from dspy_trace.store.database import DatabaseStore

    return DatabaseStore(target, credential)


def find(store: Store, identifier: str | None) -> Trace:
    """Return a trace by OpenTelemetry's or MLflow's id of it, or by the beginning of one that no other has.

    Args:
        store: where to look.
        identifier: the id; ``None`` is the newest trace of the experiment.

    Raises:
        Unknown: there is none, or more than one.
        Unreadable: it is no id, or the store cannot be read.
    """
    if identifier is None:
        newest = store.newest(1)
        if not newest:
            raise Unknown("there are no traces")
        return store.trace(newest[0].trace_id)
    found = _IDENTIFIER.fullmatch(identifier.strip().lower())
    if found is None:
        raise Unreadable(
            f"{identifier!r} is no id of a trace: those are hexadecimal digits, with or without tr- before"
        )
    trace_id = f"tr-{found[2]}"
    if len(found[2]) == 32:
        return store.trace(trace_id)
    return store.trace(_only(store.beginning(trace_id, LISTED + 1), trace_id))


def absent(target: Target, experiments: Sequence[str]) -> Unreadable:
    """Return what to say of an experiment that is not there."""
    there = ", ".join(sorted(experiments)[:LISTED]) + (", ..." if len(experiments) > LISTED else "")
    return Unreadable(f"there is no experiment {target.experiment} in {target.uri}; there is: {there or 'none'}")


def _only(found: Sequence[Summary], beginning: str) -> str:
    if not found:
        raise Unknown(f"no trace has an id that begins with {beginning}")
    if len(found) > 1:
        ids = [one.trace_id for one in found]
        more = " and others" if len(ids) > LISTED else ""
        raise Unknown(f"more than one trace has an id that begins with {beginning}: {', '.join(ids[:LISTED])}{more}")
    return found[0].trace_id
