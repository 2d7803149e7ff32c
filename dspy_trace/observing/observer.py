"""Who observes: the settings, vocabularies and tracer of one instrumentation, made once and shared by its calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any, Protocol

import orjson
from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import (
    NoOpTracer,
    Span,
    SpanContext,
    Tracer,
    TracerProvider,
)

from dspy_trace import facts, secrets
from dspy_trace._version import __version__
from dspy_trace.events import Event, Events
from dspy_trace.guard import ask, shielded
from dspy_trace.metrics import Meters
from dspy_trace.observing import neighbours
from dspy_trace.observing.signals import Providers, are_global, global_ones, leaves_out_beneath
from dspy_trace.points.optimizers import Finding
from dspy_trace.settings import LIMIT, OPENINFERENCE, Settings
from dspy_trace.values import jsonable
from dspy_trace.values.recalled import Recalled
from dspy_trace.vocab import Attributes, Settling, Vocabulary
from dspy_trace.vocab.genai import GenAI
from dspy_trace.vocab.spelling import Spelling

SCOPE = "dspy_trace"
"""Name of our instrumentation scope."""

DEFAULT_MOST, MOST = 128, 1_024
"""Attributes that a span may have where its provider does not say, and where it has no limit."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What is told of our spans beside them, to one receiver and to no other exporter.

    Attributes:
        spellings: how it is spelled.
        of_session: spells what the program said of the session.
        capture: gives captured values as JSON text; ``None`` where content is not wanted.
        keep: takes what is told of a span, on its thread, right before it ends.
    """

    spellings: Mapping[type[facts.Fact], Spelling]
    of_session: Callable[[facts.Session], Mapping[str, Any]]
    capture: Callable[[Any], str] | None
    keep: Callable[[SpanContext, Mapping[str, Any]], None]


class Scope(Protocol):
    """What a run is told from beneath it."""

    def link(self, trace_id: int) -> None:
        """Take note of a trace that begins beneath it."""
        ...


class Runs(Protocol):
    """What logs evaluations and compiles as runs. Called on the program's threads; takes hardly any time."""

    def begin(self, call: Any) -> None:
        """Take note of a call of an evaluation, an example or a compile, before it begins."""
        ...

    def end(self, call: Any, error: BaseException | None) -> None:
        """Take note of its end."""
        ...

    def found(self, call: Any, fact: Finding) -> None:
        """Take note of what an optimizer tells while it compiles."""
        ...


class Observer:
    """What all calls of one instrumentation share; calls in flight keep theirs when another takes over."""

    def __init__(self, settings: Settings, providers: Providers | None = None) -> None:
        secrets.learn_environment()
        self.settings = settings
        self.meters: Meters | None = None
        """Takes metrics; ``None`` where no meter provider is set up."""
        self.vocabularies: Sequence[Vocabulary] = _vocabularies(settings)
        self.spellings: dict[type[facts.Fact], Sequence[Spelling]] = {
            kind: [vocabulary.spellings[kind] for vocabulary in self.vocabularies]
            for kind in self.vocabularies[0].spellings
        }
        self.settles = [vocabulary for vocabulary in self.vocabularies if isinstance(vocabulary, Settling)]
        """Those that have to know how many attributes a span may have."""
        self.span_capture: Callable[[Any], str] | None = None
        self._bound(settings.value_limit)
        self.picky = settings.detail == "minimal"
        """Whether :meth:`wants` has to be asked."""
        self.ratio = settings.compile_ratio
        """Share of the traces within compiles that are recorded, where compiles are not muted."""
        self.muted = _muted(settings)
        """Kinds of calls that, with all beneath them, are only counted and not traced."""
        self.beside: Beside | None = None
        self.runs: Runs | None = None
        self.joined: Callable[[TracerProvider], None] | None = None
        """Called with each provider that traces are about to be recorded by."""
        self.providers = providers if providers is not None else Providers()
        """What was asked for."""
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        self._answer: tuple[tuple[Any, Any] | None, Tracer | None] = None, None
        """The tracer, and the global providers for which it is that; at once, for threads look while others ask."""
        self._lean = False
        self._meter_provider: MeterProvider | None = None
        self._logger_provider: LoggerProvider | None = None
        self._events: Events | None = None

    def tracer(self) -> Tracer | None:
        """Return the tracer of the provider in force, or ``None`` where no SDK is set up.

        The application may set its provider at any time, so it is looked up when a root starts.
        """
        seen, told = self._answer
        if seen is not None and are_global(seen):
            return told
        with _asking:
            return self._asked()

    def _asked(self) -> Tracer | None:
        # First, so that one who is set up meanwhile is noticed the next time.
        seen = global_ones()
        provider = self.providers.tracer_now()
        if provider is not self._provider:
            if self.joined is not None and provider is not None:
                shielded("joining a provider", self.joined, provider)
            self._tracer = shielded("getting a tracer", _tracer_of, provider)
            self._bound(min(self.settings.value_limit, _length_limit(provider)))
            self._lean = leaves_out_beneath(provider)
            self._provider = provider
            # Whoever else is set up with the application is there by its first call.
            shielded("looking for neighbours", neighbours.warn_once)
        meter_provider = self.providers.meter_now()
        if meter_provider is not self._meter_provider:
            self.meters = shielded("getting a meter", self._meters_of, meter_provider)
            self._meter_provider = meter_provider
        told = self._tracer if self._tracer is not None or self.meters is None else _NO_SPANS
        self._answer = seen, told
        return told

    def needs_nothing(self) -> bool:
        """Return whether nobody is told anything of calls beneath one whose span is not recorded."""
        return self._lean and self.meters is None and self.runs is None and not self.settings.emit_event

    @property
    def captures(self) -> bool:
        """Whether content is told of spans that are recorded, on them or beside them."""
        return self.span_capture is not None or (self.beside is not None and self.beside.capture is not None)

    def _meters_of(self, provider: MeterProvider | None) -> Meters | None:
        if provider is None:
            return None
        return Meters(provider.get_meter(SCOPE, __version__), self.spellings, self.settings.latest_semconv)

    def event(self, fact: facts.Fact) -> Event | None:
        """Return the event of a call that begins, or ``None`` where nobody takes events or wants this one."""
        if type(fact) is not facts.ExampleRun and not self.settings.emit_event:
            return None
        provider = self.providers.logger_now()
        if provider is not self._logger_provider:
            self._events = shielded("getting a logger", self._events_of, provider)
            self._logger_provider = provider
        return self._events.begin(fact) if self._events is not None else None

    def _events_of(self, provider: LoggerProvider | None) -> Events | None:
        if provider is None:
            return None
        wanted = self.settings.content_on_events
        logger = provider.get_logger(SCOPE, __version__)
        return Events(logger, self.vocabularies[0], structures_of(self.settings) if wanted else None, self.text)

    def wants(self, fact: facts.Fact) -> bool:
        """Return whether the detail asked for includes `fact`."""
        return not self.picky or not isinstance(fact, facts.ModuleCall) or fact.outermost or fact.agent

    def text(self, value: str) -> str:
        """Return captured text, such as an exception's, redacted, without secrets and within bounds."""
        if self.settings.redact is not None:
            redacted = ask(self.settings.redact, value, default="[redact failed]")
            value = redacted if isinstance(redacted, str) else "[redacted]"
        return jsonable.cut_text(value, self._limit, secrets.scrub_text)

    def settle(self, attributes: Attributes, span: Span) -> None:
        """Make of `attributes` what there is room for on `span`, which has had some from its start."""
        limits = ask(getattr, self._provider, "_span_limits")
        most = ask(getattr, limits, "max_span_attributes", default=DEFAULT_MOST)
        taken = ask(lambda: len(span.attributes), default=0)  # type: ignore[attr-defined]  # the SDK's spans have them
        for vocabulary in self.settles:
            vocabulary.settle(attributes, most if isinstance(most, int) else MOST, taken)

    def _bound(self, limit: int) -> None:
        self._limit = limit
        if self.settings.content_on_spans:
            self.span_capture = capture_of(self.settings, limit)


