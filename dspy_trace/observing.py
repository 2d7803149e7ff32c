"""One observed call: a span while it lasts.

``observe`` is all that a wrapper needs::

    with observe(reader, instance, args, kwargs) as call:
        return call.returned(wrapped(*args, **kwargs))

A reader gives a fact when the call begins and completes it when it ends; the vocabularies spell it. A failure of ours
costs the span, never the call.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextvars import Token
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from opentelemetry.context import Context, get_current
from opentelemetry.trace import INVALID_SPAN, Link, Span, Status, StatusCode, Tracer

from dspy_trace import context as place
from dspy_trace import facts
from dspy_trace.guard import ask, shielded
from dspy_trace.observer import Observer, active
from dspy_trace.points import Args, Kwargs, Reader
from dspy_trace.streams import STREAMS, drive
from dspy_trace.vocab import Attributes, keys

T = TypeVar("T")

_ROOTS_BENEATH: Final = frozenset({facts.Evaluation, facts.Compilation})
"""What never has modules beneath it: a module call or an example starts a trace of its own there, with a link."""

_UNITS: Final = frozenset({facts.ExampleRun, facts.Evaluation, facts.Compilation})
"""Units of work that have sums of their own, besides the outermost modules."""


class Unobserved:
    """Stands in for a call that is not observed."""

    def __enter__(self) -> Unobserved:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def returned(self, result: T) -> T:
        return result


UNOBSERVED: Final = Unobserved()


def observe(reader: Reader, instance: Any, args: Args, kwargs: Kwargs) -> Call | Unobserved:
    """Begin to observe a call, if it is to be observed."""
    call = shielded("beginning a call", _begin, reader, instance, args, kwargs)
    return call if call is not None else UNOBSERVED


def _begin(reader: Reader, instance: Any, args: Args, kwargs: Kwargs) -> Call | None:
    context = get_current()
    above: Call | None = context.get(place.CALL)  # type: ignore[assignment]  # only we write this key
    observer = active() if above is None else above.observer
    if observer is None:
        return None
    tracer = observer.tracer() if above is None else above.tracer
    if tracer is None or place.is_suppressed(context):
        return None
    module = above.module if above is not None else None
    fact = reader.begin(instance, args, kwargs, module.fact if module is not None else None)
    if fact is None or not observer.wants(fact):
        return None
    call = Call(observer, tracer, reader, instance, fact, above)
    call.start(context)
    return call


class Call:
    """An observed call. A context manager: entered when it is made, left when the host's function is."""

    __slots__ = (
        "_attributes",
        "_context",
        "_deferred",
        "_failed_beneath",
        "_instance",
        "_muted",
        "_open",
        "_reader",
        "_result",
        "_token",
        "above",
        "fact",
        "module",
        "observer",
        "span",
        "tally",
        "tracer",
    )

    def __init__(
        self, observer: Observer, tracer: Tracer, reader: Reader, instance: Any, fact: Any, above: Call | None
    ) -> None:
        self.observer = observer
        self.tracer = tracer
        self.fact = fact
        self.above = above
        self.span: Span = INVALID_SPAN
        self.tally: facts.Tally | None = above.tally if above is not None else None
        kind = type(fact)
        if kind is facts.ModuleCall:
            self.module: Call | None = self
        else:
            self.module = None if kind in _UNITS or above is None else above.module
        if kind in _UNITS or (kind is facts.ModuleCall and fact.outermost):
            self.tally = fact.tally = facts.Tally(self.tally)
        self._muted: bool = (above is not None and above._muted) or observer.mutes(kind)
        self._reader = reader
        self._instance = instance
        self._attributes: Attributes | None = None
        self._result: Any = None
        self._deferred = False
        self._open = True
        self._failed_beneath: BaseException | None = None

    def start(self, context: Context) -> None:
        """Start the span and make it current."""
        if self._muted:
            self._context = place.within(context, None, self)
        else:
            base, links = self._where(context)
            spellings = self.observer.spellings[type(self.fact)]
            first = spellings[0]
            self.span = self.tracer.start_span(
                first.name(self.fact), base, first.kind_of(self.fact), first.at_start(self.fact), links
            )
            self._context = place.within(base, self.span, self)
            if self.span.is_recording():
                self._attributes = {}
                capture = self.observer.span_capture
                for spelling in spellings:
                    self._attributes.update(shielded("describing a call", spelling.at_call, self.fact, capture) or {})
        self._token: Token[Any] = place.attach(self._context)

    def _where(self, context: Context) -> tuple[Context, Sequence[Link]]:
        above = self.above
        if (
            above is None
            or type(above.fact) not in _ROOTS_BENEATH
            or type(self.fact) not in (facts.ModuleCall, facts.ExampleRun)
            or context.get(place.SPAN) is not above.span
        ):
            return context, ()
        return place.rootless(context), (Link(above.span.get_span_context()),)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place.leave(self._token, self._context)
        if not self._deferred:
            self.finish(error)

    def returned(self, result: T) -> T:
        """Take note of what the host's function returned; a stream ends the call when it ends itself."""
        if type(result) in STREAMS:
            self._deferred = True
            return cast("T", drive(self, result))
        self._result = result
        return result

    def enter(self) -> Token[Any]:
        """Make the span current again, for one step of a stream."""
        return place.attach(self._context)

    def leave(self, token: Token[Any]) -> None:
        """End a step of a stream."""
        place.leave(token, self._context)

    def finish(self, error: BaseException | None = None, result: Any = None) -> None:
        """End the span, once."""
        if self._open:
            self._open = False
            if self._deferred:
                self._result = result
            shielded("reading a result", self._reader.end, self.fact, self._instance, self._result, error)
            shielded("counting a call", self._count)
            if self._attributes is not None:
                shielded("describing a result", self._describe, self._attributes, error)
            if not self._muted:
                shielded("ending a span", self.span.end)

    def happened(self, event: facts.Fact) -> None:
        """Record something that happened during this call."""
        if self._open:
            self._event(event)

    def _event(self, event: facts.Fact) -> None:
        if self._attributes is not None:
            self.span.add_event(*self.observer.vocabularies[0].event(event))

    def _count(self) -> None:
        fact = self.fact
        if self.tally is not None and isinstance(fact, facts.LMCall | facts.DecisionCall):
            self.tally.add(fact)
        if isinstance(fact, facts.ExampleRun) and fact.score is not None:
            self._event(facts.Scored(fact.metric or "metric", fact.score))

    def _describe(self, attributes: Attributes, error: BaseException | None) -> None:
        for spelling in self.observer.spellings[type(self.fact)]:
            attributes.update(
                shielded("describing a result", spelling.at_end, self.fact, self.observer.span_capture) or {}
            )
        if error is not None:
            self._fail(attributes, error)
        self.span.set_attributes(attributes)

    def _fail(self, attributes: Attributes, error: BaseException) -> None:
        kind = type(error)
        attributes[keys.ERROR_TYPE] = kind.__qualname__
        event: Attributes = {keys.EXCEPTION_TYPE: f"{kind.__module__}.{kind.__qualname__}"}
        description = kind.__qualname__
        if self.observer.span_capture is not None:
            message = self.observer.text(ask(str, error, default=""))
            event[keys.EXCEPTION_MESSAGE] = message
            description = f"{description}: {message}"
            if self._failed_beneath is not error:
                stack = ask(traceback.format_exception, error, default=[])
                event[keys.EXCEPTION_STACKTRACE] = self.observer.text("".join(stack))
        if self.above is not None:
            self.above._failed_beneath = error
        self.span.add_event(keys.EVENT_EXCEPTION, event)
        self.span.set_status(Status(StatusCode.ERROR, description))
