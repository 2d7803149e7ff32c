"""Every attribute of OpenInference's that our spans carry beside those of ``keys.py``, with an example of each.

Source: OpenInference's semantic conventions (package ``openinference-semantic-conventions`` 0.1). What both name alike,
such as ``input.value`` and ``session.id``, stands in ``keys.py``. Keys that are numbered, such as
``llm.input_messages.0.message.role``, are made of a prefix, a number and what comes behind it.
"""

from typing import Final

SPAN_KIND: Final = "openinference.span.kind"
"""What kind of operation this is. Example: ``LLM``."""

MODEL_NAME: Final = "llm.model_name"
"""Model asked for. Example: ``gpt-4o-mini``."""

REQUEST_MODEL_NAME: Final = "llm.request.model_name"
"""The same. Example: ``gpt-4o-mini``."""

RESPONSE_MODEL_NAME: Final = "llm.response.model_name"
"""Model that answered. Example: ``gpt-4o-mini-2024-07-18``."""

PROVIDER: Final = "llm.provider"
"""Who serves the model, in OpenInference's spelling. Example: ``azure``."""

SYSTEM: Final = "llm.system"
"""Whose product the model is. Example: ``openai``."""

INVOCATION_PARAMETERS: Final = "llm.invocation_parameters"
"""Request parameters as JSON, those that are told at all. Example: ``{"temperature":0.7}``."""

FINISH_REASON: Final = "llm.finish_reason"
"""Why the first completion ended. Example: ``stop``."""

TOKENS_PROMPT: Final = "llm.token_count.prompt"
"""Tokens of the prompt, cached ones included. Example: ``212``."""

TOKENS_COMPLETION: Final = "llm.token_count.completion"
"""Tokens of all completions. Example: ``35``."""

TOKENS_TOTAL: Final = "llm.token_count.total"
"""Sum of both. Example: ``247``."""

TOKENS_CACHE_READ: Final = "llm.token_count.prompt_details.cache_read"
"""Prompt tokens that the provider read from its cache. Example: ``128``."""

TOKENS_CACHE_WRITE: Final = "llm.token_count.prompt_details.cache_write"
"""Prompt tokens that the provider wrote to its cache. Example: ``84``."""

TOKENS_REASONING: Final = "llm.token_count.completion_details.reasoning"
"""Completion tokens spent on reasoning. Example: ``20``."""

COST_TOTAL: Final = "llm.cost.total"
"""Cost in USD, DSPy's own figure. Example: ``0.00021``."""

INPUT_MESSAGES: Final = "llm.input_messages"
"""Prefix of the messages of a prompt; content. Example: ``llm.input_messages.0.message.role``."""

OUTPUT_MESSAGES: Final = "llm.output_messages"
"""Prefix of the completions; content. Example: ``llm.output_messages.0.message.content``."""

TOOLS: Final = "llm.tools"
"""Prefix of the tools offered to the model; content. Example: ``llm.tools.0.tool.json_schema``."""

MESSAGE_ROLE: Final = "message.role"
"""Role of a message. Example: ``user``."""

MESSAGE_CONTENT: Final = "message.content"
"""Text of a message that is nothing but text. Example: ``Who wrote Hamlet?``."""

MESSAGE_CONTENTS: Final = "message.contents"
"""Prefix of the parts of a message. Example: ``message.contents.0.message_content.type``."""

MESSAGE_TOOL_CALL_ID: Final = "message.tool_call_id"
"""Id of the call that a tool's message answers. Example: ``call_1``."""

MESSAGE_TOOL_CALLS: Final = "message.tool_calls"
"""Prefix of the tool calls of a message. Example: ``message.tool_calls.0.tool_call.id``."""

CONTENT_TYPE: Final = "message_content.type"
"""Kind of a part: ``text``, ``reasoning`` or ``image``. Example: ``text``."""

CONTENT_TEXT: Final = "message_content.text"
"""Text of a part. Example: ``What is this?``."""

CONTENT_IMAGE_URL: Final = "message_content.image.image.url"
"""Address of an image; never its bytes. Example: ``https://example.org/lamp.png``."""

TOOL_CALL_ID: Final = "tool_call.id"
"""Id of a tool call. Example: ``call_1``."""

TOOL_CALL_NAME: Final = "tool_call.function.name"
"""Tool that is called. Example: ``get_weather``."""

TOOL_CALL_ARGUMENTS: Final = "tool_call.function.arguments"
"""Its arguments as JSON. Example: ``{"city":"Paris"}``."""

TOOL_JSON_SCHEMA: Final = "tool.json_schema"
"""Definition of an offered tool as JSON, in OpenAI's form. Example: ``{"type":"function","function":{...}}``."""

TOOL_NAME: Final = "tool.name"
"""Name of the tool that runs. Example: ``get_weather``."""

TOOL_DESCRIPTION: Final = "tool.description"
"""Description that the model is shown. Example: ``Current weather of a city.``."""

TOOL_PARAMETERS: Final = "tool.parameters"
"""JSON schemas of the tool's parameters; content. Example: ``{"city":{"type":"string"}}``."""

AGENT_NAME: Final = "agent.name"
"""Path of the agent in its program, or its class. Example: ``ReAct``."""

DOCUMENTS: Final = "retrieval.documents"
"""Prefix of the passages that a retriever returned; content. Example: ``retrieval.documents.0.document.content``."""

DOCUMENT_ID: Final = "document.id"
"""Id of a passage. Example: ``7``."""

DOCUMENT_SCORE: Final = "document.score"
"""Score of a passage. Example: ``0.91``."""

DOCUMENT_CONTENT: Final = "document.content"
"""Text of a passage. Example: ``A lamp can be returned within 30 days.``."""

EMBEDDING_MODEL: Final = "embedding.model_name"
"""Model that embeds. Example: ``text-embedding-3-small``."""

EMBEDDINGS: Final = "embedding.embeddings"
"""Prefix of what is embedded; content. Example: ``embedding.embeddings.0.embedding.text``."""

EMBEDDING_TEXT: Final = "embedding.text"
"""Text that is embedded; its vector is not told. Example: ``Who wrote Hamlet?``."""

DECISION_MODEL: Final = "decision.model_name"
"""Model that decides. Example: ``jev-latest``."""

DECISION_REQUEST_MODEL: Final = "decision.request.model_name"
"""The same. Example: ``jev-latest``."""

DECISION_RESPONSE_MODEL: Final = "decision.response.model_name"
"""Model that decided. Example: ``jev-1``."""

DECISION_PROVIDER: Final = "decision.provider"
"""Who serves it. Example: ``typesafe``."""

DECISION_TOKENS_INPUT: Final = "decision.token_count.input"
"""Tokens of state and questions. Example: ``120``."""

DECISION_TOKENS_OUTPUT: Final = "decision.token_count.output"
"""Tokens of the answers. Example: ``8``."""
