"""The processor between the program's spans and the spool: which go together, which are roots, which are not for us."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, StaticSampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from dspy_trace import guard
from dspy_trace.export import traces
from tests.delivery import eventually
from tests.spooled import Spooled


def remote() -> Any:
    """Return a parent in another process."""
    return NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))


def elsewhere() -> Any:
    """Return a parent that another provider records."""
    return TracerProvider(shutdown_on_exit=False).get_tracer("elsewhere").start_span("elsewhere")


@pytest.mark.parametrize("parent", [lambda: None, remote, elsewhere], ids=["none", "remote", "another provider's"])
def test_local_roots(parent: Callable[[], Any]) -> None:
    """A span is a local root if its parent is absent, remote or unknown to us; what is beneath it is none."""
    spooled, above = Spooled(), parent()
    root = spooled.begin("root", above)
    child = spooled.begin("child", root)
    spooled.end(child, root, ours=True)
    first, second = spooled.all()
    assert (first.root, first.parent_id) == (False, root.get_span_context().span_id)
    assert (second.root, second.parent_id) == (True, above and above.get_span_context().span_id)
    assert first.trace is second.trace
    assert [trace.trace_id for trace in spooled.opened] == [root.get_span_context().trace_id]
    assert first.beside == {"of": "child"}


def test_roots_of_one_trace() -> None:
    """Two requests that continue one remote trace are two local roots of one trace, opened once."""
    spooled, above = Spooled(), remote()
    one, other = spooled.begin("one", above), spooled.begin("other", above)
    spooled.end(one, other, ours=True)
    assert spooled.told() == ["> one", "> other"]
    assert len(spooled.opened) == 1


def test_two_providers_that_we_are_on() -> None:
    """A parent that another provider records is known if we are on that one as well."""
    spooled = Spooled()
    other = spooled.joined().get_tracer("other")
    root = spooled.begin("root", tracer=other)
    child = spooled.begin("child", root)
    spooled.end(child, root, ours=True)
    assert spooled.told() == ["child", "> root"]


def test_what_began_before_us_is_not_ours_to_tell() -> None:
    """A span that had started before we came is left alone; its children are local roots."""
    spooled = Spooled()
    provider = TracerProvider(shutdown_on_exit=False)
    before = provider.get_tracer("test").start_span("before")
    provider.add_span_processor(spooled.processor)
    child = spooled.begin("child", before, provider.get_tracer("test"))
    spooled.end(child, before, ours=True)
    assert spooled.told() == ["> child"]
    assert spooled.counts() == (1, 0, 1, 0, 0)


def test_children_may_end_after_their_root() -> None:
    """A child that outlives its root belongs to it, whether the rest has been written by then or not."""
    spooled = Spooled()
    root = spooled.begin("root")
    late, latest = spooled.begin("late", root), spooled.begin("latest", root)
    spooled.end(root, late, ours=True)
    assert spooled.told() == ["> root", "late"]
    spooled.end(latest, ours=True)
    assert spooled.told() == ["> root", "late", "latest"]


def test_children_may_begin_after_their_root_has_ended() -> None:
    """A child that begins when all of its trace has ended and been written still belongs to it."""
    spooled = Spooled()
    with spooled.span("root", ours=True) as root:
        pass
    assert spooled.told() == ["> root"]
    with spooled.span("child", root, ours=True):
        pass
    assert spooled.told() == ["> root", "child"]
    assert len(spooled.opened) == 1


def test_only_so_many_traces_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond, a child that comes late begins its trace anew: it is no child of a span that nobody knows."""
    monkeypatch.setattr(traces, "REMEMBERED", 3)
    spooled = Spooled()
    roots = []
    for name in "abcd":
        with spooled.span(name, ours=True) as root:
            roots.append(root)
    for root in (roots[3], roots[0]):
        with spooled.span(f"late {root.name}", root, ours=True):
            pass
    assert spooled.told()[4:] == ["late d", "> late a"]


def test_traces_of_others_are_filtered() -> None:
    """A trace that holds no span of ours goes nowhere, and is counted once it has ended."""
    spooled = Spooled()
    root = spooled.begin("health")
    with spooled.span("query", root):
        pass
    assert spooled.told() == []
    assert spooled.counts() == (1, 1, 0, 0, 0)
    spooled.end(root)
    assert spooled.told() == []
    assert spooled.counts() == (2, 0, 0, 0, 2)


def test_traces_of_ours_are_whole() -> None:
    """A trace that holds a span of ours goes with all of the application's, whenever each of them ended."""
    spooled = Spooled()
    root = spooled.begin("request")
    with spooled.span("authorize", root):
        pass
    assert spooled.told() == []
    with spooled.span("invoke_workflow", root, ours=True):
        pass
    with spooled.span("store", root):
        pass
    assert spooled.told() == ["authorize", "invoke_workflow", "store"]
    spooled.end(root)
    assert spooled.told() == ["authorize", "invoke_workflow", "store", "> request"]
    assert spooled.counts() == (4, 0, 4, 0, 0)


def test_all_traces_if_they_are_wanted() -> None:
    """With ``foreign``, everything goes."""
    spooled = Spooled(foreign=True)
    with spooled.span("health"):
        pass
    assert spooled.told() == ["> health"]
    assert spooled.counts() == (1, 0, 1, 0, 0)


