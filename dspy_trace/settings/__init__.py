"""The settings of one instrumentation, and the environment variables that they and delivery come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from dspy_trace.settings.words import ratio, switch, words

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""Content mode of OpenTelemetry's GenAI instrumentations. Example: ``SPAN_ONLY``."""

EMIT_EVENT = "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT"
"""``true`` or ``false``: whether each LM call is an event, whatever the content mode (OpenTelemetry's GenAI
instrumentations). Example: ``true``."""

PROPAGATE = "DSPY_TRACE_PROPAGATE"
"""``off`` sends no trace context with requests to LMs. Example: ``off``."""

STABILITY_OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""Comma-separated opt-ins of OpenTelemetry. Example: ``gen_ai_latest_experimental``."""

DETAIL = "DSPY_TRACE_DETAIL"
"""Which calls become spans. Example: ``minimal``."""

CONVENTIONS = "DSPY_TRACE_CONVENTIONS"
"""Comma-separated vocabularies that spans are written in. Example: ``genai,openinference``."""

OPENINFERENCE_HIDE = "OPENINFERENCE_HIDE_"
"""With ``INPUTS``, ``OUTPUTS`` and the like behind it: ``true`` keeps these off spans written in OpenInference's
vocabulary, in both spellings (OpenInference). Example: ``true``."""

DURABILITY = "DSPY_TRACE_DURABILITY"
"""When a finished span is in the spool: ``async`` (within 0.2 s), ``sync`` (when its call returns), ``none`` (never).
Example: ``sync``."""

FOREIGN = "DSPY_TRACE_FOREIGN"
"""``all`` sends traces that hold no DSPy call to MLflow, too. Example: ``all``."""

OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Where an OTLP collector listens (OpenTelemetry SDK). Example: ``http://localhost:4318``."""

TRACES_EXPORTER = "OTEL_TRACES_EXPORTER"
"""Comma-separated exporters of spans; where it is set and lacks ``otlp``, nothing goes over OTLP (OpenTelemetry SDK).
Example: ``mlflow,otlp``."""

METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
"""Comma-separated exporters of metrics; ``dspy-trace run`` sets ``none`` (OpenTelemetry SDK). Example: ``otlp``."""

LOGS_EXPORTER = "OTEL_LOGS_EXPORTER"
"""The same of logs (OpenTelemetry SDK). Example: ``otlp``."""

SDK_DISABLED = "OTEL_SDK_DISABLED"
"""``true`` records nothing at all (OpenTelemetry SDK). Example: ``true``."""

SAMPLER = "OTEL_TRACES_SAMPLER"
"""Which traces are recorded (OpenTelemetry SDK). Example: ``parentbased_traceidratio``."""

DISABLED_INSTRUMENTATIONS = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
"""Comma-separated instrumentations that ``opentelemetry-instrument`` leaves out (OpenTelemetry). Example: ``dspy``."""

OTLP_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""How to speak to it (OpenTelemetry SDK). Example: ``http/protobuf``."""

BSP_QUEUE = "OTEL_BSP_MAX_QUEUE_SIZE"
"""Most spans that wait in memory (OpenTelemetry SDK). Example: ``20000``."""

BSP_BATCH = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
"""Spans that are written together (OpenTelemetry SDK). Example: ``512``."""

BSP_DELAY = "OTEL_BSP_SCHEDULE_DELAY"
"""Longest time that spans wait in memory, in milliseconds (OpenTelemetry SDK). Example: ``200``."""

TRACKING_URI = "MLFLOW_TRACKING_URI"
"""Where MLflow keeps its store (MLflow; ``mlflow.set_tracking_uri`` writes it). Example: ``http://127.0.0.1:5000``."""

EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
"""Id of the experiment (MLflow; ``mlflow.set_experiment`` writes it). Example: ``1``."""

EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
"""Name of the experiment (MLflow). Example: ``support desk``."""

TRACKING_CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""What opens a tracking server (MLflow): basic authentication or a bearer token. Never stored. Example: ``alice``."""

BACKEND_STORE = "MLFLOW_BACKEND_STORE_URI"
"""Database that MLflow's server is for; set for the server that ``dspy-trace ui`` starts (MLflow). Example:
``sqlite:///mlflow.db``."""

TRACKING_INSECURE_TLS = "MLFLOW_TRACKING_INSECURE_TLS"
"""``true`` does not verify the server's certificate (MLflow). Example: ``true``."""

