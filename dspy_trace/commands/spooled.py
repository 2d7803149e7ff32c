"""What is in the spool, for commands that look at it without having it delivered."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dspy_trace.export.spool import Spool


@contextmanager
def the_spool() -> Generator[Spool | None]:
    """Give the spool of this user and environment, ``None`` where no program has made one; none is made here."""
    import sqlite3

    from dspy_trace.export.places import spool_file, state_folder
    from dspy_trace.export.spool import Spool
    from dspy_trace.export.spoolfile import Unusable

    path = spool_file(state_folder(os.environ))
    if not path.exists():
        yield None
        return
    spool = Spool(path)
    try:
        spool.open()
        yield spool
    except (Unusable, sqlite3.Error) as error:
        raise click.ClickException(f"the spool {path} cannot be used: {error}") from error
    finally:
        spool.close()


def spans(number: int) -> str:
    """Return a number of spans in words."""
    return "1 span" if number == 1 else f"{number} spans"


def age(seconds: float) -> str:
    """Return how long ago something was, roughly."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(number: int) -> str:
    """Return a number of bytes, roughly."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"
