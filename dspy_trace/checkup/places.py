"""Where traces go, whether it can be reached, and what waits on the way there."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dspy_trace import settings
from dspy_trace.checkup import Finding
from dspy_trace.checkup.versions import version_of
from dspy_trace.export import records
from dspy_trace.export.database import INSTALL, reach
from dspy_trace.export.outcomes import Undelivered
from dspy_trace.export.places import spool_file, state_folder
from dspy_trace.export.spawn import hindrance
from dspy_trace.export.spool import Spool
from dspy_trace.export.spoolfile import Unusable
from dspy_trace.export.target import BadTarget, Credential, Target, target, without_secrets
from dspy_trace.guard import ask, attempt
from dspy_trace.store import Unreadable, opened
from dspy_trace.store.database import database_file

AREA = "delivery"

OLD = 60.0
"""Seconds after which something that waits is worth a note."""


def look(environ: Mapping[str, str], uri: str | None, experiment: str | None, deep: bool) -> Iterator[Finding]:
    """Yield what is found of the place that traces go to, of OTLP, and of the spool."""
    try:
        place, credential = target(uri, experiment, environ)
    except BadTarget as refused:
        yield Finding(AREA, "wrong", f"traces go nowhere: {refused}")
    else:
        yield from _target(place, credential, environ, deep)
    yield from _otlp(environ)
    yield from _spool(environ)


def _target(place: Target, credential: Credential | None, environ: Mapping[str, str], deep: bool) -> Iterator[Finding]:
    named = place.experiment if place.experiment_name or place.experiment_id else "Default"
    where = f"{place.uri}, experiment {named}"
    if place.kind == "database":
        yield from _writer(environ)
    problem = _problem(place, credential, environ, deep)
    if problem is None:
        yield Finding(AREA, "ok", f"traces go to {where}")
    elif isinstance(problem, str):
        yield Finding(AREA, "ok", f"traces go to {where}, {problem}")
    else:
        yield Finding(AREA, "wrong", f"traces go to {where}, which cannot be reached or used: {problem}")


def _problem(
    place: Target, credential: Credential | None, environ: Mapping[str, str], deep: bool
) -> Exception | str | None:
    """Return why a place cannot be used, or a word on it, or ``None``."""
    uri = credential.uri if credential is not None and credential.uri is not None else place.uri
    file = database_file(uri)
    if place.kind == "database":
        if file is not None and not file.exists():
            return _missing(file)
        if not deep:
            return None if file is not None else attempt(reach, uri)[1]
    _, error = attempt(lambda: opened(place, credential, environ).experiments())
    if error is not None and not isinstance(error, Unreadable | Undelivered):
        return Unreadable(without_secrets(str(error)))
    return error


def _missing(file: Path) -> Exception | str:
    folder = file.parent
    if not folder.is_dir():
        return Unreadable(f"there is no folder {folder}. Make it, or set MLFLOW_TRACKING_URI")
    if not os.access(folder, os.W_OK):
        return Unreadable(f"the folder {folder} cannot be written. Set MLFLOW_TRACKING_URI")
    return "a database that will be made with the first trace"


def _writer(environ: Mapping[str, str]) -> Iterator[Finding]:
    if version_of("mlflow") is None and version_of("mlflow-skinny") is None:
        yield Finding(AREA, "wrong", "MLflow is not installed, and databases are written through it", INSTALL)
    why = hindrance(environ)
    if why not in (None, "off"):
        yield Finding(AREA, "wrong", f"no process can be started to write it: {why}", "Run `dspy-trace flush`.")


def _otlp(environ: Mapping[str, str]) -> Iterator[Finding]:
    endpoint = next((environ[name] for name in reversed(settings.OTLP_ENDPOINTS) if environ.get(name)), None)
    if endpoint is None:
        return
    told = without_secrets(endpoint)
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    port = ask(lambda: parts.port) or {"https": 443, "http": 80}.get(parts.scheme, 4317)
    try:
        socket.create_connection((parts.hostname or "", port), 3.0).close()
    except OSError as error:
        remedy = f"Start the collector, or mend {settings.OTLP_ENDPOINTS[0]}."
        yield Finding(AREA, "wrong", f"nothing listens at the OTLP endpoint {told}: {error}", remedy)
    else:
        yield Finding(AREA, "ok", f"OTLP: something listens at {told}")


def _spool(environ: Mapping[str, str]) -> Iterator[Finding]:
    file, error = attempt(lambda: spool_file(state_folder(environ)))
    if error is not None:
        yield Finding("spool", "wrong", f"there is no place for it: {error}", "Set DSPY_TRACE_SPOOL_DIR.")
        return
    if not file.exists():
        folder = next(one for one in (file.parent, *file.parent.parents) if one.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            yield Finding("spool", "wrong", f"{file.parent} cannot be made", "Set DSPY_TRACE_SPOOL_DIR.")
        else:
            yield Finding("spool", "ok", f"{file}, not yet made")
        return
    spool = Spool(file)
    try:
        spool.open()
        yield from _accounts(spool, file)
    except (sqlite3.Error, OSError, Unusable) as failed:
        remedy = "Use the dspy-trace that made it, or set DSPY_TRACE_SPOOL_DIR to another folder."
        yield Finding("spool", "wrong", f"{file} cannot be used: {failed}", remedy)
    finally:
        spool.close()


def _accounts(spool: Spool, file: Path) -> Iterator[Finding]:
    waiting, told = records.waiting(spool), records.accounts(spool)
    size = file.stat().st_size / 2**20
    yield Finding("spool", "ok", f"{file}, {size:.1f} MiB; {told.get('delivered', 0)} spans delivered so far")
    if waiting:
        late = waiting.oldest_age > OLD
        said = f"{waiting.said()}, the oldest for {waiting.oldest_age:.0f} s"
        yield Finding("spool", "note" if late else "ok", said, "`dspy-trace flush` delivers them." if late else "")
    for problem in records.problems(spool):
        yield Finding("spool", "wrong", f"{problem.uri}, {problem.times} times: {problem.message}")
    if waiting.dead:
        said = f"{waiting.dead} spans were refused for good, and are kept"
        yield Finding("spool", "note", said, "`dspy-trace dead-letters` says why.")
    dropped = {name: number for name, number in told.items() if name.startswith("dropped") and number}
    if dropped:
        reasons = ", ".join(f"{number} {name.partition(': ')[2] or name}" for name, number in dropped.items())
        yield Finding("spool", "note", f"given up so far: {reasons}")