def test_a_call_after_its_request_was_filtered() -> None:
    """A call that comes when the application's request above it has ended and was filtered is a local root: MLflow
    would wait for its parent for ever.
    """
    spooled = Spooled()
    with spooled.span("request") as request:
        pass
    assert spooled.told() == []
    call = spooled.begin("invoke_workflow", request)
    with spooled.span("chat", call, ours=True):
        pass
    spooled.end(call, ours=True)
    assert spooled.told() == ["chat", "> invoke_workflow"]
    assert spooled.counts() == (3, 0, 2, 0, 1)


@pytest.mark.parametrize("decision", [Decision.DROP, Decision.RECORD_ONLY])
def test_what_is_not_sampled_is_not_seen(decision: Decision) -> None:
    """A span that is not sampled is neither written nor counted, though somebody may have it recorded."""
    spooled = Spooled()
    spooled.provider.sampler = StaticSampler(decision)
    tracer = spooled.provider.get_tracer("another")
    call = spooled.begin("call", tracer=tracer)
    child = spooled.begin("child", call, tracer)
    assert call.is_recording() is (decision is Decision.RECORD_ONLY)
    spooled.end(child, call, ours=call.is_recording())
    assert spooled.told() == []
    assert spooled.counts() == (0, 0, 0, 0, 0)


def test_switched_off_it_finishes_what_it_has_begun() -> None:
    """Not live, it follows no new trace, and those that go on to their end."""
    spooled = Spooled(foreign=True)
    root = spooled.begin("root")
    spooled.processor.live = False
    with spooled.span("child", root, ours=True), spooled.span("new", ours=True):
        pass
    spooled.end(root, ours=True)
    assert spooled.told() == ["child", "> root"]
    assert spooled.counts() == (2, 0, 2, 0, 0)
    spooled.processor.live = True
    with spooled.span("newer", ours=True):
        pass
    assert spooled.told()[2:] == ["> newer"]


def test_spans_without_a_beginning() -> None:
    """As a plain exporter hands them over, in any order of parts: ours are known by their scope, and so are roots."""
    provider = TracerProvider(shutdown_on_exit=False)
    spooled, ours, theirs = Spooled(), provider.get_tracer("dspy_trace"), provider.get_tracer("app")
    request = spooled.begin("request", remote(), theirs)
    call = spooled.begin("call", request, ours)
    health = spooled.begin("health", None, theirs)
    spooled.end(call, request, health)
    spooled.processor.take([call])
    spooled.processor.take([request, health])
    assert spooled.told() == ["call", "> request"]
    assert spooled.counts() == (3, 0, 2, 0, 1)


def test_it_writes_by_itself() -> None:
    """Within a fifth of a second its thread has written what has ended; sooner where a batch is full."""
    spooled = Spooled(still=False)
    with spooled.span("first", ours=True):
        assert spooled.written == []
    eventually(lambda: spooled.written, timeout=5)
    spooled.limits.seconds = 1e9
    spooled.limits.batch = 4
    eventually(lambda: spooled.processor.queued() == 0)
    for _ in range(4):
        with spooled.span("more", ours=True):
            pass
    eventually(lambda: len([True for decided in spooled.written for _ in decided]) == 5, timeout=5)
    spooled.processor.end()


def test_it_ends_and_begins_anew() -> None:
    """``end()`` writes what is left and ends the thread; a provider's shutdown only writes. A later span goes on."""
    spooled = Spooled(still=False)
    before = set(threading.enumerate())
    for number in range(3):
        with spooled.span(f"span {number}", ours=True):
            pass
        assert set(threading.enumerate()) > before
        (spooled.processor.end if number < 2 else spooled.processor.shutdown)()
        assert len(spooled.written) == number + 1
        if number < 2:
            eventually(lambda: set(threading.enumerate()) == before, timeout=5)
    with spooled.span("span 3", ours=True):
        pass
    assert spooled.processor.force_flush()
    assert [ended.span.name for decided in spooled.written for _, spans in decided for ended in spans] == [
        f"span {number}" for number in range(4)
    ]
    spooled.processor.end()


def test_what_cannot_be_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans whose writing fails are dropped, and the next are written."""
    monkeypatch.setattr(guard, "strict", False)
    spooled = Spooled()
    write, spooled.processor._write = spooled.processor._write, lambda decided: 1 / 0
    with spooled.span("lost", ours=True):
        pass
    assert spooled.processor.force_flush()
    spooled.processor._write = write
    with spooled.span("kept", ours=True):
        pass
    assert spooled.told() == ["> kept"]
    assert spooled.counts() == (2, 0, 1, 1, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_process_has_accounts_of_its_own() -> None:
    """After a fork the child writes what begins there, and nothing of the parent's; the parent loses nothing."""
    spooled = Spooled(still=False)
    spooled.limits.seconds = 0.02
    with spooled.span("before", ours=True):
        pass
    eventually(lambda: spooled.written)
    spooled.limits.seconds = 1e9  # so that the thread leaves what comes to the child
    root = spooled.begin("root")
    with spooled.span("queued", root, ours=True):
        pass
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            spooled.written.clear()
            spooled.limits.seconds = 0.02
            spooled.end(root, ours=True)
            with spooled.span("new", ours=True), spooled.span("beneath", root, ours=True):
                pass
            eventually(lambda: spooled.counts()[2] == 2, timeout=5)
            os.write(writing, f"{spooled.told()} {spooled.counts()}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "['> beneath', '> new'] (2, 0, 2, 0, 0)"
    os.waitpid(child, 0)
    spooled.end(root, ours=True)
    assert spooled.told() == ["> before", "queued", "> root"]
    spooled.processor.end()
