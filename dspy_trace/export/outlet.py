"""The way out: one per process, from the spans of any provider to MLflow.

Holds the processor, which runs on the program's threads, and the delivery, which runs on ours. Where a trace goes is
read when its first local root starts, and written down with it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

import orjson
from opentelemetry.sdk.trace import Span
from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, TracerProvider, get_current_span

from dspy_trace import settings as names
from dspy_trace.export.around import ask_mlflow
from dspy_trace.export.items import Batch, Counters
from dspy_trace.export.mlflow import row
from dspy_trace.export.mlflow_info import TraceFacts
from dspy_trace.export.pace import in_turns
from dspy_trace.export.processor import Limits, SpoolProcessor
from dspy_trace.export.runner import within
from dspy_trace.export.scrubbing import rows_without_secrets, without_secrets
from dspy_trace.export.self_metrics import tell_metrics
from dspy_trace.export.sender import GRACE, Delivery
from dspy_trace.export.source import source
from dspy_trace.export.target import BadTarget, Credential, Target, target, working_folder
from dspy_trace.export.traces import LiveTrace
from dspy_trace.export.undecided import Ended
from dspy_trace.guard import ask, shielded
from dspy_trace.observing.observer import Beside, capture_of
from dspy_trace.runs.queue import RunQueue
from dspy_trace.secrets import learn_environment
from dspy_trace.settings import Settings
from dspy_trace.vocab.mlflow import MLflow

_NONE = (ProxyTracerProvider, NoOpTracerProvider)
"""Providers that stand for there being none."""

logger = logging.getLogger("dspy_trace")

LEAST = 1.0
"""Seconds that `shutdown` may take however little it is given: it lets go of what others wait for."""


class Outlet:
    """Takes finished traces to where the program's MLflow settings say."""

    def __init__(self) -> None:
        self.uri: str | None = None
        self.experiment: str | None = None
        self._credentials: dict[Target, Credential | None] = {}
        self._refused: set[str] = set()
        self._folder = ""
        self._providers: list[TracerProvider] = []
        self._joining = threading.Lock()
        environ = os.environ
        durability = environ.get(names.DURABILITY, "async").strip().lower()
        self.delivery = Delivery(durability=durability, credentials=self._credentials.get)
        self.processor = SpoolProcessor(
            self._write,
            self._opened,
            limits=_limits(environ.get),
            sync=durability == "sync",
            foreign=environ.get(names.FOREIGN, "").strip().lower() == "all",
        )
        self.nowhere = 0
        """Spans whose tracking URI is one that traces cannot be kept in."""
        self.untold = 0
        """Spans that could not be translated."""
        shielded("offering metrics", tell_metrics, self)
        atexit.register(self._at_exit)
        self._child: int | None = None
        """Process of multiprocessing's that has been told to deliver when it ends."""
        processes: Any = sys.modules.get("multiprocessing.process")
        if processes is not None and processes.parent_process() is not None:
            self._at_exit_of_child()
        self.runs = RunQueue(self.delivery)
        self.forked()

    def here(self) -> tuple[Target | None, str | None]:
        """Return where a run that begins now goes, and MLflow's id of the run that is active."""
        found = LiveTrace(0)
        self._opened(found)
        return found.destination, found.about.get("run_id")

    def trace_of(self, trace_id: int, where: Target | None, run: str) -> str:
        """Let a trace that begins go where a run of ours is; return MLflow's id of it."""
        known = self.processor.trace(trace_id)
        if known is not None:
            known.about["run"] = run
            known.destination = where or known.destination
        return self.name_of(trace_id)

    def name_of(self, trace_id: int) -> str:
        """Return MLflow's id of a trace."""
        known = self.processor.trace(trace_id)
        return f"tr-{(known.mlflow_trace_id if known is not None else None) or trace_id:032x}"

    def join(self, provider: TracerProvider) -> None:
        """Put the processor on an SDK provider, once. Any other provider is left alone, and that is said."""
        with self._joining:
            if any(one is provider for one in self._providers) or isinstance(provider, _NONE):
                return
            self._providers.append(provider)
            if isinstance(provider, SDKTracerProvider):
                provider.add_span_processor(self.processor)
                self._adopt_current(provider)
                return
        logger.warning(
            "dspy-trace: the tracer provider of the application, %s, is not that of OpenTelemetry's SDK, and MLflow "
            "gets nothing of what it records. To have it there, record with one that is: "
            "dspy_trace.autolog(tracer_provider=opentelemetry.sdk.trace.TracerProvider()).",
            type(provider).__qualname__,
        )

    def _adopt_current(self, provider: SDKTracerProvider) -> None:
        """Follow the current span, if it is one of `provider`: it began before we were there, and ends with us there.

        By private names; where they are gone, a trace that is going on begins for us with the call in it.
        """
        span = get_current_span()
        recorded_by = getattr(span, "_span_processor", None)
        is_its = recorded_by is not None and recorded_by is getattr(provider, "_active_span_processor", None)
        if is_its and isinstance(span, Span) and span.is_recording():
            self.processor.on_start(span)

    def beside(self, settings: Settings) -> Beside:
        """Return what is told of our spans beside them."""
        vocabulary = MLflow()
        capture = capture_of(settings, leaving=False) if settings.content_for_mlflow else None
        return Beside(vocabulary.spellings, vocabulary.of_session, capture, self.processor.keep)

    def _opened(self, trace: LiveTrace) -> None:
        """Read where a trace goes; on the program's thread."""
        trace.facts = TraceFacts()
        try:
            trace.destination, credential = target(self.uri, self.experiment, os.environ, self._working_folder)
        except BadTarget as refused:
            if str(refused) not in self._refused:
                self._refused.add(str(refused))
                logger.warning("dspy-trace: traces are not kept: %s", refused)
            return
        if "mlflow" in sys.modules:
            shielded("asking mlflow", ask_mlflow, trace, follow_run=self.experiment is None)
        self._credentials[trace.destination] = credential

    def _working_folder(self) -> str:
        """Return the working folder; while the program is ahead of us, as it was last.

        To ask for it lets go of the interpreter. Whoever does that all the time takes it back before others notice.
        """
        if not self._folder or not self.processor.lags():
            self._folder = working_folder()
        return self._folder

    def _write(self, decided: list[tuple[LiveTrace, list[Ended]]]) -> None:
        learn_environment()
        batches = []
        for trace, spans in in_turns(decided):
            if trace.destination is None:
                self.nowhere += len(spans)
                continue
            batch = shielded("translating a trace", self._batch, trace.destination, trace, spans)
            self.untold += len(spans) - (batch.spans if batch is not None else 0)
            if batch is not None:
                batches.append(batch)
        if batches:
            self.delivery.put(batches)

    def _batch(self, where: Target, trace: LiveTrace, spans: list[Ended]) -> Batch:
        told: TraceFacts = trace.facts
        # A root says what the rest has told of the trace.
        spans.sort(key=lambda ended: ended.root)
        rows = [made for ended in spans if (made := shielded("translating a span", _row, ended, told)) is not None]
        complete = any(ended.root for ended in spans)
        about = {**trace.about, **(ask(source, default={}) if where.kind == "database" else {})}
        info = told.info(about) if complete else None
        trace_id = f"{trace.mlflow_trace_id or trace.trace_id:032x}"
        payload = None if info is None else without_secrets(orjson.dumps(info))
        return Batch(where, trace_id, rows_without_secrets(orjson.dumps(rows)), len(rows), complete, payload)

    def feedback(self, trace_id: str, told: dict[str, Any]) -> None:
        """Have feedback delivered after its trace, or at once if that has been."""
        known = self.processor.trace(int(trace_id, 16))
        where = known.destination if known is not None else None
        if where is None:
            where, credential = target(self.uri, self.experiment, os.environ)
            self._credentials[where] = credential
        mlflow_id = known.mlflow_trace_id if known is not None else None
        self.processor.write_out()
        self.delivery.feedback(
            where, f"{mlflow_id:032x}" if mlflow_id else trace_id, without_secrets(orjson.dumps(told))
        )

    def accounts(self) -> tuple[Counters, dict[str, int]]:
        """Return what has become of the spans that were handed on: put into the spool, or dropped before."""
        told = shielded("counting", lambda: self.delivery.counters) or Counters()
        return told, {"tracking URI refused": self.nowhere, "not translated": self.untold}

    def flush(self, timeout: float) -> bool:
        """Write out and deliver; return whether nothing waits any more, after `timeout` seconds at the latest."""
        deadline = monotonic() + timeout

        def flushed() -> bool:
            self.runs.write_out()
            self.processor.write_out()
            return self.delivery.flush(deadline - monotonic())

        return bool(within(max(timeout, GRACE), "flushing", flushed))

    def shutdown(self, timeout: float, worker: bool = False) -> bool:
        """Write out, deliver as far as `timeout` seconds allow, and end our threads; a later span starts them again."""
        bound = max(timeout, LEAST)
        # So that there is time left to let go of all that is held.
        deadline = monotonic() + min(timeout, bound - 2 * GRACE)

        def ended() -> bool:
            self.runs.end()
            self.processor.end()
            return self.delivery.shutdown(deadline - monotonic(), worker)

        return bool(within(bound, "shutting down", ended))

    def _at_exit_of_child(self) -> None:
        """Have a child process of multiprocessing's deliver: it ends without what is registered for the exit."""
        from multiprocessing.util import Finalize

        if self._child != os.getpid():
            self._child = os.getpid()
            Finalize(None, self._at_exit, exitpriority=-1_000)

    def forked(self) -> None:
        """Begin anew in a child process, and have one of multiprocessing's, which forgets all finalizers, end well."""
        self.nowhere = self.untold = 0
        self.runs.forked()
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, Outlet._at_exit_of_child)

    def _at_exit(self) -> None:
        shielded("writing runs", self.runs.write_out)
        shielded("writing spans", self.processor.write_out)
        shielded("delivering at exit", self.delivery.at_exit)


