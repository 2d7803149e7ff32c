"""Everything of a DSPy program that its host can notice, so that a traced run can be compared with a bare one."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dspy
from opentelemetry import context as otel_context
from opentelemetry import metrics, propagate, trace

from dspy_trace.observing.wrapping import leftovers
from dspy_trace.testing import Recording, record
from tests.parts.scripted_lm import ScriptedLM

Scenario = Callable[[ScriptedLM], Any]
"""A program: takes the server to ask, returns what the host has of it. May be ``async``."""

_CHANGING_HEADERS = {"date", "host", "traceparent", "tracestate"}
_OTHERS = {"asyncio", "LiteLLM"}
_HISTORY = ("prompt", "messages", "kwargs", "outputs", "usage", "cost", "model", "model_type")


@dataclasses.dataclass
class Seen:
    """What one run of a program was to its host and to its LM, as plain values that can be compared."""

    returned: Any = None
    raised: Any = None
    requests: list[str] = dataclasses.field(default_factory=list)
    warned: list[Any] = dataclasses.field(default_factory=list)
    logged: list[Any] = dataclasses.field(default_factory=list)
    printed: str = ""
    history: list[str] = dataclasses.field(default_factory=list)
    changed: set[str] = dataclasses.field(default_factory=set)


def run(scenario: Scenario) -> Seen:
    """Run `scenario` against a fresh LM server and return what could be noticed of it."""
    seen = Seen()
    before = process()
    with ScriptedLM() as server, _listening(seen), contextlib.redirect_stdout(io.StringIO()) as printed:
        lm = server.lm()
        with dspy.context(lm=lm, trace=[], callbacks=[]):
            try:
                result = scenario(server)
                result = asyncio.run(result) if inspect.iscoroutine(result) else result
                seen.returned = told(result)
            except BaseException as error:  # noqa: BLE001  # whatever it is, both runs must raise it
                seen.raised = _error(error)
        seen.history = sorted(json.dumps(told(_entry(entry))) for entry in lm.history)
        seen.requests = sorted(_request(request) for request in server.requests)
        assert not server.failures, server.failures
    seen.printed = _stable(printed.getvalue())
    after = process()
    seen.changed = {key for key in before if before[key] != after[key]}
    return seen


def told(value: Any, depth: int = 12) -> Any:
    """Return `value` by content, with the class of every object, and without addresses and ports."""
    if isinstance(value, str):
        return _stable(value) if type(value) is str else [type(value).__qualname__, _stable(str(value))]
    if value is None or isinstance(value, bool | int | float | bytes):
        return value if type(value).__module__ == "builtins" else [type(value).__qualname__, repr(value)]
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, dict):
        return [type(value).__qualname__, [[told(k), told(v, depth - 1)] for k, v in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__qualname__, *(told(item, depth - 1) for item in value)]
    if isinstance(value, BaseException):
        return _error(value)
    return [type(value).__qualname__, told(_state(value), depth - 1)]


def _state(value: Any) -> Any:
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return value.__qualname__
    if isinstance(value, dspy.Module):
        return value.dump_state()
    if hasattr(value, "tolist"):
        return value.tolist()
    return getattr(value, "_store", None) or getattr(value, "__dict__", None) or str(value)


def _error(error: BaseException | None) -> Any:
    if error is None:
        return None
    chain = [_error(error.__cause__), _error(error.__context__), error.__suppress_context__]
    return [type(error).__qualname__, _stable(str(error)), told(error.args), chain]


def _stable(text: str) -> str:
    text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", text)
    # How often a progress bar is drawn, and what it says of the pace, depends on the time it takes.
    text = re.sub(r"[^\r\n]*\d+%\|[^\r\n]*[\r\n]*", "", text)
    return re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", text)


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry.get(key) for key in _HISTORY}


def _request(request: Any) -> str:
    headers = sorted((k, v) for k, v in request.headers.items() if k not in _CHANGING_HEADERS)
    return _stable(json.dumps([request.method, request.path, request.body, headers]))


@contextlib.contextmanager
def _listening(seen: Seen) -> Iterator[None]:
    """Collect warnings with the line that they name, and every log record of whatever logger."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = records.append  # type: ignore[method-assign]  # as short as can be
    loggers = [logging.getLogger(), logging.getLogger("dspy"), logging.getLogger("dspy_trace")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    # When a socket that nobody closed is noticed depends on the garbage collector.
    heard = [warning for warning in caught if warning.category is not ResourceWarning]
    # Pydantic says what it thinks of a class once, when the class is first used: in this run or in another test.
    heard = [warning for warning in heard if "/pydantic/_internal/" not in warning.filename]
    seen.warned = sorted((w.category.__name__, _stable(str(w.message)), w.filename, w.lineno) for w in heard)
    # What asyncio and LiteLLM say of their loops depends on what ran before.
    told_records = {id(r): r for r in records if r.name not in _OTHERS and r.levelno >= logging.INFO}.values()
    seen.logged = sorted((r.name, r.levelno, r.pathname, _stable(r.getMessage())) for r in told_records)


def process() -> dict[str, Any]:
    """Return the state of the process that belongs to the host and to nobody else."""
    settings = sys.modules["dspy.dsp.utils.settings"]  # the package has an attribute of that name
    config = settings.main_thread_config
    return {
        "environment": dict(os.environ),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        # DSPy keeps thousands of calls in its settings: who they are is enough.
        "dspy.settings": {
            key: (id(value), [*map(id, value)] if isinstance(value, list) else str(value))
            for key, value in ((key, config[key]) for key in config)
        },
        "owner of dspy.settings": (settings.config_owner_thread_id, settings.config_owner_async_task),
        "overrides of dspy.settings": dict(settings.thread_local_overrides.get()),
        "OpenTelemetry's context": otel_context.get_current(),
        "global providers": (trace.get_tracer_provider(), metrics.get_meter_provider()),
        "global propagator": propagate.get_global_textmap(),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook, sys.gettrace()),
        "logging": (logging.root.level, list(logging.root.handlers), logging.getLogger("dspy").level),
        "warnings filters": list(warnings.filters),
        "path": list(sys.path),
    }


def same(scenario: Scenario, **kwargs: Any) -> Recording:
    """Run `scenario` bare and traced, and return the trace of the second run.

    Raises:
        AssertionError: its host, or its LM, could tell the two runs apart.
    """
    bare = run(scenario)
    before = process()
    with record(**{"detail": "full", "capture_content": True, **kwargs}) as trace:
        traced = run(scenario)
        assert process() == before
    assert process() == before
    assert dataclasses.asdict(traced) == dataclasses.asdict(bare)
    assert not bare.changed
    if bare.raised is not None:
        raise AssertionError(f"the program failed: {bare.raised}")
    return trace


def left_on_dspy() -> list[str]:
    """Return the attributes of DSPy's that still carry something of ours; what other tests left on their own classes
    until the garbage is collected does not count.
    """
    return [name for name in leftovers() if "<locals>" not in name]
