"""Whose tracer provider records: the application's, whenever it comes; else one that we offer and that gives way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    ProxyTracerProvider,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

import dspy_trace
from dspy_trace.observing.observer import Observer
from dspy_trace.observing.signals import Providers
from dspy_trace.settings import Settings
from tests.outlets import Kept, kept, names, nothing_is_said, provider_of_app  # noqa: F401  # fixtures
from tests.pair import PAIR, SECRET, TREE, call

pytestmark = pytest.mark.usefixtures("nothing_is_said")


def test_a_provider_that_is_there_is_joined(kept: Kept) -> None:
    """The application's exporter gets our spans, without content; MLflow gets the same with it; ids are the same."""
    provider, exporter = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog()
    assert trace.get_tracer_provider() is provider
    with trace.get_tracer("app").start_as_current_span("request"):
        call()
    assert names(exporter) == ["request", *PAIR]
    assert kept.tree() == "\n> request\n" + "".join(
        f"  {line}\n" for line in TREE.replace("> ", "").strip().split("\n")
    )
    assert SECRET not in "".join(span.to_json() for span in exporter.get_finished_spans())
    assert str(kept.rows()).count(SECRET) >= len(PAIR)
    exported = {
        (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", span.parent and f"{span.parent.span_id:016x}")
        for span in exporter.get_finished_spans()
    }
    assert {(row["trace_id"], row["span_id"], row["parent_id"]) for row in kept.rows()} == exported


def set_one(exporters: list[Any]) -> None:
    provider, exporter = provider_of_app()
    exporters.append(exporter)
    trace.set_tracer_provider(provider)
    assert trace.get_tracer_provider() is provider


@pytest.mark.parametrize("when", ["before autolog", "after autolog", "between two calls"])
def test_a_provider_that_comes_is_followed(kept: Kept, when: str) -> None:
    """From the first trace that starts after the application has set its provider, that one records."""
    exporters: list[Any] = []
    if when == "before autolog":
        set_one(exporters)
    dspy_trace.autolog()
    if when == "after autolog":
        set_one(exporters)
    if when == "between two calls":
        call()
        set_one(exporters)
    call()
    assert names(exporters[0]) == PAIR
    assert kept.tree() == (TREE if when != "between two calls" else TREE + TREE.lstrip("\n"))


def test_a_trace_of_the_applications_that_is_going_on(kept: Kept) -> None:
    """Where the application's provider is found beneath a span of its own, that span is part of the trace already."""
    exporters: list[Any] = []
    dspy_trace.autolog()
    set_one(exporters)
    app = trace.get_tracer("app")
    for name in ("first", "second"):
        with app.start_as_current_span(name):
            call()
    assert names(exporters[0]) == ["first", *PAIR, "second", *PAIR]
    beneath = "".join(f"  {line}\n" for line in TREE.replace("> ", "").strip().split("\n"))
    assert kept.tree() == f"\n> first\n{beneath}> second\n{beneath}"


def test_a_trace_is_not_torn_by_a_new_provider(kept: Kept) -> None:
    """A trace that goes on when the application sets its provider is recorded to its end by the one it began with."""
    exporters: list[Any] = []
    dspy_trace.autolog()
    call(lambda: set_one(exporters))
    assert names(exporters[0]) == []
    assert kept.tree() == TREE
    call()
    assert names(exporters[0]) == PAIR
    assert kept.tree() == TREE + TREE.lstrip("\n")


def test_the_application_loses_no_tracer(kept: Kept) -> None:
    """A tracer that was got while ours was the default, or before, records with the application's provider once it
    has one, as it would have without us.
    """
    early = trace.get_tracer("early")
    dspy_trace.autolog()
    used, unused = trace.get_tracer("used"), trace.get_tracer("unused")
    tracers = [early, used, unused, trace.get_tracer_provider().get_tracer("of the provider")]
    for tracer in (early, used):
        tracer.start_span("too early").end()
    exporters: list[Any] = []
    set_one(exporters)
    for number, tracer in enumerate(tracers):
        with tracer.start_as_current_span(f"span {number}"):
            call()
    assert names(exporters[0]) == [name for number in range(4) for name in (f"span {number}", *PAIR)]
    assert {span.instrumentation_scope.name for span in exporters[0].get_finished_spans()} == {
        "early",
        "used",
        "unused",
        "of the provider",
        "dspy_trace",
    }


def test_the_first_request_is_whole(kept: Kept) -> None:
    """The application's spans that end before the first call of their trace are in it, if its tracers were got here."""
    dspy_trace.autolog()
    app = trace.get_tracer("app")
    exporters: list[Any] = []
    set_one(exporters)
    with app.start_as_current_span("request"):
        with app.start_as_current_span("authorize"):
            pass
        call()
    beneath = "".join(f"  {line}\n" for line in TREE.replace("> ", "").strip().split("\n"))
    assert kept.tree() == f"\n> request\n  authorize\n{beneath}"
    assert names(exporters[0]) == ["request", "authorize", *PAIR]


def test_our_provider_is_for_everybody(kept: Kept) -> None:
    """Where the application sets none, spans of other instrumentations are part of our traces."""
    dspy_trace.autolog()
    assert isinstance(trace.get_tracer_provider(), TracerProvider)
    with trace.get_tracer("client").start_as_current_span("outer") as outer:
        assert outer.is_recording()
        call(lambda: trace.get_tracer("client").start_span("request").end())
    assert kept.tree() == (
        "\n> outer\n  invoke_workflow Pair\n    Predict first\n      chat dummy\n    request\n"
        "    Predict second\n      chat dummy\n"
    )


def test_our_provider_goes_with_us(kept: Kept) -> None:
    """Switched off, there is no default provider again; a tracer that was got meanwhile records nothing."""
    dspy_trace.autolog()
    tracer = trace.get_tracer("client")
    dspy_trace.autolog(disable=True)
    assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider)
    assert not tracer.start_span("late").is_recording()
    exporters: list[Any] = []
    set_one(exporters)
    dspy_trace.autolog()
    call()
    tracer.start_span("later").end()
    dspy_trace.autolog(disable=True)
    assert trace.get_tracer_provider() is not None
    tracer.start_span("last").end()
    assert names(exporters[0]) == [*PAIR, "later", "last"]