def _vocabularies(settings: Settings) -> list[Vocabulary]:
    spoken: list[Vocabulary] = [GenAI(settings.latest_semconv)]
    if OPENINFERENCE in settings.conventions:
        from dspy_trace.vocab.openinference import OpenInference

        spoken.append(OpenInference(settings.value_limit, settings.hidden))
    return spoken


def _muted(settings: Settings) -> frozenset[type[facts.Fact]]:
    traced = {facts.Evaluation: settings.traces_from_eval, facts.Compilation: settings.traces_from_compile}
    return frozenset(kind for kind, wanted in traced.items() if not wanted)


def capture_of(settings: Settings, limit: int = LIMIT, *, leaving: bool = True) -> Callable[[Any], str]:
    """Return what gives captured values as bounded, redacted JSON text without secrets."""
    capture = partial(jsonable.dumps, limit=limit, redact=settings.redact)

    def scrubbed(value: Any) -> str:
        text = secrets.scrub_json(capture(value))
        # What stands for a secret may be longer than it.
        return text if len(text) <= limit else jsonable.dumps(orjson.loads(text), limit)

    told = scrubbed if leaving else capture
    # What redacts may be any code of the program's, and is asked each time.
    return told if settings.redact is not None else Recalled(told, secrets.finder)


def structures_of(settings: Settings) -> Callable[[Any], Any]:
    """Return what gives captured values as bounded, redacted plain data."""
    capture = capture_of(settings, settings.value_limit)
    return lambda value: orjson.loads(capture(value))


def _length_limit(provider: TracerProvider | None) -> int:
    """Return the SDK's limit, as long as it keeps it where it does: it would cut JSON anywhere."""
    limits = ask(getattr, provider, "_span_limits")
    limit = ask(getattr, limits, "max_span_attribute_length")
    return limit if isinstance(limit, int) else LIMIT


def _tracer_of(provider: TracerProvider | None) -> Tracer | None:
    if provider is None:
        return None
    tracer = provider.get_tracer(SCOPE, __version__)
    return None if isinstance(tracer, NoOpTracer) else tracer


_NO_SPANS = NoOpTracer()
"""Where metrics are recorded and spans are not."""

_asking = RLock()
"""Held by who asks the providers anew, so that no thread mixes what two of them have found."""


def _forked() -> None:
    global _asking  # noqa: PLW0603  # another thread may have held it in the parent
    _asking = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

_active: Observer | None = None


def active() -> Observer | None:
    """Return the observer in force for new roots."""
    return _active


def activate(observer: Observer | None) -> None:
    """Put `observer` in force for roots that start from now on; ``None`` ends observation."""
    global _active  # noqa: PLW0603  # one per process, as the patches are
    _active = observer