TRACKING_SERVER_CERT = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""File of the authorities to trust, first that is set (MLflow, requests). Example: ``/etc/ssl/company.pem``."""

TRACKING_CLIENT_CERT = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
"""File with the client's certificate and key (MLflow). Example: ``/etc/ssl/me.pem``."""

SPOOL_DIR = "DSPY_TRACE_SPOOL_DIR"
"""Folder of the spool, instead of one in the platform's state folder. Example: ``/var/tmp/traces``."""

SPOOL_BYTES = "DSPY_TRACE_SPOOL_BYTES"
"""Most bytes that the spool holds; beyond, the oldest are dropped and counted. Example: ``268435456``."""

SPOOL_SECONDS = "DSPY_TRACE_SPOOL_SECONDS"
"""Oldest that undelivered spans become; beyond, they are dropped and counted. Example: ``604800``."""

EXIT_WAIT = "DSPY_TRACE_EXIT_WAIT"
"""Seconds that the end of the program waits for delivery, at most. Example: ``30``."""

WORKER = "DSPY_TRACE_WORKER"
"""``off`` starts no worker process: what goes to a database waits for ``dspy-trace flush``. Example: ``off``."""

WORKER_IDLE = "DSPY_TRACE_WORKER_IDLE"
"""Seconds after which the worker process ends when there is nothing to do and nobody to do it for. Example: ``60``."""

WORKER_CREDENTIAL = "DSPY_TRACE_WORKER_CREDENTIAL"
"""Tracking URI of a database with its password; set for the worker process alone, by who starts it. Example:
``postgresql://me:secret@db/mlflow``."""

SPAN_VALUE_LIMIT = "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"
"""Longest attribute value of a span, in characters (OpenTelemetry SDK). Example: ``4096``."""

VALUE_LIMIT = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"
"""Longest attribute value of all signals, in characters (OpenTelemetry SDK). Example: ``4096``."""

LIMIT = 65_536
"""Longest JSON text of one captured value, in characters."""

Content = Literal["NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"]
"""Where prompts, completions, inputs, outputs and exception texts go."""

Detail = Literal["minimal", "standard", "full"]
"""``minimal``: LM, tool, retrieval, embeddings, agents and the outermost module. ``standard`` adds modules,
interpreters, evaluations and compiles; ``full`` adds adapters."""

LATEST = "gen_ai_latest_experimental"

OPENINFERENCE = "openinference"

KNOWN_CONVENTIONS = ("genai", OPENINFERENCE)
"""Vocabularies. They add up: spans are written in ``genai`` in any case."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one ``instrument()`` call asked for."""

    content: Content = "NO_CONTENT"
    content_refused: bool = False
    detail: Detail = "standard"
    conventions: tuple[str, ...] = ("genai",)
    hidden: frozenset[str] = frozenset()
    redact: Callable[[Any], Any] | None = None
    value_limit: int = LIMIT
    latest_semconv: bool = False
    traces_from_eval: bool = True
    traces_from_compile: bool = True
    compile_ratio: float = 1.0
    log_evals: bool = False
    log_compiles: bool = False
    log_models: bool = False
    propagate: bool = True
    emit_event: bool = False

    @property
    def observed(self) -> tuple[Detail, bool]:
        return self.detail, self.log_evals or self.log_compiles

    @property
    def content_for_mlflow(self) -> bool:
        """Whether content goes into the user's own experiment: unless ``NO_CONTENT`` was said in so many words."""
        return not self.content_refused

    @property
    def content_on_spans(self) -> bool:
        return self.content in ("SPAN_ONLY", "SPAN_AND_EVENT")

    @property
    def content_on_events(self) -> bool:
        return self.content in ("EVENT_ONLY", "SPAN_AND_EVENT")