def test_where_the_default_cannot_be_offered_ours_stays_private(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenTelemetry's private name is gone, our calls are recorded all the same, and nobody else's."""
    monkeypatch.delattr(trace, "_TRACER_PROVIDER")
    proxy = ProxyTracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: proxy)
    dspy_trace.autolog()
    call()
    dspy_trace.autolog(disable=True)
    assert not hasattr(trace, "_TRACER_PROVIDER")
    assert kept.tree() == TREE


def test_a_provider_of_the_applications_is_never_shut_down(kept: Kept) -> None:
    """Neither switching off nor ``shutdown()`` ends or flushes what is not ours, whichever way we came to it."""
    done: list[str] = []

    class Watched(TracerProvider):
        def shutdown(self) -> None:
            done.append("shutdown")

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            done.append("flush")
            return True

    ambient, given = Watched(shutdown_on_exit=False), Watched(shutdown_on_exit=False)
    trace.set_tracer_provider(ambient)
    for asked in ({}, {"tracer_provider": given}):
        dspy_trace.autolog(**asked)
        call()
        dspy_trace.flush(0.0)
        dspy_trace.autolog(disable=True)
    dspy_trace.shutdown(0.0)
    assert done == []
    assert kept.tree() == TREE + TREE.lstrip("\n")


def test_a_provider_that_is_given_records_all(kept: Kept) -> None:
    """``tracer_provider=`` goes before whatever the application sets, and leaves the default alone."""
    exporters: list[Any] = []
    provider, exporter = provider_of_app()
    dspy_trace.autolog(tracer_provider=provider)
    assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider)
    call()
    set_one(exporters)
    call()
    assert names(exporter) == 2 * PAIR
    assert names(exporters[0]) == []
    assert kept.tree() == TREE + TREE.lstrip("\n")


def test_a_remote_parent_is_the_collectors_to_know(kept: Kept) -> None:
    """Below a remote parent, the exported root keeps it; MLflow's copy is a root that says what its parent was."""
    provider, exporter = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog()
    with under_remote_parent():
        call()
    (root,) = [span for span in exporter.get_finished_spans() if span.name == PAIR[0]]
    assert root.parent is not None
    assert (root.context.trace_id, root.parent.span_id) == (0xABC, 0xDEF)
    (row,) = [row for row in kept.rows() if row["root"]]
    assert (row["trace_id"], row["parent_id"]) == (f"{0xABC:032x}", None)
    assert row["attributes"]["dspy.parent.span_id"] == f"{0xDEF:016x}"
    assert kept.tree() == TREE


@contextmanager
def under_remote_parent(sampled: bool = True) -> Iterator[None]:
    parent = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(int(sampled)))
    token = attach(set_span_in_context(NonRecordingSpan(parent)))
    try:
        yield
    finally:
        detach(token)


def test_a_provider_that_is_set_meanwhile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread sees that there is none, another may set one: the next call is recorded by it."""

    class Late(Providers):
        """Has one set right after it has been looked for."""

        def tracer_now(self) -> Any:
            found = super().tracer_now()
            monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
            return found

    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    observer = Observer(Settings(), Late(named=frozenset()))
    assert observer.tracer() is None
    assert observer.tracer() is not None
