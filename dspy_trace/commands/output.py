"""Where commands write to, and how they end when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dspy_trace.settings.surroundings import COLUMNS, UV_RUN

if TYPE_CHECKING:
    from rich.console import Console

UNLIMITED = 1_000_000
"""Columns of what is no terminal: who reads lines wants them whole."""


def screen(*, stderr: bool = False) -> Console:
    """Return stdout, or stderr, for text with colours as far as it takes them."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # What the locale has no letters for shall cost these letters, not the command.
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if columns(console) is None:
        console.width = UNLIMITED
    return console


def columns(console: Console) -> int | None:
    """Return how many columns there are, ``None`` where there is no limit."""
    if console.is_terminal or os.environ.get(COLUMNS, "").isdecimal():
        return min(console.width, UNLIMITED - 1) if console.width != UNLIMITED else None
    return None


@contextmanager
def busy(text: str) -> Generator[Callable[[str], None]]:
    """Show a person who waits that something is being done, and what; the function that is given says what else."""
    console = screen(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(_one_line(text, console.width)) as status:
        yield lambda text: status.update(_one_line(text, console.width))


def _one_line(text: str, width: int) -> str:
    # The end is what is new; the spinner takes two columns.
    return text if len(text) < width - 2 else f"...{text[5 - width :]}"


def here(command: str) -> str:
    """Return what to type for another command of ours."""
    return f"{'uv run ' if os.environ.get(UV_RUN) else ''}dspy-trace {command}"


@contextmanager
def explained() -> Generator[None]:
    """End the command with one line on stderr where something cannot be read or is no place for traces."""
    from dspy_trace.export.target import BadTarget
    from dspy_trace.store import Unreadable

    try:
        yield
    except (BadTarget, Unreadable) as error:
        raise click.ClickException(str(error)) from error
