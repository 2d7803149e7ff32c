"""Broken spools that were put aside: how they are called, and how many of them stay."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import time

from dspy_trace.export.spoolfile import SpoolFile, beside

MOST = 3
"""Those that are kept."""

SECONDS = 30 * 86_400.0
"""How long, but for the newest."""

_OPEN = 86_400.0
"""Seconds for which a process may have one open without looking whether it is still the spool."""


def put_aside(path: Path) -> Path:
    """Give a broken spool another name, and return that; delete what is too much by now."""
    name = path.with_name(f"{path.name}.broken-{time():.3f}")
    rename(path, name)
    tidy(path)
    return name


def rename(path: Path, name: Path) -> None:
    """Give a database another name; first what SQLite has beside it, which it would take for that of the next one."""
    for old, new in zip((*beside(path), path), (*beside(name), name), strict=True):
        with suppress(FileNotFoundError):
            old.replace(new)


def was_put_aside(spool: SpoolFile) -> bool:
    """Return whether another process has found a spool broken that is still open here."""
    return spool.path is not None and any(spool.is_named(name) for _, name in _found(spool.path))


def tidy(path: Path) -> None:
    """Delete those of a spool that are too many, and those too old; never the newest.

    From what somebody may still have open only its content is taken: by the name he sees that it was put aside.
    """
    now = time()
    for number, (since, name) in enumerate(_found(path)):
        if number and (number >= MOST or now - since > SECONDS):
            with suppress(OSError):  # another process does the same
                if now - since < _OPEN:
                    os.truncate(name, 0)
                else:
                    name.unlink()
                for one in beside(name):
                    one.unlink(missing_ok=True)


def _found(path: Path) -> list[tuple[float, Path]]:
    """Return those of a spool, newest first, each with the time when it was put aside."""
    found = []
    for name in path.parent.glob(f"{path.name}.broken-*"):
        with suppress(ValueError):  # what SQLite has beside one
            found.append((float(name.name.rpartition("-")[2]), name))
    return sorted(found, reverse=True)
