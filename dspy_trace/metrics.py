"""Metrics, from the same facts as the spans: recorded once, at the end of a call, sampled or not.

A call that is watched has a :class:`Watch`; where no meter provider is set up there is none, and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from threading import Lock
from time import perf_counter
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import Meter

from dspy_trace import facts
from dspy_trace.vocab import Attributes, instruments, keys
from dspy_trace.vocab.instruments import Instrument
from dspy_trace.vocab.spelling import Spelling, put

Record = Callable[..., None]

_USED: Final = (
    ("input_tokens", instruments.INPUT_USED),
    ("output_tokens", instruments.OUTPUT_USED),
    ("cache_read_tokens", instruments.CACHE_READ_USED),
    ("cache_write_tokens", instruments.CACHE_WRITE_USED),
    ("reasoning_tokens", instruments.REASONING_USED),
)
"""Counts of a call by their field, and what sums them up."""


class Meters:
    """The instruments of one meter.

    Args:
        meter: makes them.
        spellings: how facts are spelled; of what a span starts with, each metric takes the attributes that it may have.
        latest: use the newest names of the conventions.
    """

    def __init__(
        self, meter: Meter, spellings: Mapping[type[facts.Fact], Sequence[Spelling]], latest: bool = False
    ) -> None:
        self._latest = latest
        self._spellings = spellings
        made: dict[str, Record] = {}
        self._records: dict[int, Record] = {}
        for one in instruments.ALL:
            name = one.called(latest)
            if name is not None:
                # Two may share a name in one of the spellings; then they are one.
                self._records[id(one)] = made[name] = made.get(name) or _make(meter, name, one)
        self._by_kind: dict[type[facts.Fact], Callable[[Watch, Any, Attributes], None]] = {
            facts.LMCall: self._inference,
            facts.DecisionCall: self._inference,
            facts.Embedding: self._embedding,
            facts.ModuleCall: self._module,
            facts.ToolCall: self._tool,
            facts.ExampleRun: self._example,
            facts.Evaluation: self._evaluation,
        }

    def watch(self, fact: facts.Fact, above: Watch | None) -> Watch:
        """Begin to watch a call; `above` watches the one around it."""
        return Watch(self, fact, above)

    def happened(self, event: facts.Fact, context: Context | None) -> None:
        """Count what happened during a call."""
        if isinstance(event, facts.ParseFailure):
            told: Attributes = {keys.ADAPTER: event.adapter, keys.ERROR_TYPE: type(event.error).__qualname__}
            self._put(instruments.PARSE_FAILURES, 1, told, context)

    def record(self, watch: Watch, error: BaseException | None) -> None:
        """Record a call that has ended."""
        fact = watch.fact
        record = self._by_kind.get(type(fact))
        if record is not None:
            told = self.at_start(fact)
            if error is not None:
                told[keys.ERROR_TYPE] = type(error).__qualname__
            record(watch, fact, told)

    def at_start(self, fact: facts.Fact) -> Attributes:
        """Return the attributes that the call's span starts with."""
        return self._spellings[type(fact)][0].at_start(fact)

    def _put(self, instrument: Instrument, value: float, told: Attributes, context: Context | None) -> None:
        record = self._records.get(id(instrument))
        # One NaN, as a metric may give, would be the sum of all from then on.
        if record is not None and isfinite(value):
            record(value, {key: told[key] for key in instrument.attributes if key in told}, context)

    def _inference(self, watch: Watch, fact: Any, told: Attributes) -> None:
        if isinstance(fact, facts.LMCall):
            if fact.relays:
                return  # what it relays is measured
            if fact.retries:
                self._put(instruments.RETRIES, fact.retries, told, watch.context)
        if fact.cache_hit:
            self._put(instruments.CACHE_HITS, 1, told, watch.context)
            return
        watch.count("inference_calls")
        put(told, (keys.RESPONSE_MODEL, fact.response_model), *_server(fact))
        self._put(instruments.INFERENCE_DURATION, watch.seconds, told, watch.context)
        if fact.cost:
            self._put(instruments.COST, fact.cost, told, watch.context)
        if isinstance(fact, facts.LMCall) and fact.first_chunk is not None:
            self._put(instruments.FIRST_CHUNK, fact.first_chunk, told, watch.context)
            for seconds in fact.between_chunks or ():
                self._put(instruments.BETWEEN_CHUNKS, seconds, told, watch.context)
        self._tokens(watch, fact, told)

    def _tokens(self, watch: Watch, fact: Any, told: Attributes) -> None:
        kinds = (
            ("input", fact.input_tokens, instruments.INPUT_TOKENS),
            ("output", fact.output_tokens, instruments.OUTPUT_TOKENS),
        )
        for kind, count, instrument in kinds:
            if count is not None:
                self._put(instruments.TOKEN_USAGE, count, {**told, instruments.TOKEN_TYPE: kind}, watch.context)
                self._put(instrument, count, told, watch.context)
        if self._latest:
            told[instruments.TOKEN_MODALITY] = "unknown"
            for name, instrument in _USED:
                count = getattr(fact, name, None)
                if count is not None:
                    self._put(instrument, count, told, watch.context)

    def _embedding(self, watch: Watch, fact: Any, told: Attributes) -> None:
        put(told, (keys.RESPONSE_MODEL, fact.response_model), *_server(fact))
        self._put(instruments.EMBEDDINGS_DURATION, watch.seconds, told, watch.context)
        if fact.input_tokens is not None:
            self._put(instruments.EMBEDDINGS_TOKENS, fact.input_tokens, told, watch.context)
            told[instruments.TOKEN_TYPE] = "input"
            self._put(instruments.TOKEN_USAGE, fact.input_tokens, told, watch.context)

    def _module(self, watch: Watch, fact: Any, told: Attributes) -> None:
        if fact.agent:
            self._put(instruments.AGENT_DURATION, watch.seconds, told, watch.context)
            self._put(instruments.AGENT_INFERENCE_CALLS, watch.inference_calls, told, watch.context)
            self._put(instruments.AGENT_TOOL_CALLS, watch.tool_calls, told, watch.context)
        elif fact.outermost:
            self._put(instruments.WORKFLOW_DURATION, watch.seconds, told, watch.context)

    def _tool(self, watch: Watch, fact: Any, told: Attributes) -> None:
        watch.count("tool_calls")
        if watch.agent is not None:
            put(told, (keys.AGENT_NAME, self.at_start(watch.agent.fact).get(keys.AGENT_NAME)))
        self._put(instruments.TOOL_DURATION, watch.seconds, told, watch.context)

    def _example(self, watch: Watch, fact: Any, told: Attributes) -> None:
        if fact.score is not None:
            told = {keys.EVALUATE_PROGRAM: fact.program, keys.EVALUATION_NAME: fact.metric or "metric"}
            self._put(instruments.EXAMPLE_SCORE, fact.score, told, watch.context)

    def _evaluation(self, watch: Watch, fact: Any, told: Attributes) -> None:
        if fact.score is not None:
            told = {keys.EVALUATE_PROGRAM: fact.program, keys.EVALUATION_NAME: fact.metric or "metric"}
            self._put(instruments.EVALUATION_SCORE, fact.score, told, watch.context)


