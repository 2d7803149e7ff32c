"""One observed call: a span while it lasts.

A reader gives a fact when the call begins and completes it when it ends; the vocabularies spell it. A failure of ours
costs the span, never the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, Status, StatusCode, Tracer

from dspy_trace import facts, failures, sessions
from dspy_trace.guard import shielded
from dspy_trace.observing import context as place
from dspy_trace.observing import neighbours, units
from dspy_trace.observing.last import last_trace
from dspy_trace.observing.observer import Observer
from dspy_trace.observing.streams import STREAMS, drive
from dspy_trace.points import Reader
from dspy_trace.tally import Tally
from dspy_trace.vocab import Attributes, keys
from dspy_trace.vocab.spelling import Spelling

if TYPE_CHECKING:
    from dspy_trace.events import Event
    from dspy_trace.metrics import Watch
    from dspy_trace.observing.neighbours import Claimed
    from dspy_trace.observing.observer import Scope
    from dspy_trace.observing.wrappers import Door

T = TypeVar("T")

_EVENTS: Final = frozenset({facts.LMCall, facts.ExampleRun})
"""What may be an event as well."""


class Call:
    """An observed call. A context manager: entered when it is made, left when the host's function is.

    Where it `tells_nothing`, nobody is told of it or of what is called beneath.
    """

    __slots__ = (
        "_attributes",
        "_beside",
        "_context",
        "_deferred",
        "_event",
        "_failed_beneath",
        "_module",
        "_muted",
        "_open",
        "_reader",
        "_result",
        "_stepping",
        "_token",
        "_watch",
        "above",
        "door",
        "fact",
        "instance",
        "observer",
        "run",
        "span",
        "tally",
        "tells_nothing",
        "tracer",
    )

    def __init__(
        self,
        observer: Observer,
        tracer: Tracer,
        reader: Reader,
        instance: Any,
        fact: Any,
        above: Call | None,
        module: Call | None,
    ) -> None:
        self.observer = observer
        self.tracer = tracer
        self.fact = fact
        self.above = above
        self.door: Door | None = None
        self.span: Span = INVALID_SPAN
        self.tally: Tally | None = above.tally if above is not None else None
        self.run: Scope | None = above.run if above is not None else None
        kind = type(fact)
        # Not itself for a module's: a reference cycle would leave every call to the garbage collector.
        self._module: Call | None = None if kind in units.KINDS else module
        if kind in units.KINDS or (kind is facts.ModuleCall and fact.outermost):
            self.tally = fact.tally = Tally(self.tally)
        self.tells_nothing = False
        self._muted: bool = (above is not None and above._muted) or kind in observer.muted
        self._muted = self._muted or (observer.ratio < 1.0 and units.is_left_out(kind, above, observer.ratio))
        self._reader = reader
        self._event: Event | Claimed | None = None
        self._watch: Watch | None = None
        if observer.meters is not None:
            self._watch = observer.meters.watch(fact, above._watch if above is not None else None)
        self.instance = instance
        self._attributes: Attributes | None = None
        self._beside: dict[str, Any] | None = None
        self._result: Any = None
        self._context: Context | None = None
        self._deferred = False
        self._stepping = False
        self._open = True
        self._failed_beneath: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether the call has not ended."""
        return self._open

    @property
    def module(self) -> Call | None:
        """The nearest module call at or around this call."""
        return self if type(self.fact) is facts.ModuleCall else self._module

    def give_way(self, other: Claimed) -> None:
        """Make neither span nor metric of a call that `other` makes them of: it only counts."""
        self._muted, self._watch, self._event = True, None, other

    def start(self, context: Context) -> None:
        """Start the span and make it current."""
        if self._muted:
            self._context = place.within(context, None, self)
        else:
            fact, above = self.fact, self.above
            spellings = self.observer.spellings[type(fact)]
            first = spellings[0]
            base, links = context, None
            if above is not None and type(above.fact) in units.ROOTS_BENEATH and self._is_root_beneath(above, context):
                base, links = place.rootless(context), (Link(above.span.get_span_context()),)
            self.span = span = self.tracer.start_span(
                first.name(fact), base, first.kind_of(fact), first.at_start(fact), links
            )
            self._context = place.within(base, span, self, neighbours.claims(type(fact)))
            if self.run is not None and (base is not context or type(fact) in units.KINDS):
                units.linked(self)
            if span.is_recording():
                self._attributes = {}
                shielded("describing a call", self._describe, spellings, self._attributes)
            elif above is None and type(fact) not in units.KINDS:
                self.tells_nothing = self.observer.needs_nothing()
            if type(fact) in _EVENTS:
                self._event = shielded("describing an event", self.observer.event, fact)
        self._token: Token[Any] = place.attach(self._context)

    def start_silent(self, context: Context) -> None:
        """Become current without a span of its own, beneath a call that tells nothing."""
        self.tells_nothing, self._watch = True, None
        self.span = self.above.span if self.above is not None else INVALID_SPAN
        self._context = place.within(context, None, self)
        self._token = place.attach(self._context)

    def _is_root_beneath(self, above: Call, context: Context) -> bool:
        return type(self.fact) in (facts.ModuleCall, facts.ExampleRun) and context.get(place.SPAN) is above.span

    def _describe(self, spellings: Sequence[Spelling], attributes: Attributes) -> None:
        fact, observer = self.fact, self.observer
        for spelling in spellings:
            attributes.update(spelling.at_call(fact, observer.span_capture))
        session = None if self._context is None else sessions.of(self._context)
        if session is not None:
            attributes.update(observer.vocabularies[0].of_session(session))
        beside = observer.beside
        if beside is not None:
            self._beside = beside.spellings[type(fact)].at_call(fact, beside.capture)
            if session is not None:
                self._beside.update(beside.of_session(session))

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is not None:
            place.leave(self._token, self._context)
        if not self._deferred:
            self.finish(error)
            # The context holds the call: another cycle.
            del self._context, self._token

    def returned(self, result: T) -> T:
        """Take note of what the host's function returned; a stream ends the call when it ends itself."""
        if type(result) in STREAMS:
            self._deferred = True
            return cast("T", drive(self, result))
        self._result = result
        return result

    def enter(self) -> Token[Any]:
        """Make the span current again, for one step of a stream."""
        self._stepping = True
        return place.attach(self._context or place.current())

    def leave(self, token: Token[Any]) -> None:
        """End a step of a stream."""
        self._stepping = False
        place.leave(token, self._context or place.current())
        if not self._open:
            self._forget()

    def _forget(self) -> None:
        """Let go of what holds this call, errors by their tracebacks, or all of it would wait for the collector."""
        self._failed_beneath = None
        if type(self.fact) is facts.ModuleCall:
            self.fact.trouble = None
        elif type(self.fact) is facts.LMCall:
            self.fact.failed_attempt = None
        if not self._stepping:
            self._context = None

    def finish(self, error: BaseException | None = None, result: Any = None) -> None:
        """End the span, once."""
        if self._open:
            self._open = False
            if self._deferred:
                self._result = result
            if self._attributes is not None:
                shielded("ending a call", self._end, self._attributes, error)
            elif not self.tells_nothing and (
                self._watch is not None or self._event is not None or type(self.fact) in units.READ
            ):
                shielded("counting a call", self._count, error)
            if self._watch is not None:
                shielded("measuring a call", self._watch.stop, error, self._context)
            if self._event is not None:
                shielded("telling an event", self._event.end, error, self._context)
            if type(self.fact) in units.KINDS:
                units.ended(self, error)
            if error is not None or self._failed_beneath is not None or self._deferred:
                self._forget()
            if self.above is None and self._attributes is not None:
                last_trace.set(self.span.get_span_context().trace_id)

    def happened(self, event: facts.Fact) -> None:
        """Record something that happened during this call."""
        if self._open and self._watch is not None:
            self._watch.happened(event, self._context)
        if self._open and self._attributes is not None:
            self._add_event(event)

    def _add_event(self, event: facts.Fact) -> None:
        observer = self.observer
        text = observer.text if observer.span_capture is not None else None
        self.span.add_event(*observer.vocabularies[0].event(event, text))

    def _count(self, error: BaseException | None) -> None:
        self._reader.end(self.fact, self.instance, self._result, error)
        if self.tally is not None and type(self.fact) in units.COUNTED:
            self.tally.add(self.fact)

    def _end(self, attributes: Attributes, error: BaseException | None) -> None:
        fact, span = self.fact, self.span
        kind = type(fact)
        try:
            self._count(error)
            observer = self.observer
            if kind is facts.ExampleRun and fact.score is not None:
                self._add_event(facts.scored(fact))
            for spelling in observer.spellings[kind]:
                attributes.update(spelling.at_end(fact, observer.span_capture))
            if self._beside is not None and observer.beside is not None:
                self._beside.update(observer.beside.spellings[kind].at_end(fact, observer.beside.capture))
        finally:
            # Whatever fails above, the host's error is told and the span is ended.
            try:
                if error is not None:
                    self._fail(attributes, error)
                if self.observer.settles:
                    shielded("settling attributes", self.observer.settle, attributes, span)
                span.set_attributes(attributes)
                if self._beside is not None and self.observer.beside is not None:
                    self.observer.beside.keep(span.get_span_context(), self._beside)
            finally:
                span.end()

    def _fail(self, attributes: Attributes, error: BaseException) -> None:
        first = self._failed_beneath is not error
        attributes[keys.ERROR_TYPE] = type(error).__qualname__
        observer = self.observer
        event, description = failures.told(error, observer.text if observer.span_capture else None, with_stack=first)
        self.span.add_event(keys.EVENT_EXCEPTION, event)
        self.span.set_status(Status(StatusCode.ERROR, description))
        if self._beside is not None and observer.beside is not None and observer.beside.capture is not None:
            told, _ = failures.told(error, observer.text, with_stack=first)
            self._beside.update(told)
        if self.above is not None:
            self.above._failed_beneath = error
