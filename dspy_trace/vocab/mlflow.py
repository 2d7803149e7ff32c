"""MLflow's own words: what its page, its search and its scorers read.

None of it goes on a span. It travels beside our spans to our processor, which adds it to MLflow's copy, so that
collectors see clean semantic conventions and prompts are in the user's experiment alone.
"""

from __future__ import annotations

from typing import Any, Final

from dspy_trace import facts
from dspy_trace.guard import ask
from dspy_trace.settings import LIMIT
from dspy_trace.values.jsonable import dumps
from dspy_trace.values.quick import Plain
from dspy_trace.vocab import Attributes, Capture, mlflow_chat, mlflow_work
from dspy_trace.vocab import mlflow_keys as keys
from dspy_trace.vocab.genai import GenAI
from dspy_trace.vocab.mlflow_spelling import INFO, captured, put_inputs, put_model, put_outputs, typed
from dspy_trace.vocab.spelling import Spelling, put


class MLflow:
    """The vocabulary of MLflow.

    Args:
        limit: longest JSON text of one captured value. A conversation is shortened to it message by message, so that
            the chat tab shows it whole.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.spellings: dict[type[facts.Fact], Spelling] = {
            facts.ModuleCall: ModuleSpelling(),
            facts.LMCall: LMSpelling(limit),
            facts.DecisionCall: DecisionSpelling(),
            facts.Embedding: mlflow_work.EmbeddingSpelling(),
            facts.Retrieval: mlflow_work.RetrievalSpelling(),
            facts.ToolCall: mlflow_work.ToolSpelling(),
            facts.CodeExecution: mlflow_work.CodeSpelling(),
            facts.Formatting: mlflow_work.FormattingSpelling(),
            facts.Parsing: mlflow_work.ParsingSpelling(),
            facts.Evaluation: mlflow_work.EvaluationSpelling(),
            facts.ExampleRun: mlflow_work.ExampleSpelling(),
            facts.Compilation: mlflow_work.CompilationSpelling(),
        }
        self.event = GenAI().event

    def of_session(self, session: facts.Session) -> Attributes:
        """Return the session's tags and metadata beside each span; :func:`~dspy_trace.export.mlflow.row` gives them
        to the trace. Its ids are read from the span."""
        told: Attributes = {f"{keys.TRACE_TAG}{name}": value for name, value in session.tags.items()}
        for name, value in session.metadata.items():
            told[f"{keys.TRACE_METADATA}{name}"] = value if isinstance(value, str) else dumps(value)
        return told


_TRAJECTORY: Final = "trajectory"
"""Field of an agent's output, which its program may pass on: what it did. Example: ``{"thought_0":"..."}``."""


class ModuleSpelling(Spelling):
    """A predictor is an LLM to MLflow, as its own instrumentation has it; any other module is a chain."""

    def at_call(self, fact: facts.ModuleCall, capture: Capture | None) -> Attributes:
        kind = "AGENT" if fact.agent else "LLM" if fact.demos is not None else "CHAIN"
        attributes = typed(kind, INFO if fact.outermost else None)
        if fact.outermost:
            attributes[keys.TRACE_NAME] = fact.cls
        if fact.model_id is not None:
            attributes[keys.TRACE_METADATA + keys.MODEL_ID] = fact.model_id
        put_inputs(attributes, fact.inputs, capture)
        return attributes

    def at_end(self, fact: facts.ModuleCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        output = fact.output
        if type(output) is dict and _TRAJECTORY in output:
            # Last, so that the list of traces shows the answer, and not the beginning of the way to it.
            output = {
                **{key: value for key, value in output.items() if key != _TRAJECTORY},
                _TRAJECTORY: output[_TRAJECTORY],
            }
        put_outputs(attributes, output, capture)
        return attributes


class LMSpelling(Spelling):
    """A chat. DSPy's field markers become headings in the page's format ``dspy``, which cannot show tool calls."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def at_call(self, fact: facts.LMCall, capture: Capture | None) -> Attributes:
        attributes = typed("LLM" if fact.text_completion else "CHAT_MODEL")
        put_model(attributes, fact.model, fact.provider)
        if capture is not None:
            messages = mlflow_chat.chat_messages(fact.messages, self._limit)
            told = {"messages": messages}
            # They are the program's own only where they are plain, and fit.
            attributes[keys.INPUTS] = captured(Plain(told, 0) if messages is fact.messages else told, capture)
            if fact.tools is not None and (tools := ask(mlflow_chat.tools, fact.tools)):
                attributes[keys.CHAT_TOOLS] = captured(tools, capture)
        return attributes

    def at_end(self, fact: facts.LMCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if not fact.cache_hit and not fact.relays:
            _put_usage(attributes, fact)
        if capture is not None and fact.outputs is not None:
            if mlflow_chat.speaks_of_tools(fact.messages):
                attributes[keys.MESSAGE_FORMAT] = "openai"
                outputs: Any = mlflow_chat.choices(fact.outputs, fact.finish_reasons, self._limit)
            else:
                attributes[keys.MESSAGE_FORMAT] = "dspy"
                outputs = mlflow_chat.texts(fact.outputs) or mlflow_chat.completions(fact.outputs, self._limit)
            attributes[keys.OUTPUTS] = captured(outputs, capture)
        return attributes


def _put_usage(attributes: Attributes, fact: facts.LMCall | facts.DecisionCall) -> None:
    """Add tokens and cost of an LM call. Never on another span: there they would hide those of all spans beneath."""
    if fact.input_tokens is not None or fact.output_tokens is not None:
        usage: dict[str, Any] = {}
        put(usage, (keys.INPUT_TOKENS, fact.input_tokens), (keys.OUTPUT_TOKENS, fact.output_tokens))
        usage[keys.TOTAL_TOKENS] = sum(usage.values())
        if isinstance(fact, facts.LMCall):
            put(
                usage,
                (keys.CACHE_READ_TOKENS, fact.cache_read_tokens),
                (keys.CACHE_WRITE_TOKENS, fact.cache_write_tokens),
            )
        attributes[keys.CHAT_USAGE] = usage
    if fact.cost is not None:
        attributes[keys.LLM_COST] = {keys.TOTAL_COST: fact.cost}


class DecisionSpelling(Spelling):
    """Questions with their answers, in the form that the page draws as such."""

    def at_call(self, fact: facts.DecisionCall, capture: Capture | None) -> Attributes:
        attributes = typed("LLM")
        put_model(attributes, fact.model, fact.provider)
        attributes[keys.MESSAGE_FORMAT] = fact.provider
        put_inputs(attributes, {"state": fact.state, "questions": fact.questions}, capture)
        return attributes

    def at_end(self, fact: facts.DecisionCall, capture: Capture | None) -> Attributes:
        attributes: Attributes = {}
        if not fact.cache_hit:
            _put_usage(attributes, fact)
        if fact.answers is not None:
            put_outputs(attributes, {"answers": fact.answers}, capture)
        return attributes
