"""Everything but modules, LM and decision calls in MLflow's words."""

from __future__ import annotations

from typing import Any

from dspy_trace import facts
from dspy_trace.vocab import Attributes, Capture, log_keys
from dspy_trace.vocab import mlflow_keys as keys
from dspy_trace.vocab.mlflow_spelling import INFO, captured, put_inputs, put_model, put_outputs, typed
from dspy_trace.vocab.spelling import Spelling, put, text


class EmbeddingSpelling(Spelling):
    def at_call(self, fact: facts.Embedding, capture: Capture | None) -> Attributes:
        attributes = typed("EMBEDDING")
        put_model(attributes, fact.model, fact.provider)
        put_inputs(attributes, {"inputs": fact.inputs}, capture)
        return attributes

    def at_end(self, fact: facts.Embedding, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.dimensions is not None:
            put_outputs(attributes, {"count": fact.count, "dimensions": fact.dimensions}, capture)
        return attributes


class RetrievalSpelling(Spelling):
    def at_call(self, fact: facts.Retrieval, capture: Capture | None) -> Attributes:
        attributes = typed("RETRIEVER")
        inputs = {"query": fact.query} if fact.top_k is None else {"query": fact.query, "k": fact.top_k}
        put_inputs(attributes, inputs, capture)
        return attributes

    def at_end(self, fact: facts.Retrieval, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if capture is not None and fact.documents is not None:
            documents = [_document(document, capture) for document in fact.documents]
            attributes[keys.OUTPUTS] = captured(documents, capture)
        return attributes


def _document(document: facts.Document, capture: Capture) -> dict[str, Any]:
    content = document.content
    metadata: dict[str, Any] = {}
    put(metadata, ("chunk_id", document.id), ("score", document.score))
    told: dict[str, Any] = {
        keys.PAGE_CONTENT: content if isinstance(content, str) else capture(content),
        "metadata": metadata,
    }
    put(told, ("id", document.id))
    return told


class ToolSpelling(Spelling):
    def at_call(self, fact: facts.ToolCall, capture: Capture | None) -> Attributes:
        attributes = typed("TOOL")
        put_inputs(attributes, fact.arguments, capture)
        return attributes

    def at_end(self, fact: facts.ToolCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put_outputs(attributes, fact.result, capture)
        return attributes


class CodeSpelling(Spelling):
    def at_call(self, fact: facts.CodeExecution, capture: Capture | None) -> Attributes:
        attributes = typed("TOOL")
        inputs = {"code": fact.code} if fact.variables is None else {"code": fact.code, "variables": fact.variables}
        put_inputs(attributes, inputs, capture)
        return attributes

    def at_end(self, fact: facts.CodeExecution, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.result is not None:
            put_outputs(attributes, fact.result, capture)
        return attributes


class FormattingSpelling(Spelling):
    def at_call(self, fact: facts.Formatting, capture: Capture | None) -> Attributes:
        attributes = typed("PARSER")
        put_inputs(attributes, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.Formatting, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put_outputs(attributes, fact.messages, capture)
        return attributes


class ParsingSpelling(Spelling):
    def at_call(self, fact: facts.Parsing, capture: Capture | None) -> Attributes:
        attributes = typed("PARSER")
        put_inputs(attributes, {"completion": fact.completion}, capture)
        return attributes

    def at_end(self, fact: facts.Parsing, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put_outputs(attributes, fact.fields, capture)
        return attributes


class EvaluationSpelling(Spelling):
    def at_call(self, fact: facts.Evaluation, capture: Capture | None) -> Attributes:
        attributes = typed("EVALUATOR", INFO)
        inputs: dict[str, Any] = {"program": fact.program}
        put(inputs, ("metric", fact.metric), ("examples", fact.examples))
        put_inputs(attributes, inputs, capture)
        return attributes

    def at_end(self, fact: facts.Evaluation, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if fact.score is not None:
            put_outputs(attributes, {"score": fact.score}, capture)
        return attributes


class ExampleSpelling(Spelling):
    """One example: its trace looks like one of the program's own, under the program's name."""

    def at_call(self, fact: facts.ExampleRun, capture: Capture | None) -> Attributes:
        attributes = typed("EVALUATOR", INFO)
        attributes[keys.TRACE_NAME] = fact.program
        put_inputs(attributes, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.ExampleRun, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        put_outputs(attributes, fact.output, capture)
        if capture is not None and fact.explanation is not None:
            attributes[log_keys.EVALUATION_EXPLANATION] = text(fact.explanation, capture)
        return attributes


class CompilationSpelling(Spelling):
    def at_call(self, fact: facts.Compilation, capture: Capture | None) -> Attributes:
        attributes = typed("WORKFLOW", INFO)
        inputs: dict[str, Any] = {"optimizer": fact.optimizer}
        put(inputs, ("program", fact.program), ("trainset", fact.trainset), ("valset", fact.valset))
        put_inputs(attributes, inputs, capture)
        return attributes
