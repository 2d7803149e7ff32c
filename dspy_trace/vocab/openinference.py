"""OpenInference's semantic conventions, which Phoenix and Arize read: a second spelling of the same spans.

It adds to the GenAI vocabulary, which gives spans their names and whatever both spell alike: inputs, outputs, sessions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from dspy_trace import facts
from dspy_trace.guard import ask
from dspy_trace.settings import LIMIT
from dspy_trace.values.jsonable import dumps
from dspy_trace.vocab import Attributes, Capture, keys, mlflow_chat
from dspy_trace.vocab import openinference_keys as oi
from dspy_trace.vocab.genai import GenAI
from dspy_trace.vocab.genai_calls import PARAMETERS
from dspy_trace.vocab.genai_messages import MOST_MESSAGES
from dspy_trace.vocab.numbered import Numbered, spell
from dspy_trace.vocab.openinference_messages import definitions, messages_in
from dspy_trace.vocab.spelling import JSON, Spelling, io, put, text

PLAIN: Final = "text/plain"

PROVIDERS: Final = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistralai",
    "moonshot_ai": "moonshot",
    "ollama_chat": "ollama",
    "together_ai": "together",
    "x_ai": "xai",
}
"""Providers that OpenInference spells otherwise than the GenAI conventions."""

SYSTEMS: Final = {
    "anthropic": "anthropic",
    "azure.ai.openai": "openai",
    "cohere": "cohere",
    "gcp.vertex_ai": "vertexai",
    "mistral_ai": "mistralai",
    "openai": "openai",
}
"""Whose product a provider's models are, where that is known."""

_OF_MESSAGES_IN: Final = (oi.INPUT_MESSAGES, keys.INPUT_MESSAGES)
_OF_MESSAGES_OUT: Final = (oi.OUTPUT_MESSAGES, keys.OUTPUT_MESSAGES)
_OF_TOOLS: Final = (oi.TOOLS, keys.TOOL_DEFINITIONS, oi.TOOL_PARAMETERS)
_OF_DOCUMENTS: Final = (oi.DOCUMENTS, keys.RETRIEVAL_DOCUMENTS)
_OF_EMBEDDINGS: Final = (oi.EMBEDDINGS,)

HIDING: Final[Mapping[str, Collection[str]]] = {
    "INPUTS": (
        *(keys.INPUT_VALUE, keys.INPUT_MIME_TYPE, keys.TOOL_ARGUMENTS, keys.RETRIEVAL_QUERY, keys.DECISION_STATE),
        *(*_OF_MESSAGES_IN, *_OF_TOOLS, *_OF_EMBEDDINGS),
    ),
    "OUTPUTS": (
        *(keys.OUTPUT_VALUE, keys.OUTPUT_MIME_TYPE, keys.TOOL_RESULT),
        *(*_OF_MESSAGES_OUT, *_OF_DOCUMENTS),
    ),
    "INPUT_MESSAGES": _OF_MESSAGES_IN,
    "INPUT_TEXT": _OF_MESSAGES_IN,
    "OUTPUT_MESSAGES": _OF_MESSAGES_OUT,
    "OUTPUT_TEXT": _OF_MESSAGES_OUT,
    "LLM_INVOCATION_PARAMETERS": (oi.INVOCATION_PARAMETERS,),
    "LLM_TOOLS": _OF_TOOLS,
    "EMBEDDINGS_TEXT": _OF_EMBEDDINGS,
    "RETRIEVAL_DOCUMENTS": _OF_DOCUMENTS,
}
"""What each of OpenInference's variables hides, in both spellings. Where one hides texts alone, all of it is hidden."""

_ORDER: Final = (oi.OUTPUT_MESSAGES, oi.INPUT_MESSAGES, oi.TOOLS, oi.DOCUMENTS, oi.EMBEDDINGS)
"""What is numbered, the newest first."""


