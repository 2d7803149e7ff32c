"""Our place in OpenTelemetry's context.

Everything that a call leaves for the calls beneath it hangs on one key of the context, so that whatever carries the
context across a thread or task (asyncio, OpenTelemetry's threading instrumentation, ours) carries it along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from threading import get_ident
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context, create_key
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import INVALID_SPAN, Span, set_span_in_context

SESSION: Final = create_key("dspy-trace-session")
"""Key of the session that calls belong to."""

EARS: Final = create_key("dspy-trace-ears")
"""Key of those who hear of the traces that end in a block of a session."""

MOST_EARS: Final = 4

CALL: Final = create_key("dspy-trace-call")
"""Key of the innermost observed call."""

# Both keys are private names of OpenTelemetry's; what its public functions write tells them.
SPAN: Final[str] = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""Key of the current span."""


def _suppression_keys() -> tuple[str, ...]:
    before = set(otel_context.get_current())
    with suppress_instrumentation():
        return tuple(key for key in otel_context.get_current() if key not in before)


SUPPRESSIONS: Final = frozenset(_suppression_keys())
"""Keys that are true where instrumentation is suppressed."""


_NOTHING: Final[Mapping[str, Any]] = {}


def is_suppressed(context: Context) -> bool:
    """Return whether ``suppress_instrumentation()`` is in force."""
    return any(context.get(key) for key in SUPPRESSIONS)


def within(context: Context, span: Span | None, call: object, more: Mapping[str, Any] = _NOTHING) -> Context:
    """Return `context` with `call` innermost and, if one is given, `span` current, and `more` with it."""
    if span is None:
        return Context({**context, CALL: call})
    return Context({**context, **more, SPAN: span, CALL: call})


def rootless(context: Context) -> Context:
    """Return `context` without a current span: what starts in it starts a trace."""
    return Context({key: value for key, value in context.items() if key != SPAN})


def is_innermost(instance: Any) -> bool:
    """Return whether the innermost observed call is one of `instance`."""
    call: Any = otel_context.get_current().get(CALL)
    return call is not None and call.instance is instance


def leave(token: Token[Context], context: Context | None) -> None:
    """Undo ``attach(context)``, unless the current context is another by now.

    It is another where the host attached one of its own and kept it, and where a stream is closed by another task than
    opened it; neither is ours to reset.
    """
    if otel_context.get_current() is not context:
        return
    try:  # noqa: SIM105  # a context manager would double the cost of leaving
        token.var.reset(token)
    except ValueError:
        # In another task, which has a copy of the same context, the token is not valid.
        pass


def attach(context: Context) -> Token[Any]:
    """Make `context` current."""
    return otel_context.attach(context)


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
        # A thread of DSPy's own has OpenTelemetry's context alone.
        others: Any = () if self._ears.get() else otel_context.get_current().get(EARS, ())
        for ear in (*others, *self.listen()):
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


waiting: dict[int, tuple[int, Any, Context]] = {}
"""By waiting thread: the worker thread that it waits for, the item that it handed over, and its context."""


@contextmanager
def waiting_for(worker: int, item: Any) -> Generator[None]:
    """Let `worker` find the current context while the block waits for what becomes of `item`."""
    thread = get_ident()
    waiting[thread] = (worker, item, otel_context.get_current())
    try:
        yield
    finally:
        waiting.pop(thread, None)


def of_waiting(args: tuple[Any, ...]) -> Context | None:
    """Return the context of a thread that waits for this one: whose item stands first in `args`, or the longest.

    A worker serves many at once; what it does for all of them can only be beneath one.
    """
    worker = get_ident()
    entries = [(item, context) for thread, item, context in list(waiting.values()) if thread == worker]
    first = args[0] if args else None
    first = first[0] if type(first) is list and first else first
    return next((context for item, context in entries if item is first), entries[0][1] if entries else None)