def resolve(
    *,
    capture_content: bool | str | None = None,
    detail: str | None = None,
    conventions: Collection[str] | None = None,
    redact: Callable[[Any], Any] | None = None,
    log_traces_from_eval: bool = True,
    log_traces_from_compile: bool | float = True,
    log_evals: bool = False,
    log_compiles: bool = False,
    log_models: bool = False,
    propagate: bool | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return settings from arguments, else from the environment, else the defaults.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is none of the allowed words. A wrong word in the environment only falls back to the
            default, as OpenTelemetry's own variables do, because no program may fail over its environment.
    """
    if redact is not None and not callable(redact):
        raise TypeError(f"redact must be a callable that takes and returns a value, not {type(redact).__name__}")
    if propagate is not None:
        check_bools(propagate=propagate)
    check_bools(
        log_traces_from_eval=log_traces_from_eval, log_evals=log_evals, log_compiles=log_compiles, log_models=log_models
    )
    content = _content(capture_content, environ)
    return Settings(
        content=content,
        content_refused=_is_refused(capture_content, environ),
        detail=_detail(detail, environ),
        conventions=_conventions(conventions, environ),
        hidden=_hidden(environ),
        redact=redact,
        value_limit=_value_limit(environ),
        latest_semconv=LATEST in words(environ.get(STABILITY_OPT_IN, "")),
        traces_from_eval=log_traces_from_eval,
        traces_from_compile=bool(log_traces_from_compile),
        compile_ratio=ratio(log_traces_from_compile),
        log_evals=log_evals,
        log_compiles=log_compiles,
        log_models=log_models,
        propagate=switch(environ.get(PROPAGATE), True) if propagate is None else propagate,
        emit_event=switch(environ.get(EMIT_EVENT), content in ("EVENT_ONLY", "SPAN_AND_EVENT")),
    )


def check_bools(**arguments: bool) -> None:
    """Raise ``TypeError`` if one is no bool: a text such as ``"false"`` would be true."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be a bool, not {type(value).__name__}")


def _content(argument: bool | str | None, environ: Mapping[str, str]) -> Content:
    if isinstance(argument, bool):
        return "SPAN_ONLY" if argument else "NO_CONTENT"
    if argument is not None and not isinstance(argument, str):
        raise TypeError(f"capture_content must be a bool or one of {get_args(Content)}, not {type(argument).__name__}")
    word = (argument if argument is not None else environ.get(CAPTURE_CONTENT, "")).strip().upper()
    word = {"TRUE": "SPAN_ONLY", "FALSE": "NO_CONTENT"}.get(word, word)
    if word in get_args(Content):
        return cast("Content", word)
    if argument is not None:
        raise ValueError(f"capture_content must be one of {get_args(Content)}, not {argument!r}")
    return "NO_CONTENT"


def _is_refused(argument: bool | str | None, environ: Mapping[str, str]) -> bool:
    if argument is None and not environ.get(CAPTURE_CONTENT, "").strip():
        return False
    return _content(argument, environ) == "NO_CONTENT"


def _detail(argument: str | None, environ: Mapping[str, str]) -> Detail:
    if argument is not None and not isinstance(argument, str):
        raise TypeError(f"detail must be one of {get_args(Detail)}, not {type(argument).__name__}")
    word = (argument if argument is not None else environ.get(DETAIL, "")).strip().lower()
    if word in get_args(Detail):
        return cast("Detail", word)
    if argument is not None:
        raise ValueError(f"detail must be one of {get_args(Detail)}, not {argument!r}")
    return "standard"


def _conventions(argument: Collection[str] | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    if argument is None:
        asked = words(environ.get(CONVENTIONS, ""))
        return tuple(name for name in KNOWN_CONVENTIONS if name in asked or name == "genai")
    if isinstance(argument, str) or not isinstance(argument, Collection):
        raise TypeError(f"conventions must be a collection of names such as {{'genai'}}, not {argument!r}")
    if not argument or any(name not in KNOWN_CONVENTIONS for name in argument):
        raise ValueError(f"conventions must be some of {KNOWN_CONVENTIONS}, not {list(argument)}")
    return tuple(name for name in KNOWN_CONVENTIONS if name in argument or name == "genai")


def _hidden(environ: Mapping[str, str]) -> frozenset[str]:
    """Return what ``OPENINFERENCE_HIDE_*`` variables hide, by what stands behind that."""
    hiding = (name for name, said in environ.items() if said.strip().lower() == "true")
    return frozenset(name[len(OPENINFERENCE_HIDE) :] for name in hiding if name.startswith(OPENINFERENCE_HIDE))


def _value_limit(environ: Mapping[str, str]) -> int:
    for name in (SPAN_VALUE_LIMIT, VALUE_LIMIT):
        text = environ.get(name, "").strip()
        if text.isdecimal() and len(text) < 20:
            return min(int(text), LIMIT)
    return LIMIT