class OpenInference:
    """The vocabulary of OpenInference.

    Args:
        limit: longest JSON text of one captured value, and of all messages of a call together.
        hidden: names of ``OPENINFERENCE_HIDE_*`` variables that are in force, without what they have in common.
    """

    def __init__(self, limit: int = LIMIT, hidden: Collection[str] = ()) -> None:
        self._hidden = frozenset(key for name in hidden for key in HIDING.get(name, ()))
        self.spellings: dict[type[facts.Fact], Spelling] = {
            facts.ModuleCall: ModuleSpelling(),
            facts.LMCall: LMSpelling(limit, self._hidden),
            facts.DecisionCall: DecisionSpelling(),
            facts.Embedding: EmbeddingSpelling(),
            facts.Retrieval: RetrievalSpelling(),
            facts.ToolCall: ToolSpelling(),
            facts.CodeExecution: KindSpelling("TOOL"),
            facts.Formatting: KindSpelling("PROMPT"),
            facts.Parsing: KindSpelling("CHAIN"),
            facts.Evaluation: KindSpelling("EVALUATOR"),
            facts.ExampleRun: KindSpelling("EVALUATOR"),
            facts.Compilation: KindSpelling("CHAIN"),
        }
        self.event = GenAI().event

    def of_session(self, session: facts.Session) -> Attributes:
        """Return nothing: sessions, users, tags and metadata are spelled alike."""
        return {}

    def settle(self, attributes: Attributes, most: int, taken: int) -> None:
        """Leave out what is hidden, and number what is to be numbered, within `most` attributes."""
        for key in self._hidden:
            attributes.pop(key, None)
        if oi.EMBEDDINGS in self._hidden and attributes.get(oi.SPAN_KIND) == "EMBEDDING":
            attributes.pop(keys.INPUT_VALUE, None)
            attributes.pop(keys.INPUT_MIME_TYPE, None)
        spell(attributes, most - taken, _ORDER)


class KindSpelling(Spelling):
    """A kind, where inputs and outputs are spelled alike."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def at_call(self, fact: Any, capture: Capture | None) -> Attributes:
        return {oi.SPAN_KIND: self._kind}


class ModuleSpelling(Spelling):
    def at_call(self, fact: facts.ModuleCall, capture: Capture | None) -> Attributes:
        if fact.agent:
            return {oi.SPAN_KIND: "AGENT", oi.AGENT_NAME: fact.path or fact.cls}
        return {oi.SPAN_KIND: "CHAIN"}


class LMSpelling(Spelling):
    def __init__(self, limit: int, hidden: Collection[str]) -> None:
        self._limit = limit
        self._hidden = hidden

    def at_call(self, fact: facts.LMCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {
            oi.SPAN_KIND: "LLM",
            oi.MODEL_NAME: fact.model,
            oi.REQUEST_MODEL_NAME: fact.model,
            oi.PROVIDER: PROVIDERS.get(fact.provider, fact.provider),
        }
        put(attributes, (oi.SYSTEM, SYSTEMS.get(fact.provider)))
        if parameters := dict(_parameters(fact.parameters)):
            attributes[oi.INVOCATION_PARAMETERS] = dumps(parameters)
        if capture is not None:
            if oi.INPUT_MESSAGES not in self._hidden:
                told = {"messages": mlflow_chat.chat_messages(fact.messages, self._limit)}
                attributes[keys.INPUT_VALUE] = captured = capture(told)
                attributes[keys.INPUT_MIME_TYPE] = JSON
                attributes[oi.INPUT_MESSAGES] = messages_in(captured)
            if fact.tools is not None and (tools := ask(mlflow_chat.tools, fact.tools)):
                attributes[oi.TOOLS] = definitions(tools, capture)
        return attributes

    def at_end(self, fact: facts.LMCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (oi.RESPONSE_MODEL_NAME, fact.response_model))
        if fact.finish_reasons:
            attributes[oi.FINISH_REASON] = fact.finish_reasons[0]
        if not fact.cache_hit and not fact.relays:
            _put_usage(attributes, fact)
        if capture is not None and fact.outputs is not None and oi.OUTPUT_MESSAGES not in self._hidden:
            told = {"messages": mlflow_chat.completions(fact.outputs, self._limit)}
            attributes[keys.OUTPUT_VALUE] = captured = capture(told)
            attributes[keys.OUTPUT_MIME_TYPE] = JSON
            attributes[oi.OUTPUT_MESSAGES] = messages_in(captured)
        return attributes


def _parameters(parameters: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield the parameters that the GenAI vocabulary tells as well, by DSPy's names for them."""
    for name, (_, sound) in PARAMETERS.items():
        value = parameters.get(name)
        if value is not None and (told := sound(value)) is not None:
            yield name, told


