"""How one kind of fact is spelled: the base, and what all spellings share."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.trace import SpanKind

from dspy_trace.tally import Tally
from dspy_trace.vocab import Attributes, Capture, keys

JSON = "application/json"


def put(attributes: Attributes, *pairs: tuple[str, Any]) -> None:
    """Add the pairs whose value is known."""
    for key, value in pairs:
        if value is not None:
            attributes[key] = value


def io(attributes: Attributes, key: str, value: Any, capture: Capture | None) -> None:
    """Add an input or output value with its media type, where content is wanted."""
    if capture is not None:
        attributes[key] = capture(value)
        attributes[keys.INPUT_MIME_TYPE if key == keys.INPUT_VALUE else keys.OUTPUT_MIME_TYPE] = JSON


def text(value: Any, capture: Capture) -> str:
    """Return a captured text as it is, without the quotes of JSON; anything else as JSON."""
    told = capture(value)
    plain = orjson.loads(told)
    return plain if isinstance(plain, str) else told


def sums(attributes: Attributes, tally: Tally | None) -> None:
    """Add the sums of the LM calls beneath, where there were any."""
    if tally is not None and tally.lm_calls:
        attributes[keys.SUM_LM_CALLS] = tally.lm_calls
        attributes[keys.SUM_CACHE_HITS] = tally.cache_hits
        attributes[keys.SUM_INPUT_TOKENS] = tally.input_tokens
        attributes[keys.SUM_OUTPUT_TOKENS] = tally.output_tokens
        put(attributes, (keys.SUM_COST, tally.cost))


class Spelling:
    """How one kind of fact is spelled. Facts without more to say use these defaults."""

    kind = SpanKind.INTERNAL

    def name(self, fact: Any) -> str:
        """Return the span's name."""
        raise NotImplementedError

    def kind_of(self, fact: Any) -> SpanKind:
        """Return the span's kind."""
        return self.kind

    def at_start(self, fact: Any) -> Attributes:
        """Return what a sampler may want to know; little, since it is made for unsampled calls too."""
        return {}

    def at_call(self, fact: Any, capture: Capture | None) -> Attributes:
        """Return all else that is known before the call, content as it is at this moment."""
        return {}

    def at_end(self, fact: Any, capture: Capture | None) -> Attributes:
        """Return what is known once the call is over."""
        return {}
