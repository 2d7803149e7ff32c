"""OpenTelemetry's GenAI conventions for metrics and events as data, and checks against them.

Source: as for spans. For each metric: kind, unit, buckets, and its attributes by requirement, under the names of
``opentelemetry-util-genai`` 1.3b0 and of the conventions at 88eccb15.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.parts import semconv

D = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
T = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
A = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6]
W = [1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200]
C = [1, 2, 4, 8, 16, 32, 64, 128]

_REQUIRED = {"gen_ai.operation.name", "gen_ai.provider.name"}
_CLIENT = {"gen_ai.request.model", "gen_ai.response.model", "server.address", "server.port"}


@dataclass(frozen=True)
class Metric:
    """What the conventions say of a metric; without buckets it is a counter."""

    unit: str
    buckets: Sequence[float] | None
    required: set[str]
    others: set[str]


_DURATION = Metric("s", D, _REQUIRED, _CLIENT | {"error.type"})
_CHUNK = Metric("s", D, _REQUIRED, _CLIENT)
_TOKENS = Metric("{token}", T, _REQUIRED, _CLIENT)
_USED = Metric("{token}", None, _REQUIRED | {"gen_ai.token.modality"}, _CLIENT)

_BOTH: Mapping[str, Metric] = {
    "gen_ai.invoke_agent.duration": Metric("s", A, set(), {"gen_ai.agent.name", "gen_ai.request.model", "error.type"}),
    "gen_ai.invoke_agent.inference_calls": Metric("{inference_call}", C, set(), {"gen_ai.agent.name"}),
    "gen_ai.invoke_agent.tool_calls": Metric("{tool_call}", C, set(), {"gen_ai.agent.name"}),
    "gen_ai.invoke_workflow.duration": Metric("s", W, set(), {"gen_ai.workflow.name", "error.type"}),
    "gen_ai.execute_tool.duration": Metric(
        "s", D, {"gen_ai.tool.name"}, {"gen_ai.tool.type", "gen_ai.agent.name", "error.type"}
    ),
}
TODAY: Mapping[str, Metric] = {
    **_BOTH,
    "gen_ai.client.operation.duration": _DURATION,
    "gen_ai.client.operation.time_to_first_chunk": _CHUNK,
    "gen_ai.client.operation.time_per_output_chunk": _CHUNK,
    "gen_ai.client.token.usage": Metric("{token}", T, _REQUIRED | {"gen_ai.token.type"}, _CLIENT),
}
NEWEST: Mapping[str, Metric] = {
    **_BOTH,
    "gen_ai.client.inference.duration": _DURATION,
    "gen_ai.client.embeddings.duration": _DURATION,
    "gen_ai.client.embeddings.operation.input_tokens": _TOKENS,
    "gen_ai.client.inference.time_to_first_chunk": _CHUNK,
    "gen_ai.client.inference.time_per_output_chunk": _CHUNK,
    "gen_ai.client.inference.operation.input_tokens": _TOKENS,
    "gen_ai.client.inference.operation.output_tokens": _TOKENS,
    **{
        f"gen_ai.client.inference.usage.{kind}": _USED
        for kind in (
            *("input_tokens", "output_tokens", "cache_read.input_tokens", "cache_write.input_tokens"),
            "reasoning.output_tokens",
        )
    },
}

EVENTS: Mapping[str, tuple[set[str], set[str]]] = {
    "gen_ai.evaluation.result": (
        {"gen_ai.evaluation.name"},
        {"gen_ai.evaluation.score.value", "gen_ai.evaluation.score.label", "gen_ai.evaluation.explanation"}
        | {"error.type", "gen_ai.response.id"},
    ),
    "gen_ai.client.inference.operation.details": (
        {"gen_ai.operation.name", "gen_ai.provider.name"},
        semconv.OPERATIONS["chat"].allowed,
    ),
    "gen_ai.client.operation.exception": ({"exception.type"}, {"exception.message", "exception.stacktrace"}),
}
"""Attributes that each event must and may have, beside ``dspy.*``."""


def wrong_metrics(metrics: Mapping[str, Any], known: Mapping[str, Metric]) -> Iterator[str]:
    """Yield what is wrong with metrics, as the SDK has them."""
    for name, metric in metrics.items():
        if not name.startswith("gen_ai."):
            continue
        if name not in known:
            yield f"{name} is unknown"
            continue
        said = known[name]
        if metric.unit != said.unit:
            yield f"{name} is in {metric.unit}"
        for point in metric.data.data_points:
            if list(getattr(point, "explicit_bounds", [])) != list(said.buckets or []):
                yield f"{name} has other buckets"
            keys = set(point.attributes)
            if not said.required <= keys <= said.required | said.others:
                yield f"{name} has {sorted(keys)}"


def wrong_event(event: Any) -> Iterator[str]:
    """Yield what is wrong with an event, as the SDK has it."""
    must, may = EVENTS[event.event_name]
    keys = {key for key in event.attributes if not key.startswith("dspy.")}
    if not must <= keys <= must | may:
        yield f"{event.event_name} has {sorted(keys)}"
    for key in semconv.MESSAGES & keys:
        if isinstance(event.attributes[key], str):
            yield f"{key} is text"
        else:
            yield from semconv.wrong_messages(event.attributes[key])
