"""Every metric that we record: its name, unit, buckets and attributes.

Sources: OpenTelemetry's GenAI semantic conventions (repository ``open-telemetry/semantic-conventions-genai``, stability
*development*) under the names that ``opentelemetry-util-genai`` 1.3 gives them, with the newest names beside them, and
``dspy.*`` for what has no convention.

The metric table of the README is made from this file: ``python -m dspy_trace.vocab.table``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dspy_trace.vocab import keys

TOKEN_TYPE: Final = "gen_ai.token.type"
"""Attribute of metrics alone: ``input`` or ``output``."""

TOKEN_MODALITY: Final = "gen_ai.token.modality"
"""Attribute of metrics alone: what the tokens stand for. DSPy does not say, so it is ``unknown``."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric.

    Attributes:
        name: its name; ``None`` if only the newest conventions have it.
        latest: its name in the newest conventions; ``None`` if they do not have it.
        kind: what it is made with.
        unit: its unit, in UCUM.
        description: what is measured, for backends to show.
        attributes: what its points may carry.
        buckets: upper bounds that a histogram's view is advised to have.
    """

    name: str | None
    latest: str | None
    kind: Literal["histogram", "counter", "gauge"]
    unit: str
    description: str
    attributes: Sequence[str]
    buckets: Sequence[float] | None = None

    def called(self, latest: bool) -> str | None:
        """Return the name in the one spelling or the other, or ``None`` where that does not have it."""
        return self.latest if latest else self.name


def _doubling(first: float, count: int) -> Sequence[float]:
    return [round(first * 2**power, 2) for power in range(count)]


_SECONDS: Final = _doubling(0.01, 14)
_AGENT_SECONDS: Final = _doubling(0.1, 13)
_WORKFLOW_SECONDS: Final = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_TOKENS: Final = [4**power for power in range(14)]
_CALLS: Final = _doubling(1, 8)

_MODEL: Final = (keys.OPERATION_NAME, keys.PROVIDER_NAME, keys.REQUEST_MODEL)
_CLIENT: Final = (*_MODEL, keys.RESPONSE_MODEL, keys.SERVER_ADDRESS, keys.SERVER_PORT)
_TOKEN_KIND: Final = (*_CLIENT, TOKEN_MODALITY)

INFERENCE_DURATION: Final = Instrument(
    "gen_ai.client.operation.duration",
    "gen_ai.client.inference.duration",
    "histogram",
    "s",
    "Time that an LM call took; calls that DSPy's cache answered are not in it",
    (*_CLIENT, keys.ERROR_TYPE),
    _SECONDS,
)
EMBEDDINGS_DURATION: Final = Instrument(
    "gen_ai.client.operation.duration",
    "gen_ai.client.embeddings.duration",
    "histogram",
    "s",
    "Time that an embedding call took",
    (*_CLIENT, keys.ERROR_TYPE),
    _SECONDS,
)
FIRST_CHUNK: Final = Instrument(
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.client.inference.time_to_first_chunk",
    "histogram",
    "s",
    "Time until the first chunk of a streamed completion",
    _CLIENT,
    _SECONDS,
)
BETWEEN_CHUNKS: Final = Instrument(
    "gen_ai.client.operation.time_per_output_chunk",
    "gen_ai.client.inference.time_per_output_chunk",
    "histogram",
    "s",
    "Time between one chunk of a streamed completion and the next",
    _CLIENT,
    _SECONDS,
)
TOKEN_USAGE: Final = Instrument(
    "gen_ai.client.token.usage",
    None,
    "histogram",
    "{token}",
    "Tokens of an LM or embedding call; cache hits have none",
    (*_CLIENT, TOKEN_TYPE),
    _TOKENS,
)
EMBEDDINGS_TOKENS: Final = Instrument(
    None,
    "gen_ai.client.embeddings.operation.input_tokens",
    "histogram",
    "{token}",
    "Input tokens of an embedding call, all its batches together; none where DSPy's cache answered",
    _CLIENT,
    _TOKENS,
)
INPUT_TOKENS: Final = Instrument(
    None,
    "gen_ai.client.inference.operation.input_tokens",
    "histogram",
    "{token}",
    "Input tokens of an LM call; cache hits have none",
    _CLIENT,
    _TOKENS,
)
OUTPUT_TOKENS: Final = Instrument(
    None,
    "gen_ai.client.inference.operation.output_tokens",
    "histogram",
    "{token}",
    "Output tokens of an LM call; cache hits have none",
    _CLIENT,
    _TOKENS,
)


def _used(kind: str, description: str) -> Instrument:
    name = f"gen_ai.client.inference.usage.{kind}"
    return Instrument(None, name, "counter", "{token}", description, _TOKEN_KIND)


INPUT_USED: Final = _used("input_tokens", "Input tokens used, cached ones included")
OUTPUT_USED: Final = _used("output_tokens", "Output tokens used")
CACHE_READ_USED: Final = _used("cache_read.input_tokens", "Input tokens that the provider read from its cache")
CACHE_WRITE_USED: Final = _used("cache_write.input_tokens", "Input tokens that the provider wrote to its cache")
REASONING_USED: Final = _used("reasoning.output_tokens", "Output tokens spent on reasoning")


def _same(
    name: str,
    kind: Literal["histogram", "counter", "gauge"],
    unit: str,
    description: str,
    attributes: Sequence[str],
    buckets: Sequence[float] | None = None,
) -> Instrument:
    """Return a metric that has one name."""
    return Instrument(name, name, kind, unit, description, attributes, buckets)


WORKFLOW_DURATION: Final = _same(
    "gen_ai.invoke_workflow.duration",
    "histogram",
    "s",
    "Time that a call of an outermost module took",
    (keys.WORKFLOW_NAME, keys.ERROR_TYPE),
    _WORKFLOW_SECONDS,
)
AGENT_DURATION: Final = _same(
    "gen_ai.invoke_agent.duration",
    "histogram",
    "s",
    "Time that a call of an agent took",
    (keys.AGENT_NAME, keys.ERROR_TYPE),
    _AGENT_SECONDS,
)
AGENT_INFERENCE_CALLS: Final = _same(
    "gen_ai.invoke_agent.inference_calls",
    "histogram",
    "{inference_call}",
    "LM calls that an agent made; cache hits are none",
    (keys.AGENT_NAME,),
    _CALLS,
)
AGENT_TOOL_CALLS: Final = _same(
    "gen_ai.invoke_agent.tool_calls",
    "histogram",
    "{tool_call}",
    "Tool calls that an agent made",
    (keys.AGENT_NAME,),
    _CALLS,
)
TOOL_DURATION: Final = _same(
    "gen_ai.execute_tool.duration",
    "histogram",
    "s",
    "Time that a tool took",
    (keys.TOOL_NAME, keys.TOOL_TYPE, keys.AGENT_NAME, keys.ERROR_TYPE),
    _SECONDS,
)
COST: Final = _same(
    "dspy.lm.cost", "counter", "{USD}", "DSPy's own figure of the cost; cache hits cost nothing", _MODEL
)
CACHE_HITS: Final = _same("dspy.lm.cache_hits", "counter", "{call}", "LM calls that DSPy's cache answered", _MODEL)
RETRIES: Final = _same("dspy.lm.retries", "counter", "{request}", "Failed requests that DSPy tried again", _MODEL)
PARSE_FAILURES: Final = _same(
    "dspy.adapter.parse_failures",
    "counter",
    "{failure}",
    "Completions that an adapter could not read",
    (keys.ADAPTER, keys.ERROR_TYPE),
)
EXAMPLE_SCORE: Final = _same(
    "dspy.evaluate.example.score",
    "histogram",
    "1",
    "Score that a metric gave to one example",
    (keys.EVALUATE_PROGRAM, keys.EVALUATION_NAME),
    [step / 10 for step in range(11)],
)
EVALUATION_SCORE: Final = _same(
    "dspy.evaluate.score",
    "gauge",
    "%",
    "Score of the last evaluation of a program",
    (keys.EVALUATE_PROGRAM, keys.EVALUATION_NAME),
)

ALL: Final = tuple(value for value in list(vars().values()) if isinstance(value, Instrument))
"""Every one of them."""
