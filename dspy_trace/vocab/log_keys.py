"""Every event that goes through the Logs API, with attributes that it carries, and the attributes of scores.

Source: OpenTelemetry's GenAI semantic conventions. The table in the README is made from this file, too: ``python -m
dspy_trace.vocab.table``.
"""

from typing import Final

EVENT_DETAILS: Final = "gen_ai.client.inference.operation.details"
"""An LM call: all that its span says, with messages as structures instead of JSON; in the content modes ``EVENT_ONLY``
and ``SPAN_AND_EVENT``. Example attributes: ``gen_ai.operation.name``, ``gen_ai.provider.name``."""

EVENT_EXCEPTION: Final = "gen_ai.client.operation.exception"
"""The exception that an LM call ended in; as the event above is. Example attributes: ``exception.type``,
``exception.message``."""

EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
"""The score in a word, where the metric said true or false. Example: ``pass``."""

EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
"""Feedback of the metric; content. Example: ``The year is missing``."""
