"""Giving way to the program.

A thread that computes holds the interpreter until another has waited for it for five milliseconds
(:func:`sys.setswitchinterval`), which an event loop notices. What ours do takes a fraction of that for each span, so
that they let go in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from time import sleep
from typing import Final, TypeVar

T = TypeVar("T")

_PAUSE: Final = 50e-6
"""Seconds after which we ask for the interpreter again: long enough for one who waits to take it."""

_MOST: Final = 256


def in_turns(items: Collection[T], every: int = 1, most: int = _MOST) -> Iterator[T]:
    """Yield `items`, and let other threads run between `every` few of them.

    Of more than `most` all are done in one go: a program that computes keeps the interpreter for as long as it may each
    time, and more would come in meanwhile than we get done.
    """
    gives = len(items) <= most
    for number, item in enumerate(items):
        if gives and number and number % every == 0:
            sleep(_PAUSE)
        yield item