def _row(ended: Ended, told: TraceFacts) -> dict[str, Any]:
    trace = ended.trace
    return row(
        ended.span,
        ended.beside,
        trace_id=trace.mlflow_trace_id or trace.trace_id,
        parent_id=trace.mlflow_parent_id if ended.root else ended.parent_id,
        root=ended.root,
        trace=told,
    )


def _limits(get: Any) -> Limits:
    """Return the bounds that OpenTelemetry's own variables for batch processors set."""
    limits = Limits()
    queue, batch, delay = (ask(int, get(name)) for name in (names.BSP_QUEUE, names.BSP_BATCH, names.BSP_DELAY))
    limits.spans = queue if queue and queue > 0 else limits.spans
    limits.batch = batch if batch and batch > 0 else limits.batch
    limits.seconds = delay / 1000 if delay and delay > 0 else limits.seconds
    return limits


_outlet: list[Outlet] = []
_lock = threading.Lock()


def outlet() -> Outlet:
    """Return the way out of this process, made on first use."""
    with _lock:
        if not _outlet:
            _outlet.append(Outlet())
        return _outlet[0]


def existing() -> Sequence[Outlet]:
    """Return the way out of this process if it has been made, else nothing."""
    return tuple(_outlet)


def _in_child() -> None:
    for out in _outlet:
        out.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
