"""Every attribute that MLflow reads, or that travels to MLflow beside a span, with an example of each.

Source: ``mlflow/tracing/constant.py`` of MLflow 3.17, and what its page reads. ``mlflow.*`` attributes are hidden in
the page's attribute pane: each has a place of its own there.
"""

from typing import Final

OWN: Final = "mlflow."
"""Prefix of all that is MLflow's own. Example: ``mlflow.spanType``."""

SPAN_TYPE: Final = "mlflow.spanType"
"""Kind of work: icon, filter and ``span.type`` of a search. Example: ``RETRIEVER``."""

LOG_LEVEL: Final = "mlflow.spanLogLevel"
"""Verbosity, as in Python's logging; the page hides spans below the level that it is set to. Example: ``20``."""

INPUTS: Final = "mlflow.spanInputs"
"""What a call was given; of a root, the request in the list of traces; content. Example: ``{"question":"..."}``."""

OUTPUTS: Final = "mlflow.spanOutputs"
"""What a call returned; of a root, the response in the list of traces; content. Example: ``{"answer":"..."}``."""

MESSAGE_FORMAT: Final = "mlflow.message.format"
"""Parser that the page's chat tab uses for inputs and outputs. Example: ``dspy``."""

CHAT_TOOLS: Final = "mlflow.chat.tools"
"""Tools offered to the model, in OpenAI's form; content. Example: ``[{"type":"function","function":{...}}]``."""

CHAT_USAGE: Final = "mlflow.chat.tokenUsage"
"""Tokens of one LM call; summed into the trace. Example: ``{"input_tokens":9,"output_tokens":3,"total_tokens":12}``."""

INPUT_TOKENS: Final = "input_tokens"
"""Part of the usage: tokens of the prompt. Example: ``9``."""

OUTPUT_TOKENS: Final = "output_tokens"
"""Part of the usage: tokens of the completions. Example: ``3``."""

TOTAL_TOKENS: Final = "total_tokens"
"""Part of the usage: both together. Example: ``12``."""

CACHE_READ_TOKENS: Final = "cache_read_input_tokens"
"""Part of the usage: prompt tokens that the provider read from its cache. Example: ``8``."""

CACHE_WRITE_TOKENS: Final = "cache_creation_input_tokens"
"""Part of the usage: prompt tokens that the provider wrote to its cache. Example: ``0``."""

CACHE_WRITE_LONG_TOKENS: Final = "cache_creation_input_tokens_above_1hr"
"""Part of the usage: those written for an hour or longer. Example: ``0``."""

LLM_COST: Final = "mlflow.llm.cost"
"""Cost of one LM call in USD; summed into the trace. Example: ``{"total_cost":0.00021}``."""

INPUT_COST: Final = "input_cost"
"""Part of the cost: the prompt's. Example: ``0.0001``."""

OUTPUT_COST: Final = "output_cost"
"""Part of the cost: the completions'. Example: ``0.00011``."""

TOTAL_COST: Final = "total_cost"
"""Part of the cost: all of it. Example: ``0.00021``."""

MODEL: Final = "mlflow.llm.model"
"""Model asked for, without the provider's prefix. Example: ``gpt-4o-mini``."""

PROVIDER: Final = "mlflow.llm.provider"
"""Who serves the model, in LiteLLM's and MLflow's spelling. Example: ``bedrock``."""

TRACE_TAG: Final = "mlflow.traceTag."
"""Prefix of an attribute of a root that becomes a tag of the trace. Example: ``mlflow.traceTag.env``."""

TRACE_NAME: Final = "mlflow.traceTag.mlflow.traceName"
"""Name of the trace; read from a root. Example: ``HelpDesk``."""

TRACE_METADATA: Final = "dspy_trace.traceMetadata."
"""Prefix of what becomes metadata of the trace; ours, taken off before a span leaves. Example:
``dspy_trace.traceMetadata.release``."""

REQUEST_ID: Final = "mlflow.traceRequestId"
"""MLflow's id of the trace, on every stored span. Example: ``tr-6d1f0a52c1f84d0a9f5c2d7b8e3a4b10``."""

EXPERIMENT_ID: Final = "mlflow.experimentId"
"""Experiment that MLflow's own spans name; never passed on: where a span goes is said with it. Example: ``7``."""

PARENT_SPAN_ID: Final = "dspy.parent.span_id"
"""True parent of a local root, whose parent is none in MLflow because it never comes there. Example:
``00f067aa0ba902b7``."""

SESSION_ID: Final = "session.id"
"""Session that the trace belongs to. Example: ``chat-42``."""

USER_ID: Final = "user.id"
"""User that the trace was made for. Example: ``ada``."""

CONVERSATION_ID: Final = "gen_ai.conversation.id"
"""Session, as GenAI instrumentations name it. Example: ``chat-42``."""

SERVICE_NAME: Final = "service.name"
"""Resource attribute: the service. Example: ``help-desk``."""

NUMBERED: Final = (
    "llm.input_messages.",
    "llm.output_messages.",
    "llm.token_count.",
    "llm.tools.",
    "retrieval.documents.",
    "embedding.embeddings.",
)
"""Prefixes of OpenInference's keys for what MLflow has in a form of its own. Example:
``llm.input_messages.0.message.role``."""

OF_MACHINE: Final = ("telemetry.", "mlflow.", "process.", "host.", "os.", "service.instance.id")
"""Beginnings of resource attributes that no one looks for by trace, or that may tell too much, such as a command line.
Example: ``process.command_args``."""

PAGE_CONTENT: Final = "page_content"
"""Part of a retrieved document: its text. Example: ``A lamp can be returned within 30 days.``."""

TRACE_SCHEMA_VERSION: Final = "mlflow.trace_schema.version"
"""Trace metadata: version of the form. Example: ``3``."""

TRACE_USAGE: Final = "mlflow.trace.tokenUsage"
"""Trace metadata: sum of the usage, as JSON. Example: ``{"input_tokens":9,"output_tokens":3,"total_tokens":12}``."""

TRACE_COST: Final = "mlflow.trace.cost"
"""Trace metadata: sum of the cost, as JSON. Example: ``{"total_cost":0.00021}``."""

TRACE_SESSION: Final = "mlflow.trace.session"
"""Session of a trace, in its metadata. Example: ``chat-42``."""

STORED_NAME: Final = "mlflow.traceName"
"""Trace tag: its name. Example: ``HelpDesk``."""

SOURCE_RUN: Final = "mlflow.sourceRun"
"""Trace metadata: run that was active; column *Run name*. Example: ``0f9e8d7c6b5a4938271605f4e3d2c1b0``."""

MODEL_ID: Final = "mlflow.modelId"
"""Trace metadata: logged model that was active; column *Version*. Example: ``m-0f9e8d7c6b5a4938271605f4e3d2c1b0``."""

USER: Final = "mlflow.user"
"""Trace metadata: account that ran the program. Example: ``ada``."""

SOURCE_NAME: Final = "mlflow.source.name"
"""Trace metadata: the program; column *Source*. Example: ``app.py``."""

SOURCE_TYPE: Final = "mlflow.source.type"
"""Trace metadata: what kind of program. Example: ``LOCAL``."""

GIT_COMMIT: Final = "mlflow.source.git.commit"
"""Trace metadata: commit that the program's folder is at. Example: ``762058806c...``."""

GIT_BRANCH: Final = "mlflow.source.git.branch"
"""Trace metadata: its branch. Example: ``main``."""

GIT_REPOSITORY: Final = "mlflow.source.git.repoURL"
"""Trace metadata: where it was cloned from. Example: ``https://git.example.org/help-desk``."""
