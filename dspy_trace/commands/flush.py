"""Delivering what programs have left: `dspy-trace flush`."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from time import time
from typing import TYPE_CHECKING

import click

from dspy_trace import settings as names
from dspy_trace.commands.output import busy
from dspy_trace.commands.spooled import spans as _spans

if TYPE_CHECKING:
    from dspy_trace.export.items import Waiting
    from dspy_trace.export.sender import Delivery
    from dspy_trace.export.spool import Spool
    from dspy_trace.export.target import Credential, Target

HEALS = frozenset({"unreachable", "failing"})
"""What may pass while one waits. Everything else somebody has to mend."""

ENDING = 2.0
"""Seconds for what is being sent at the end: what is in the middle of it then is held for a while, and others wait."""


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time to wait, in seconds.",
)
def flush(timeout: float) -> None:
    """Deliver what any program has left, and say what could not be delivered and why.

    Ends with 0 when nothing waits any more, else with 1.
    """
    from dspy_trace.export import records

    if math.isnan(timeout):
        raise click.BadParameter("it must be a number of seconds", param_hint="--timeout")
    # The switch is against processes that programs start; this one is what is left then.
    environ = {name: value for name, value in os.environ.items() if name != names.WORKER}
    with _delivery(environ) as (delivery, file, credentials):
        before, waiting = records.accounts(file), records.waiting(file)
        if waiting:
            with busy(f"Delivering {_what(waiting)} ..."):
                _deliver(delivery, file, timeout, Hope(file, credentials, timeout))
        _report(file, before, credentials)
        if records.anything(file):
            sys.exit(1)


@contextmanager
def _delivery(environ: Mapping[str, str]) -> Generator[tuple[Delivery, Spool, Credentials]]:
    """Give the means to deliver from the spool of this user, and let go of them."""
    from dspy_trace.export.places import open_spool, spool_file, state_folder
    from dspy_trace.export.sender import Delivery

    file = open_spool(environ=environ)  # warns where it has to use another
    usual = spool_file(state_folder(environ))
    if file.path is None or (file.path != usual and usual.exists()):
        raise click.ClickException("what waits cannot be delivered, since the spool cannot be used")
    credentials = Credentials(file, environ)
    delivery = Delivery(credentials=credentials, environ=environ)
    logger = logging.getLogger("dspy_trace")
    before, logger.disabled = logger.disabled, True  # everything it would say is said in the report
    try:
        yield delivery, delivery.file(), credentials
    finally:
        started = delivery.launcher is not None and delivery.launcher.started
        delivery.shutdown(ENDING, worker=bool(started))
        logger.disabled = before


def _deliver(delivery: Delivery, file: Spool, timeout: float, hope: Hope) -> None:
    """Deliver until nothing waits, or nothing that waiting helps."""
    from dspy_trace.export.exit import wait

    delivery.deliver_all(0.0)
    wait(delivery, timeout, lambda: bool([one for one, _, _ in _left(file) if hope.is_there(one.uri)]))


def _left(file: Spool) -> list[tuple[Target, bool, Waiting]]:
    """Return the targets that something waits for: of each tracking URI one, whether it is locked, and what waits."""
    from dspy_trace.export import records

    found = {target.uri: (target, sealed) for _, target, sealed, _ in sorted(file.targets(), key=lambda one: one[2])}
    counted = ((*one, records.waiting(file, uris=frozenset((uri,)))) for uri, one in found.items())
    return [(target, sealed, waiting) for target, sealed, waiting in counted if waiting]


class Hope:
    """Whether waiting helps; and a person who waits is told what for."""

    def __init__(self, file: Spool, credentials: Credentials, timeout: float) -> None:
        self._file = file
        self._credentials = credentials
        self._timeout = timeout
        self._begun = time()
        self._said: set[str] = set()

    def is_there(self, uri: str) -> bool:
        """Return whether what goes to a tracking URI may be delivered without anybody's doing."""
        from dspy_trace.export import records

        if self._credentials.lacks(uri):
            return False
        found = [one for one in records.problems(self._file) if one.uri == uri and one.last >= self._begun]
        if any(one.cause not in HEALS for one in found):
            return False
        if found and uri not in self._said:
            self._said.add(uri)
            click.echo(f"{uri}: {found[0].message} Trying again, for at most {self._timeout:g} s.", err=True)
        return True


class Credentials:
    """What opens targets, as far as the environment tells: no credential is ever stored.

    One is only given to the target that ``MLFLOW_TRACKING_URI`` names. Where that is not set, as with
    ``autolog(tracking_uri=...)``, it is for the only server that needs one, if there is only one.
    """

    def __init__(self, file: Spool, environ: Mapping[str, str]) -> None:
        from dspy_trace.export.target import BadTarget, target

        self._known: dict[str, Credential | None] = {}
        self._locked = {one.uri for one, sealed, _ in _left(file) if sealed}
        named = environ.get(names.TRACKING_URI, "").strip() or None
        servers = [uri for uri in self._locked if uri.startswith("http")]
        if named is None and len(servers) == 1:
            named = servers[0]
        try:
            place, credential = target(named, None, environ)
        except BadTarget:
            return
        self._known[place.uri] = credential

    def __call__(self, target: Target) -> Credential | None:
        """Return what opens a target."""
        return self._known.get(target.uri)

    def lacks(self, uri: str) -> bool:
        """Return whether something is needed to open a tracking URI and is not known."""
        return uri in self._locked and self._known.get(uri) is None


def _report(file: Spool, before: Mapping[str, int], credentials: Credentials) -> None:
    """Say what has been delivered, what has not, and why."""
    from dspy_trace.export import records

    now = records.accounts(file)
    gained = {name: now.get(name, 0) - before.get(name, 0) for name in now}
    left = _left(file)
    if delivered := gained.get("delivered", 0):
        click.echo(f"{_spans(delivered)} delivered.")
    if dead := gained.get("dead", 0):
        click.echo(f"{_spans(dead)} refused for good, and kept as dead letters.", err=True)
    if not left and not delivered:
        click.echo("Nothing waits.")
    why = {one.uri: one.message for one in reversed(records.problems(file))}
    for target, _, waiting in left:
        if credentials.lacks(target.uri):
            reason = "it takes a credential, which is never stored. Set MLFLOW_TRACKING_URI to it, with what opens it."
        else:
            reason = why.get(target.uri, "not done in this time. Say a longer --timeout.")
        click.echo(f"{_what(waiting)} waiting for {target.uri}: {reason}", err=True)


def _what(waiting: Waiting) -> str:
    parts = [_spans(waiting.spans)] if waiting.spans or not waiting.followups else []
    if waiting.followups:
        parts.append("1 note on a trace" if waiting.followups == 1 else f"{waiting.followups} notes on traces")
    return " and ".join(parts)
