"""Our place in OpenTelemetry's context.

Everything that a call leaves for the calls beneath it hangs on one key of the context, so that whatever carries the
context across a thread or task (asyncio, OpenTelemetry's threading instrumentation, ours) carries it along.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
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


def _variable() -> ContextVar[Context] | None:
    """Return what OpenTelemetry keeps the current context in, if it is a context variable."""
    found = getattr(getattr(otel_context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    return found if isinstance(found, ContextVar) else None


# OpenTelemetry's functions for these three take three calls to come to the variable, and each observed call makes ten.
# The name is private: where it is gone, or the context is kept elsewhere, so is the short cut.
_kept = _variable()
current: Final[Callable[[], Context]] = _kept.get if _kept is not None else otel_context.get_current
"""Return the current context."""

attach: Final[Callable[[Context], Token[Any]]] = _kept.set if _kept is not None else otel_context.attach
"""Make a context current."""

_reset: Final[Callable[[Token[Any]], None]] = _kept.reset if _kept is not None else otel_context.detach

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
    call: Any = current().get(CALL)
    return call is not None and call.instance is instance


def leave(token: Token[Context], context: Context | None) -> None:
    """Undo ``attach(context)``, unless the current context is another by now.

    It is another where the host attached one of its own and kept it, and where a stream is closed by another task than
    opened it; neither is ours to reset.
    """
    if current() is not context:
        return
    try:  # noqa: SIM105  # a context manager would double the cost of leaving
        _reset(token)
    except ValueError:
        # In another task, which has a copy of the same context, the token is not valid.
        pass


waiting: dict[int, tuple[int, Any, Context]] = {}
"""By waiting thread: the worker thread that it waits for, the item that it handed over, and its context."""


@contextmanager
def waiting_for(worker: int, item: Any) -> Generator[None]:
    """Let `worker` find the current context while the block waits for what becomes of `item`."""
    thread = get_ident()
    waiting[thread] = (worker, item, current())
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
