"""Which trace ended last, for whoever asks: in a task or a thread, and in those that it has started."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Final

from opentelemetry.context import create_key, get_current

EARS: Final = create_key("dspy-trace-ears")
"""Key of those who hear of the traces that end in a block of a session."""

MOST_EARS: Final = 4
"""How many of those who have started a task, and started who has, hear of it."""


class _Ear:
    """Hears of the traces that end in one task or thread, and in those that it starts."""

    __slots__ = ("heard", "owner")

    def __init__(self, owner: object, heard: int | None) -> None:
        self.owner = owner
        self.heard = heard


class LastTrace:
    """Knows the trace that ended last in each task and thread, and in what it has started meanwhile.

    A task and a thread of ``asyncify`` have a copy of the context: what is set there is set for them alone. So they
    tell it to ears that they share with those who started them. One who has none of its own goes by what was known
    when it was started: what its siblings do is not its affair.
    """

    def __init__(self) -> None:
        self._own: ContextVar[int | None] = ContextVar("dspy_trace_last_trace", default=None)
        self._ears: ContextVar[tuple[_Ear, ...]] = ContextVar("dspy_trace_ears", default=())

    def listen(self) -> tuple[_Ear, ...]:
        """Hear of what tasks and threads do that are started from now on; return all who hear of this one."""
        ears, here = self._ears.get(), _here()
        if not ears or ears[-1].owner != here:
            # Whoever starts a task that starts a task, and so on, is not kept for ever.
            ears = (*ears[-MOST_EARS:], _Ear(here, self._own.get()))
            self._ears.set(ears)
        return ears

    def set(self, trace_id: int) -> None:
        """Take note of a trace that has ended here."""
        # A thread of a pool has OpenTelemetry's context alone, and goes from one who waits for it to the next.
        waiting: Any = get_current().get(EARS, ())
        for ear in (*waiting, *self.listen()):
            ear.heard = trace_id
        self._own.set(trace_id)

    def get(self) -> int | None:
        """Return the id of the trace that ended last."""
        ears = self._ears.get()
        return ears[-1].heard if ears and ears[-1].owner == _here() else self._own.get()


def _here() -> object:
    """Return what tells this task, or this thread where there is none, from others."""
    loop = asyncio._get_running_loop()  # pyright: ignore[reportPrivateUsage]  # documented
    return get_ident(), id(asyncio.current_task(loop)) if loop is not None else 0


last_trace: Final = LastTrace()