def _put_usage(attributes: Attributes, fact: facts.LMCall) -> None:
    if fact.input_tokens is not None or fact.output_tokens is not None:
        put(
            attributes,
            (oi.TOKENS_PROMPT, fact.input_tokens),
            (oi.TOKENS_COMPLETION, fact.output_tokens),
            (oi.TOKENS_CACHE_READ, fact.cache_read_tokens),
            (oi.TOKENS_CACHE_WRITE, fact.cache_write_tokens),
            (oi.TOKENS_REASONING, fact.reasoning_tokens),
        )
        attributes[oi.TOKENS_TOTAL] = min((fact.input_tokens or 0) + (fact.output_tokens or 0), 2**63 - 1)
    put(attributes, (oi.COST_TOTAL, fact.cost))


class DecisionSpelling(Spelling):
    def at_call(self, fact: facts.DecisionCall, capture: Capture | None) -> Attributes:
        return {
            oi.SPAN_KIND: "DECISION",
            oi.DECISION_MODEL: fact.model,
            oi.DECISION_REQUEST_MODEL: fact.model,
            oi.DECISION_PROVIDER: PROVIDERS.get(fact.provider, fact.provider),
        }

    def at_end(self, fact: facts.DecisionCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (oi.DECISION_RESPONSE_MODEL, fact.response_model))
        if not fact.cache_hit:
            put(attributes, (oi.DECISION_TOKENS_INPUT, fact.input_tokens))
            put(attributes, (oi.DECISION_TOKENS_OUTPUT, fact.output_tokens))
        return attributes


class EmbeddingSpelling(Spelling):
    """The texts, and never their vectors."""

    def at_call(self, fact: facts.Embedding, capture: Capture | None) -> Attributes:
        attributes: Attributes = {oi.SPAN_KIND: "EMBEDDING", oi.EMBEDDING_MODEL: fact.model}
        if capture is not None:
            texts = fact.inputs if type(fact.inputs) is list else [fact.inputs]
            told = ({oi.EMBEDDING_TEXT: text(one, capture)} for one in texts[:MOST_MESSAGES])
            attributes[oi.EMBEDDINGS] = Numbered(told)
        return attributes

    def at_end(self, fact: facts.Embedding, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (oi.TOKENS_PROMPT, fact.input_tokens), (oi.TOKENS_TOTAL, fact.input_tokens))
        return attributes


class RetrievalSpelling(Spelling):
    def at_call(self, fact: facts.Retrieval, capture: Capture | None) -> Attributes:
        attributes: Attributes = {oi.SPAN_KIND: "RETRIEVER"}
        if capture is not None and fact.query is not None:
            captured = capture(fact.query)
            attributes[keys.INPUT_VALUE] = told = text(captured, str)
            attributes[keys.INPUT_MIME_TYPE] = JSON if told is captured else PLAIN
        return attributes

    def at_end(self, fact: facts.Retrieval, capture: Capture | None) -> Attributes:
        if capture is None or fact.documents is None:
            return {}
        told = Numbered(_document(document, capture) for document in fact.documents[:MOST_MESSAGES])
        return {oi.DOCUMENTS: told}


def _document(document: facts.Document, capture: Capture) -> dict[str, Any]:
    told: dict[str, Any] = {}
    put(told, (oi.DOCUMENT_ID, document.id), (oi.DOCUMENT_SCORE, document.score))
    told[oi.DOCUMENT_CONTENT] = text(document.content, capture)
    return told


class ToolSpelling(Spelling):
    def at_call(self, fact: facts.ToolCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {oi.SPAN_KIND: "TOOL", oi.TOOL_NAME: fact.name}
        put(attributes, (oi.TOOL_DESCRIPTION, fact.description))
        if capture is not None:
            if fact.parameters is not None:
                attributes[oi.TOOL_PARAMETERS] = capture(fact.parameters)
            io(attributes, keys.INPUT_VALUE, fact.arguments, capture)
        return attributes

    def at_end(self, fact: facts.ToolCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.result is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.result, capture)
        return attributes
