"""Everything but modules and LM calls in the words of the GenAI conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind

from dspy_trace import facts
from dspy_trace.vocab import Attributes, Capture, keys, log_keys
from dspy_trace.vocab.spelling import Spelling, io, put, sums, text


class DecisionSpelling(Spelling):
    kind = SpanKind.CLIENT

    def name(self, fact: facts.DecisionCall) -> str:
        return f"decision {fact.model}"

    def at_start(self, fact: facts.DecisionCall) -> Attributes:
        return {keys.OPERATION_NAME: "decision", keys.PROVIDER_NAME: fact.provider, keys.REQUEST_MODEL: fact.model}

    def at_call(self, fact: facts.DecisionCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.LM_CLASS: fact.cls}
        put(attributes, (keys.SERVER_ADDRESS, fact.address), (keys.SERVER_PORT, fact.port if fact.address else None))
        io(attributes, keys.INPUT_VALUE, fact.questions, capture)
        if capture is not None:
            attributes[keys.DECISION_STATE] = capture(fact.state)
        return attributes

    def at_end(self, fact: facts.DecisionCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (keys.LM_CACHE_HIT, fact.cache_hit), (keys.RESPONSE_MODEL, fact.response_model))
        if not fact.cache_hit:
            put(
                attributes,
                (keys.USAGE_INPUT_TOKENS, fact.input_tokens),
                (keys.USAGE_OUTPUT_TOKENS, fact.output_tokens),
                (keys.LM_COST, fact.cost),
            )
        if fact.answers is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.answers, capture)
        return attributes


class EmbeddingSpelling(Spelling):
    def kind_of(self, fact: facts.Embedding) -> SpanKind:
        return SpanKind.INTERNAL if fact.in_process else SpanKind.CLIENT

    def name(self, fact: facts.Embedding) -> str:
        return f"embeddings {fact.model}"

    def at_start(self, fact: facts.Embedding) -> Attributes:
        return {keys.OPERATION_NAME: "embeddings", keys.PROVIDER_NAME: fact.provider, keys.REQUEST_MODEL: fact.model}

    def at_call(self, fact: facts.Embedding, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (keys.EMBEDDINGS_INPUTS, fact.count), (keys.SERVER_ADDRESS, fact.address))
        put(attributes, (keys.SERVER_PORT, fact.port if fact.address else None))
        io(attributes, keys.INPUT_VALUE, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.Embedding, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(
            attributes,
            (keys.EMBEDDINGS_DIMENSIONS, fact.dimensions),
            (keys.RESPONSE_MODEL, fact.response_model),
            (keys.USAGE_INPUT_TOKENS, fact.input_tokens),
        )
        return attributes


class RetrievalSpelling(Spelling):
    def kind_of(self, fact: facts.Retrieval) -> SpanKind:
        return SpanKind.INTERNAL if fact.in_process else SpanKind.CLIENT

    def name(self, fact: facts.Retrieval) -> str:
        return f"retrieval {fact.source or fact.cls}"

    def at_start(self, fact: facts.Retrieval) -> Attributes:
        return {keys.OPERATION_NAME: "retrieval"}

    def at_call(self, fact: facts.Retrieval, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.RETRIEVER_CLASS: fact.cls}
        put(attributes, (keys.RETRIEVAL_TOP_K, fact.top_k), (keys.SERVER_ADDRESS, fact.address))
        put(attributes, (keys.SERVER_PORT, fact.port if fact.address else None))
        if capture is not None and fact.query is not None:
            attributes[keys.RETRIEVAL_QUERY] = text(fact.query, capture)
        return attributes

    def at_end(self, fact: facts.Retrieval, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.documents is not None:
            attributes[keys.RETRIEVAL_DOCUMENT_COUNT] = len(fact.documents)
            if capture is not None:
                attributes[keys.RETRIEVAL_DOCUMENTS] = capture([_document(document) for document in fact.documents])
        return attributes


def _document(document: facts.Document) -> dict[str, Any]:
    told = {"id": document.id, "score": document.score, "content": document.content}
    return {key: value for key, value in told.items() if value is not None}


class ToolSpelling(Spelling):
    def name(self, fact: facts.ToolCall) -> str:
        return f"execute_tool {fact.name}"

    def at_start(self, fact: facts.ToolCall) -> Attributes:
        told: Attributes = {
            keys.OPERATION_NAME: "execute_tool",
            keys.TOOL_NAME: fact.name,
            keys.TOOL_TYPE: "function",
        }
        put(told, (keys.AGENT_NAME, fact.agent))
        return told

    def at_call(self, fact: facts.ToolCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (keys.TOOL_DESCRIPTION, fact.description))
        if capture is not None:
            attributes[keys.TOOL_ARGUMENTS] = capture(fact.arguments)
        return attributes

    def at_end(self, fact: facts.ToolCall, capture: Capture | None) -> Attributes:
        return {} if capture is None or fact.result is None else {keys.TOOL_RESULT: capture(fact.result)}


class CodeSpelling(Spelling):
    def name(self, fact: facts.CodeExecution) -> str:
        return f"execute_code {fact.cls}"

    def at_call(self, fact: facts.CodeExecution, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.INTERPRETER_CLASS: fact.cls}
        inputs = {"code": fact.code} if fact.variables is None else {"code": fact.code, "variables": fact.variables}
        io(attributes, keys.INPUT_VALUE, inputs, capture)
        return attributes

    def at_end(self, fact: facts.CodeExecution, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.result is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.result, capture)
        return attributes


class FormattingSpelling(Spelling):
    def name(self, fact: facts.Formatting) -> str:
        return f"{fact.adapter}.format"

    def at_call(self, fact: facts.Formatting, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.ADAPTER: fact.adapter}
        io(attributes, keys.INPUT_VALUE, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.Formatting, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        io(attributes, keys.OUTPUT_VALUE, fact.messages, capture)
        return attributes


class ParsingSpelling(Spelling):
    def name(self, fact: facts.Parsing) -> str:
        return f"{fact.adapter}.parse"

    def at_call(self, fact: facts.Parsing, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.ADAPTER: fact.adapter}
        io(attributes, keys.INPUT_VALUE, fact.completion, capture)
        return attributes

    def at_end(self, fact: facts.Parsing, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.fields is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.fields, capture)
        return attributes


class EvaluationSpelling(Spelling):
    def name(self, fact: facts.Evaluation) -> str:
        return f"evaluate {fact.program}"

    def at_call(self, fact: facts.Evaluation, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.EVALUATE_PROGRAM: fact.program}
        put(
            attributes,
            (keys.EVALUATE_METRIC, fact.metric),
            (keys.EVALUATE_EXAMPLES, fact.examples),
            (keys.EVALUATE_THREADS, fact.threads),
        )
        return attributes

    def at_end(self, fact: facts.Evaluation, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put(attributes, (keys.EVALUATE_SCORE, fact.score))
        sums(attributes, fact.tally)
        return attributes


class ExampleSpelling(Spelling):
    def name(self, fact: facts.ExampleRun) -> str:
        return f"evaluate_example {fact.program}"

    def at_call(self, fact: facts.ExampleRun, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.EVALUATE_PROGRAM: fact.program}
        put(attributes, (keys.EXAMPLE_INDEX, fact.index), (keys.EXAMPLE_RESUBMITTED, fact.resubmitted or None))
        io(attributes, keys.INPUT_VALUE, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.ExampleRun, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.output is not None:
            io(attributes, keys.OUTPUT_VALUE, fact.output, capture)
        sums(attributes, fact.tally)
        return attributes


def score(fact: facts.Scored, text: Callable[[str], str] | None) -> Attributes:
    """Return what a metric said of an example; `text` gives captured text, ``None`` where that is not wanted."""
    attributes: Attributes = {keys.EVALUATION_NAME: fact.metric}
    put(attributes, (keys.EVALUATION_SCORE, fact.score), (log_keys.EVALUATION_LABEL, fact.label))
    if text is not None and fact.explanation is not None:
        attributes[log_keys.EVALUATION_EXPLANATION] = text(fact.explanation)
    return attributes


class CompilationSpelling(Spelling):
    def name(self, fact: facts.Compilation) -> str:
        return f"compile {fact.optimizer}"

    def at_call(self, fact: facts.Compilation, capture: Capture | None) -> Attributes:
        attributes: Attributes = {keys.COMPILE_OPTIMIZER: fact.optimizer}
        put(
            attributes,
            (keys.COMPILE_PROGRAM, fact.program),
            (keys.COMPILE_TRAINSET, fact.trainset),
            (keys.COMPILE_VALSET, fact.valset),
        )
        return attributes

    def at_end(self, fact: facts.Compilation, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        sums(attributes, fact.tally)
        return attributes
