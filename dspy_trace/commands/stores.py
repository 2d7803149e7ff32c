"""The tracking store that a command looks into, and what is still on its way there."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import sleep, time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dspy_trace.commands.output import busy, explained, here

if TYPE_CHECKING:
    from dspy_trace.export.items import Waiting
    from dspy_trace.export.spool import Spool
    from dspy_trace.export.target import Target
    from dspy_trace.store import Store

C = TypeVar("C", bound=Callable[..., Any])

PATIENCE = 60.0
"""Seconds to wait for what a worker is writing: MLflow takes up to half a minute to make a database."""

LOOK = 0.1
"""Seconds between two looks meanwhile."""


def where(command: C) -> C:
    """Add the options that say where to look, which mean what they mean for ``autolog()``."""
    command = click.option(
        "--experiment",
        metavar="NAME|ID",
        help="Experiment to look into. By default MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, else MLflow's.",
    )(command)
    return click.option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow's server or database. By default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in this folder.",
    )(command)


@contextmanager
def looking_into(tracking_uri: str | None, experiment: str | None) -> Generator[tuple[Target, Store]]:
    """Give the store that the options and the environment name; what cannot be read ends the command."""
    from dspy_trace.export.target import target
    from dspy_trace.store import Unreadable, opened

    with explained():
        place, credential = target(tracking_uri, experiment, os.environ)
        try:
            if place.kind == "http":
                yield place, opened(place, credential, os.environ)
                return
            _arrive(place)
            with busy(f"MLflow is opening {place.uri} ..."):
                found = opened(place, credential, os.environ)
            yield place, found
        except Unreadable as error:
            waiting = on_the_way(place)
            raise Unreadable(f"{str(error).rstrip('.')}. {waiting}" if waiting else str(error)) from error


def name_of(target: Target) -> str:
    """Return what to call an experiment in a sentence."""
    named = target.experiment_name or target.experiment_id
    return f"the experiment {target.experiment if named else 'Default'} of {target.uri}"


def elsewhere(store: Store) -> str:
    """Return what other experiments there are, as a sentence to go on with."""
    from dspy_trace.store import LISTED

    names = store.experiments()
    if len(names) < 2:
        return ""
    return f" Its experiments are: {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}."


def on_the_way(target: Target) -> str | None:
    """Return what is on its way to a target, if anything is, and what to do about it, as a sentence to go on with."""
    with _spool() as spool:
        waiting = _waiting(spool, target) if spool is not None else None
    if not waiting:
        return None
    said = waiting.said("is on the way there", "are on the way there")
    return f"{said}: `{here('flush')}` delivers what waits and says what is in the way"


def _arrive(target: Target) -> None:
    """Wait for what a worker is writing into a database, so that who looks for a trace of just now finds it.

    No worker is started: looking changes nothing.
    """
    with _spool() as spool:
        if spool is None or not _is_being_written(spool, target, 0.0):
            return
        begun = time()
        with busy("What has just been traced is being written ..."):
            while time() - begun < PATIENCE and _is_being_written(spool, target, begun):
                sleep(LOOK)


def _waiting(spool: Spool, target: Target) -> Waiting | None:
    """Return what waits for a target, ``None`` if nothing does as far as can be told."""
    import sqlite3

    from dspy_trace.export import records

    try:
        return records.waiting(spool, uris=frozenset((target.uri,))) or None
    except sqlite3.Error:
        return None


def _is_being_written(spool: Spool, target: Target, since: float) -> bool:
    """Return whether something waits for a target since before a moment, a worker runs, and it has met no problem."""
    import sqlite3

    from dspy_trace.export import records
    from dspy_trace.export.launch import STARTING
    from dspy_trace.export.locks import is_free
    from dspy_trace.export.spawn import lock_file

    assert spool.path is not None
    waiting = _waiting(spool, target)
    if waiting is None or (since and time() - waiting.oldest_age > since):
        return False
    try:
        if any(problem.uri == target.uri and problem.last >= since > 0 for problem in records.problems(spool)):
            return False
        workers = spool.read("SELECT slot, state, since FROM workers")
    except sqlite3.Error:
        return False
    return any(
        0 <= time() - start < STARTING if state == "starting" else not is_free(lock_file(spool.path.parent, slot))
        for slot, state, start in workers
    )


@contextmanager
def _spool() -> Generator[Spool | None]:
    """Give the spool of this user for reading; none is made, and of what cannot be read nothing is said."""
    import sqlite3

    from dspy_trace.export.places import spool_file, state_folder
    from dspy_trace.export.spool import Spool
    from dspy_trace.export.spoolfile import Unusable

    spool = None
    try:
        path = spool_file(state_folder())
        if path.exists():
            spool = Spool(path)
            spool.open()
    except (OSError, RuntimeError, sqlite3.Error, Unusable):
        spool = None
    try:
        yield spool
    finally:
        if spool is not None:
            spool.close()
