"""Where the spool is: one file per user and Python environment, and what to do where it cannot be."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dspy_trace import settings as names
from dspy_trace.export.salvage import mend
from dspy_trace.export.spool import Spool
from dspy_trace.export.spoolfile import Unusable
from dspy_trace.settings import surroundings

logger = logging.getLogger("dspy_trace")

MEMORY_BYTES = 64 * 2**20
"""Most bytes that a spool in memory holds."""


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the spool, which need not be there."""
    if chosen := environ.get(names.SPOOL_DIR, "").strip():
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(environ.get(surroundings.LOCAL_APP_DATA) or Path.home() / "AppData" / "Local") / "dspy-trace"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "dspy-trace"
    home = environ.get(surroundings.STATE_HOME, "").strip()
    # A relative path is to be ignored (XDG).
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state") / "dspy-trace"


def stem() -> str:
    """Return the beginning of the names of all files of this user and this Python environment.

    An environment of its own, because the worker takes mlflow from the environment whose programs it works for.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    return f"{user}-{hashlib.sha256(os.path.realpath(sys.prefix).encode()).hexdigest()[:8]}"


def spool_file(folder: Path) -> Path:
    """Return the file of the spool in a folder."""
    return folder / f"{stem()}.db"


def open_spool(
    folder: Path | None = None, environ: Mapping[str, str] = os.environ, broken: Spool | None = None
) -> Spool:
    """Open the spool: in `folder`, else where the environment says, else in the temporary folder, else in memory.

    Each step down is one WARNING with its reason. A spool that has been found `broken` since it was opened is mended.
    """
    reasons = []
    for place in _places(folder, environ):
        try:
            path = spool_file(place)
            if broken is not None and broken.path == path:
                mend(broken)
            opened = open_mended(Spool(path, **bounds(environ)))
        except (OSError, Unusable, sqlite3.Error) as error:
            reasons.append(f"{place}: {str(error) or type(error).__name__}")
            continue
        if reasons:
            logger.warning(
                "dspy-trace: the spool cannot be kept in %s. It is kept in %s instead. "
                "Set DSPY_TRACE_SPOOL_DIR to a folder that can be written.",
                "; nor in ".join(reasons),
                place,
            )
        return opened
    logger.warning(
        "dspy-trace: the spool cannot be kept in %s. Traces wait in memory, and what is not delivered when the program "
        "ends is lost. Set DSPY_TRACE_SPOOL_DIR to a folder that can be written.",
        "; nor in ".join(reasons),
    )
    return memory_spool()


def memory_spool() -> Spool:
    """Return a spool in memory, for this process alone."""
    spool = Spool(None, MEMORY_BYTES)
    spool.open()
    return spool


def _places(folder: Path | None, environ: Mapping[str, str]) -> Iterator[Path]:
    if folder is not None:
        yield folder
    else:
        with contextlib.suppress(RuntimeError):  # a user without a home
            yield state_folder(environ)
    with contextlib.suppress(OSError):
        yield _temporary()


def _temporary() -> Path:
    """Return a folder of this user's own in the temporary folder.

    Raises:
        OSError: what stands there under its name is not the user's, or open to others.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    place = Path(tempfile.gettempdir()) / f"dspy-trace-{user}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "geteuid") and (found.st_uid != user or found.st_mode & 0o022)):
        raise PermissionError(f"{place} is not a folder of this user's own")
    return place


def open_mended(spool: Spool) -> Spool:
    """Open a spool, and return it; mend it if it is broken."""
    try:
        spool.open()
    except sqlite3.DatabaseError:
        if spool.broken is None:
            raise  # busy, read-only, full: nothing is wrong with the file
        mend(spool)
        spool.open()
    return spool


def bounds(environ: Mapping[str, str]) -> dict[str, int]:
    """Return what the environment says of the bounds of a spool."""
    found = {"most_bytes": environ.get(names.SPOOL_BYTES, ""), "most_seconds": environ.get(names.SPOOL_SECONDS, "")}
    return {name: int(text) for name, text in found.items() if text.strip().isdecimal() and int(text) > 0}