def _server(fact: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return (keys.SERVER_ADDRESS, fact.address), (keys.SERVER_PORT, fact.port if fact.address is not None else None)


def _make(meter: Meter, name: str, one: Instrument) -> Record:
    if one.kind == "counter":
        return meter.create_counter(name, one.unit, one.description).add
    if one.kind == "gauge":
        return meter.create_gauge(name, one.unit, one.description).set
    return meter.create_histogram(
        name, one.unit, one.description, explicit_bucket_boundaries_advisory=one.buckets
    ).record


_counting = Lock()


class Watch:
    """The clock of one call, and for an agent's the count of what it does.

    Attributes:
        fact: the call.
        agent: watches the nearest agent around it.
        seconds: how long it took; known once it has ended.
        context: where it was made, for exemplars.
    """

    __slots__ = ("_began", "_meters", "agent", "context", "fact", "inference_calls", "seconds", "tool_calls")

    def __init__(self, meters: Meters, fact: facts.Fact, above: Watch | None) -> None:
        self.fact = fact
        self.agent: Watch | None = None if above is None else above if above.is_agent else above.agent
        self.inference_calls = 0
        self.tool_calls = 0
        self.seconds = 0.0
        self.context: Context | None = None
        self._meters = meters
        self._began = perf_counter()

    @property
    def is_agent(self) -> bool:
        return isinstance(self.fact, facts.ModuleCall) and self.fact.agent

    def count(self, what: str) -> None:
        """Count a call with every agent around it; an agent may make several at once."""
        agent = self.agent
        while agent is not None:
            with _counting:
                setattr(agent, what, getattr(agent, what) + 1)
            agent = agent.agent

    def happened(self, event: facts.Fact, context: Context | None) -> None:
        """Count what happened during the call."""
        self._meters.happened(event, context)

    def stop(self, error: BaseException | None, context: Context | None) -> None:
        """Record the call, which has ended."""
        self.seconds, self.context = perf_counter() - self._began, context
        self._meters.record(self, error)
        self.context = None
