"""One line: every DSPy program into the user's MLflow experiment, and over OTLP where that is set up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from threading import RLock
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import ProxyTracerProvider, TracerProvider

from dspy_trace.export.outlet import Outlet, existing, outlet
from dspy_trace.guard import attempt
from dspy_trace.instrumentor import DSPyInstrumentor, check
from dspy_trace.observing.observer import SCOPE
from dspy_trace.offered import OfferedProvider, make, wants_otlp
from dspy_trace.settings import check_bools
from dspy_trace.settings import metrics as names

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider as OwnMeterProvider

logger = logging.getLogger("dspy_trace")

_lock = RLock()
_offered: list[OfferedProvider] = []
"""Our own provider, once it has been needed."""
_spare: list[OwnMeterProvider] = []
"""The same for metrics."""


def autolog(
    *,
    log_traces: bool = True,
    log_traces_from_compile: bool | float = False,
    log_traces_from_eval: bool = True,
    log_compiles: bool = False,
    log_evals: bool = False,
    log_models: bool = False,
    disable: bool = False,
    silent: bool = False,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    capture_content: bool | str | None = None,
    detail: str | None = None,
    conventions: Collection[str] | None = None,
    redact: Callable[[Any], Any] | None = None,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    propagate: bool | None = None,
) -> None:
    """Trace every DSPy program of this process into MLflow.

    May be called from any thread or task, any number of times: the last call wins, and calls in flight finish under the
    settings they started with. Joins the SDK's ``TracerProvider`` that the application has set, and follows one that it
    sets later. Where there is none, it offers one as the default, which also exports over OTLP if
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` is set. Metrics go to the application's
    ``MeterProvider``, whenever it sets one, and until then over OTLP if ``OTEL_EXPORTER_OTLP_ENDPOINT`` or
    ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`` is set.

    Args:
        log_traces: trace at all.
        log_traces_from_compile: trace what runs inside an optimizer's ``compile``; a number from 0.0 to 1.0 is the
            share of its rollouts to trace. Example: ``0.1``.
        log_traces_from_eval: trace what runs inside ``dspy.Evaluate``.
        log_compiles: log each outermost ``compile`` as an MLflow run, with every evaluation in it as a child run.
        log_evals: log each ``dspy.Evaluate`` as an MLflow run.
        log_models: log the program that each compile of ``log_compiles`` returns as a model of ``dspy_trace_flavor``.
        disable: stop tracing and restore DSPy exactly.
        silent: log nothing but warnings of lost data.
        tracking_uri: where to; by default ``MLFLOW_TRACKING_URI``, which ``mlflow.set_tracking_uri`` writes, else
            ``sqlite:///mlflow.db`` in the working folder.
        experiment: name, or id if it is all digits; by default ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``.
        capture_content: see :meth:`dspy_trace.DSPyInstrumentor.instrument`. Whatever it says about spans, content goes
            into the MLflow experiment, which is the user's own; only ``False`` or ``"NO_CONTENT"`` keeps it out there.
        detail: ``minimal``, ``standard`` (default) or ``full``.
        conventions: vocabularies to write spans in; ``{"genai"}`` by default.
        redact: takes every captured value, as plain data, and returns what may be told of it.
        tracer_provider: record with this provider, whatever the application sets.
        meter_provider: the same for metrics.
        logger_provider: the same for events; by default they go to the application's, if it has one.
        propagate: see :meth:`dspy_trace.DSPyInstrumentor.instrument`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is none of the words allowed for it.
    """
    _check(tracking_uri=tracking_uri, experiment=experiment)
    check_bools(log_traces=log_traces, disable=disable, silent=silent)
    asked = {
        **{"tracer_provider": tracer_provider, "meter_provider": meter_provider, "logger_provider": logger_provider},
        **{"capture_content": capture_content, "detail": detail, "conventions": conventions, "redact": redact},
        **{"log_traces_from_eval": log_traces_from_eval, "log_traces_from_compile": log_traces_from_compile},
        **{"log_evals": log_evals, "log_compiles": log_compiles, "log_models": log_models, "propagate": propagate},
    }
    check(**asked)
    with _lock:
        if disable or not log_traces:
            _stop()
            return
        if log_models and not log_compiles and not silent:
            logger.warning("dspy-trace: log_models=True logs what is compiled: it needs log_compiles=True, too")
        out = outlet()
        out.uri, out.experiment, out.processor.live = tracking_uri, experiment, True
        _begin(out, asked)


def _begin(out: Outlet, asked: dict[str, Any]) -> None:
    if asked["tracer_provider"] is None:
        asked["tracer_provider"] = _offer()
    spare = _spare_meter() if asked["meter_provider"] is None else None
    instrumentor = DSPyInstrumentor()
    begin = instrumentor.change if instrumentor.is_instrumented_by_opentelemetry else instrumentor.instrument
    begin(_outlet=out, _spare_meter=spare, **asked)


def _stop() -> None:
    instrumentor = DSPyInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    _withdraw()
    for out in existing():
        out.processor.live = False


def _check(**texts: str | None) -> None:
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a string, not {type(value).__name__}")


def _offer() -> TracerProvider | None:
    """Offer a provider as the default where the application has none, without using up its right to set one.

    Returns:
        the provider to record with whatever happens, where it could not be offered; else ``None``.
    """
    if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        return None
    if not _offered:
        made = make(SCOPE, _gave_way)
        if made is None:
            return None
        _offered.append(made)
    # ``set_tracer_provider`` works once in a process, and that once is the application's. The name behind it is
    # private: where it is gone, our provider stays private too.
    if not hasattr(trace, "_TRACER_PROVIDER"):
        return _offered[0]
    trace._TRACER_PROVIDER = _offered[0]  # pyright: ignore[reportPrivateUsage]  # see above
    return None


def _gave_way(provider: TracerProvider) -> None:
    """Join the provider that the application has set: its spans may be part of our traces from now on."""
    for out in existing():
        if out.processor.live:
            out.join(provider)


def _spare_meter() -> MeterProvider | None:
    """Return what takes metrics for as long as the application has no meter provider; it is nobody's default."""
    if not _spare and wants_otlp(names.METRICS_EXPORTER, names.OTLP_METRICS_ENDPOINTS):
        from dspy_trace.export.otlp_metrics import provider

        made, error = attempt(provider)
        if error is not None:
            logger.warning("dspy-trace: no metrics are exported over OTLP: %s Mend the OTEL_ variables.", error)
            return None
        _spare.append(made)
    return _spare[0] if _spare else None


def end_metrics(timeout: float) -> None:
    """Export the last of what our own meter provider has, within `timeout` seconds, and end it."""
    with _lock:
        ended, _spare[:] = list(_spare), []
    for provider in ended:
        attempt(provider.shutdown, timeout * 1_000)


def _withdraw() -> None:
    """Take our provider back, if it is still the default."""
    if _offered and getattr(trace, "_TRACER_PROVIDER", None) is _offered[0]:
        trace._TRACER_PROVIDER = None  # pyright: ignore[reportPrivateUsage]  # see _offer
