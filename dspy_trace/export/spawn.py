"""Starting the worker process: what it gets of the program, and what it does not."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dspy_trace import settings as names
from dspy_trace.export.places import stem
from dspy_trace.export.target import Credential
from dspy_trace.guard import ask
from dspy_trace.settings import surroundings

logger = logging.getLogger("dspy_trace")

SHARED = "shared"
"""The worker for all databases that need no credential. Each of the others has its own, which holds the credential."""

_LOG_BYTES = 2**20

_LACKS = re.compile(surroundings.WORKER_LACKS)

_AUTO = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")
"""Where ``opentelemetry-instrument`` has put a ``sitecustomize`` on the path."""


def slot_of(uri: str, sealed: bool) -> str:
    """Return the name of the worker that serves a database."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16] if sealed else SHARED


def lock_file(folder: Path, slot: str) -> Path:
    """Return the file that a worker locks while it runs."""
    return folder / f"{stem()}-{slot}.lock"


def producers_file(folder: Path, slot: str) -> Path:
    """Return the file that the programs share a lock on while a worker is wanted."""
    return folder / f"{stem()}-{slot}.producers"


def log_file(folder: Path) -> Path:
    """Return the workers' log."""
    return folder / f"{stem()}-worker.log"


def hindrance(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return why no worker can be started here, if that is so."""
    if environ.get(names.WORKER, "").strip().lower() in ("off", "0", "false", "no"):
        return "off"
    if getattr(sys, "frozen", False):
        return "the program is frozen into an executable"
    if sys.platform in ("emscripten", "wasi", "ios"):
        return "this platform has no processes"
    if not sys.executable or not re.match(r"python|pypy", os.path.basename(sys.executable).lower()):
        return f"the program is run by {sys.executable or 'something'}, which is no Python interpreter"
    return None


def spawn(
    folder: Path, slot: str, credential: Credential | None, environ: Mapping[str, str] = os.environ
) -> subprocess.Popen[bytes]:
    """Start a worker; the process that is returned ends at once, the worker itself is nobody's child.

    Raises:
        OSError: the system does not let us.
    """
    # -P keeps the working folder off the path (Python 3.11); before, that is the spool's, which holds no code.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    command = [sys.executable, *safe, "-m", "dspy_trace.export.worker", str(folder), slot]
    path = log_file(folder)
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    flags = 0
    if sys.platform == "win32":
        flags = (
            subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS
        )
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            cwd=folder,
            env=environment(credential, environ),
            start_new_session=True,
            creationflags=flags,
        )
    finally:
        os.close(handle)


def environment(credential: Credential | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a worker: the program's, less what would trace, measure or steer it."""
    kept = {
        **surroundings.WORKER_DEFAULTS,
        **{key: value for key, value in environ.items() if not _LACKS.fullmatch(key)},
    }
    kept |= surroundings.WORKER_SETS
    kept.pop(names.WORKER_CREDENTIAL, None)
    for name in names.TRACKING_CREDENTIALS:
        kept.pop(name, None)
    if credential is not None:
        given = (credential.username, credential.password, credential.token, credential.uri)
        opened = zip((*names.TRACKING_CREDENTIALS, names.WORKER_CREDENTIAL), given, strict=True)
        kept |= {name: value for name, value in opened if value is not None}
    parts = kept.pop(surroundings.PYTHON_PATH, "").split(os.pathsep)
    path = [part for part in parts if _is_inherited(part)]
    if any(map(_is_auto, parts)):
        # The same command has put the program's folder there.
        path = [part for part in path if part not in (ask(os.getcwd), sys.path[0])]
    home = Path(__file__).resolve().parents[2]
    if home.name not in ("site-packages", "dist-packages") and str(home) not in path:
        path.append(str(home))  # a checkout that is not installed is found by its place
    if path:
        kept[surroundings.PYTHON_PATH] = os.pathsep.join(path)
    return kept


def _is_inherited(part: str) -> bool:
    # A relative folder, or none, is the working folder: the worker's is another.
    return os.path.isabs(part) and not _is_auto(part)


def _is_auto(part: str) -> bool:
    return part.rstrip("/\\").endswith(_AUTO)
