"""MLflow's own page: `dspy-trace ui`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dspy_trace.commands.output import busy
from dspy_trace.commands.stores import looking_into, name_of, where

if TYPE_CHECKING:
    from dspy_trace.store.traces import Summary


@click.command()
@click.argument("trace", required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="Port for the page: 5000 by default, or one that is free.")
@click.option("--open/--no-open", "browse", default=False, help="Open the trace in the browser.")
@where
def ui(trace: str | None, port: int | None, browse: bool, tracking_uri: str | None, experiment: str | None) -> None:
    """Show MLflow's own page, and where in it a trace is.

    For a database, MLflow's server is started on this machine, for this machine alone, and ended with Ctrl-C. A
    tracking server has its page already. TRACE is as for `show`: by default the newest.
    """
    from dspy_trace.commands import page

    with looking_into(tracking_uri, experiment) as (target, store):
        from dspy_trace.commands.traces import find

        found = find(store, trace, name_of(target)).summary
        uri = store.uri
    if target.kind == "http":
        _say(target.uri, found, browse)
        return
    if target.uri.startswith("databricks"):
        raise click.ClickException("Databricks has its own page: see Experiments in the workspace")
    try:
        port = page.free_port(port)
        with _ended_by_signals(), ExitStack() as stack:
            with busy("MLflow's server is starting ..."):
                server = stack.enter_context(page.served(uri, _folder(uri), port))
            _say(f"http://{page.HOST}:{port}", found, browse)
            _wait(server)
    except page.NoPage as error:
        raise click.ClickException(str(error)) from error


def _say(base: str, trace: Summary, browse: bool) -> None:
    from dspy_trace.commands import page

    address = page.address_of(base, trace.experiment_id, trace.trace_id)
    for what, told in (("MLflow's page", base), ("This trace", address)):
        click.echo(f"{what:<15}{told}")
    if browse:
        click.launch(address)


def _wait(server: subprocess.Popen[bytes]) -> None:
    """Wait until the person has seen enough."""
    click.echo("Ctrl-C ends it.", err=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        click.echo("\nEnded.", err=True)
        return
    raise click.ClickException("MLflow's server has ended by itself")


def _folder(uri: str) -> Path:
    """Return where MLflow's relative places are meant from: beside the database, if that is a file."""
    from dspy_trace.store.database import database_file

    file = database_file(uri)
    return Path.cwd() if file is None else file.parent


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Let the signals that end us end the server, too: a closed terminal, or somebody's kill."""

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [(one, signal.signal(one, end)) for one in wanted]
    try:
        yield
    finally:
        for one, handler in before:
            signal.signal(one, handler)
