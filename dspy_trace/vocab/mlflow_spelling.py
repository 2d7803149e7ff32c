"""What the spellings of MLflow's vocabulary share: types, inputs and outputs, the model."""

from __future__ import annotations

import re
from typing import Any, Final

from dspy_trace.vocab import Attributes, Capture
from dspy_trace.vocab import mlflow_keys as keys

_SEEN: Final = frozenset({"LLM", "CHAT_MODEL", "TOOL", "RETRIEVER", "AGENT", "EMBEDDING"})
"""Types of spans that MLflow itself shows at level INFO; all others are at DEBUG."""

DEBUG, INFO, ERROR = 10, 20, 40

PROVIDERS: Final = {
    "aws.bedrock": "bedrock",
    "azure.ai.inference": "azure_ai",
    "azure.ai.openai": "azure",
    "gcp.gemini": "gemini",
    "gcp.gen_ai": "gemini",
    "gcp.vertex_ai": "vertex_ai",
    "ibm.watsonx.ai": "watsonx",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshot",
    "x_ai": "xai",
}
"""Providers that MLflow, with LiteLLM, spells otherwise than the GenAI conventions. It prices models by this name."""

_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class Captured(str):
    """JSON text of a captured value, to be embedded as it is and never parsed on the way."""

    __slots__ = ()


def captured(value: Any, capture: Capture) -> Captured:
    """Return `value` as JSON text; without NUL, which PostgreSQL refuses."""
    text = capture(value)
    return Captured(_NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text)


def typed(span_type: str, level: int | None = None) -> Attributes:
    """Return the type of a span, and the verbosity that goes with it unless `level` is given."""
    return {keys.SPAN_TYPE: span_type, keys.LOG_LEVEL: level or (INFO if span_type in _SEEN else DEBUG)}


def put_inputs(attributes: Attributes, value: Any, capture: Capture | None) -> None:
    """Add the inputs, where content is wanted."""
    if capture is not None:
        attributes[keys.INPUTS] = captured(value, capture)


def put_outputs(attributes: Attributes, value: Any, capture: Capture | None) -> None:
    """Add the outputs, where there are any and content is wanted."""
    if capture is not None and value is not None:
        attributes[keys.OUTPUTS] = captured(value, capture)


def put_model(attributes: Attributes, model: str, provider: str) -> None:
    """Add the model and who serves it."""
    attributes[keys.MODEL] = model
    attributes[keys.PROVIDER] = PROVIDERS.get(provider, provider)
