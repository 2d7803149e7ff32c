"""Looking at stored traces: `dspy-trace ls` and `dspy-trace show`."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dspy_trace.commands.output import busy, columns, explained, screen

if TYPE_CHECKING:
    from dspy_trace.export.target import Target
    from dspy_trace.store import Store

C = TypeVar("C", bound=Callable[..., Any])


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


@click.command()
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True, help="Most traces to list.")
@where
def ls(number: int, tracking_uri: str | None, experiment: str | None) -> None:
    """List the newest traces of an experiment."""
    with _store(tracking_uri, experiment) as (target, store):
        from dspy_trace.listing import table

        found = store.newest(number)
        console = screen()
        for line in table(found, columns(console)):
            console.print(line)
        if not found:
            _say(f"There are no traces in {_place(target)}.{_elsewhere(store)}")
        if (waiting := _waiting(target)) is not None:
            _say(f"{waiting}.")


@click.command()
@click.argument("trace", required=False)
@where
def show(trace: str | None, tracking_uri: str | None, experiment: str | None) -> None:
    """Draw a trace as a tree.

    TRACE is OpenTelemetry's or MLflow's id of it, or the beginning of one; without it, the newest of the experiment is
    drawn.
    """
    with _store(tracking_uri, experiment) as (target, store):
        from dspy_trace.listing import heading
        from dspy_trace.store import Unknown, Unreadable, find
        from dspy_trace.terminal import draw

        try:
            found = find(store, trace)
        except Unknown as unknown:
            if trace is not None:
                raise
            raise Unreadable(f"{unknown} in {_place(target)}.{_elsewhere(store)}") from None
        console = screen()
        for line in heading(found.summary, target.uri):
            console.print(line)
        console.print()
        console.print(draw(found.spans))


@contextmanager
def _store(tracking_uri: str | None, experiment: str | None) -> Generator[tuple[Target, Store]]:
    """Give the store that the options and the environment name; what cannot be read ends the command."""
    from dspy_trace.export.target import target
    from dspy_trace.store import Unreadable, opened

    with explained():
        place, credential = target(tracking_uri, experiment, os.environ)
        try:
            if place.kind == "http":
                yield place, opened(place, credential, os.environ)
                return
            with busy(f"MLflow is opening {place.uri} ..."):
                store = opened(place, credential, os.environ)
            yield place, store
        except Unreadable as error:
            waiting = _waiting(place)
            raise Unreadable(f"{str(error).rstrip('.')}. {waiting}" if waiting else str(error)) from error


def _place(target: Target) -> str:
    named = target.experiment_name or target.experiment_id
    return f"the experiment {target.experiment if named else 'Default'} of {target.uri}"


def _elsewhere(store: Store) -> str:
    """Return what other experiments there are, as a sentence to go on with."""
    from dspy_trace.store import LISTED

    names = store.experiments()
    if len(names) < 2:
        return ""
    return f" Its experiments are: {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}."


def _waiting(target: Target) -> str | None:
    """Return what is on its way to a target, if anything is."""
    import sqlite3

    from dspy_trace.export import records
    from dspy_trace.export.places import spool_file, state_folder
    from dspy_trace.export.spool import Spool
    from dspy_trace.export.spoolfile import Unusable

    try:
        path = spool_file(state_folder())
        if not path.exists():
            return None
        spool = Spool(path)
        waiting = records.waiting(spool, uris=frozenset((target.uri,)))
        spool.close()
    except (OSError, RuntimeError, sqlite3.Error, Unusable):
        return None
    if not waiting:
        return None
    spans = "1 span is" if waiting.spans == 1 else f"{waiting.spans} spans are"
    return f"{spans} on the way there: `dspy-trace flush` delivers what waits and says what is in the way"


def _say(text: str) -> None:
    screen(stderr=True).print(text, style="dim")
