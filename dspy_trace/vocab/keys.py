"""Every attribute and event name that our spans carry, with an example of each.

Sources: OpenTelemetry's GenAI semantic conventions (repository ``open-telemetry/semantic-conventions-genai``, stability
*development*) in the spelling of ``opentelemetry-util-genai`` 1.3, and ``dspy.*`` for what has no convention. The
constants are our own: those of ``opentelemetry-semantic-conventions`` are deprecated. The README's table is made from
this file and ``agent_keys.py``: ``python -m dspy_trace.vocab.table``.
"""

from typing import Final

OPERATION_NAME: Final = "gen_ai.operation.name"
"""What kind of operation this is. Example: ``chat``."""

PROVIDER_NAME: Final = "gen_ai.provider.name"
"""Who serves the model, in the convention's spelling. Example: ``aws.bedrock``."""

REQUEST_MODEL: Final = "gen_ai.request.model"
"""Model asked for, without the provider's prefix. Example: ``gpt-4o-mini``."""

REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
"""Sampling temperature. Example: ``0.7``."""

REQUEST_TOP_P: Final = "gen_ai.request.top_p"
"""Nucleus sampling. Example: ``0.9``."""

REQUEST_TOP_K: Final = "gen_ai.request.top_k"
"""Top-k sampling. Example: ``40``."""

REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
"""Most tokens to generate. Example: ``1000``."""

REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
"""Texts that end the generation. Example: ``["END"]``."""

REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
"""Frequency penalty. Example: ``0.1``."""

REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
"""Presence penalty. Example: ``0.1``."""

REQUEST_SEED: Final = "gen_ai.request.seed"
"""Seed of the sampling. Example: ``42``."""

REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
"""Completions asked for (``n``), where it is not 1. Example: ``3``."""

REQUEST_STREAM: Final = "gen_ai.request.stream"
"""The completion was streamed; absent otherwise. Example: ``true``."""

REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
"""Reasoning effort asked for. Example: ``low``."""

OUTPUT_TYPE: Final = "gen_ai.output.type"
"""``json`` where a JSON answer was asked for. Example: ``json``."""

RESPONSE_ID: Final = "gen_ai.response.id"
"""Id of the completion. Example: ``chatcmpl-9J3u``."""

RESPONSE_MODEL: Final = "gen_ai.response.model"
"""Model that answered. Example: ``gpt-4o-mini-2024-07-18``."""

RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
"""Why each completion ended. Example: ``["stop"]``."""

RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds from a stream's request to the first of it; streaming only. Example: ``0.31``."""

USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
"""Tokens of the prompt or of texts embedded, cached ones too; absent on a cache hit of DSPy's. Example: ``212``."""

USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
"""Tokens of all completions; absent on a cache hit of DSPy's. Example: ``35``."""

USAGE_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
"""Prompt tokens that the provider read from its cache. Example: ``128``."""

USAGE_CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
"""Prompt tokens that the provider wrote to its cache. Example: ``84``."""

USAGE_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
"""Completion tokens spent on reasoning. Example: ``20``."""

INPUT_MESSAGES: Final = "gen_ai.input.messages"
"""Prompt as JSON in the convention's message format; content. Example: ``[{"role":"user","parts":[...]}]``."""

OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
"""Completions as JSON in the convention's message format; content. Example: ``[{"role":"assistant",...}]``."""

TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
"""Tools offered to the model; content. Example: ``[{"type":"function","name":"search"}]``."""

EMBEDDINGS_DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
"""Length of each vector. Example: ``1536``."""

RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
"""Passages asked for. Example: ``3``."""

RETRIEVAL_QUERY: Final = "gen_ai.retrieval.query.text"
"""Query; content. Example: ``Who wrote Hamlet?``."""

RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"
"""Passages returned, as JSON; content. Example: ``[{"id":"7","score":0.91,"content":"..."}]``."""

TOOL_NAME: Final = "gen_ai.tool.name"
"""Name of the tool. Example: ``get_weather``."""

TOOL_TYPE: Final = "gen_ai.tool.type"
"""Always ``function``. Example: ``function``."""

TOOL_DESCRIPTION: Final = "gen_ai.tool.description"
"""Description that the model is shown. Example: ``Current weather of a city.``."""

TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
"""Arguments as JSON; content. Example: ``{"city":"Paris"}``."""

TOOL_RESULT: Final = "gen_ai.tool.call.result"
"""Result as JSON; content. Example: ``"sunny"``."""

AGENT_NAME: Final = "gen_ai.agent.name"
"""Path of the agent in its program, or its class; on its tools, too. Example: ``ReAct``."""

WORKFLOW_NAME: Final = "gen_ai.workflow.name"
"""Class of the outermost module. Example: ``RAG``."""

SERVER_ADDRESS: Final = "server.address"
"""Host that was called. Example: ``api.openai.com``."""

SERVER_PORT: Final = "server.port"
"""Port that was called. Example: ``443``."""

ERROR_TYPE: Final = "error.type"
"""Class of the exception that ended the call. Example: ``RateLimitError``."""

MODULE_CLASS: Final = "dspy.module.class"
"""Class of the module. Example: ``ChainOfThought``."""

MODULE_PATH: Final = "dspy.module.path"
"""Path of the module inside the outermost one. Example: ``generate_answer.predict``."""

SIGNATURE: Final = "dspy.signature"
"""Fields of the signature. Example: ``question -> answer``."""

SIGNATURE_NAME: Final = "dspy.signature.name"
"""Class of the signature. Example: ``GenerateAnswer``."""

PREDICT_DEMOS: Final = "dspy.predict.demos"
"""Number of demos of a ``Predict``. Example: ``4``."""

PROGRAM_VERSION: Final = "dspy.program.version"
"""Digest of instructions, fields and demos of all predictors; on the outermost. Example: ``9f2c61d04b7a33e5``."""

LM_CLASS: Final = "dspy.lm.class"
"""Class of the LM. Example: ``LM``."""

LM_ENGINE: Final = "dspy.lm.engine"
"""What served the call: ``lm15``, ``litellm``, ``custom`` or ``legacy``; absent on a cache hit. Example: ``lm15``."""

LM_CACHE_HIT: Final = "dspy.lm.cache_hit"
"""DSPy's own cache answered; then there is no usage and no cost. Example: ``false``."""

LM_REQUESTS: Final = "dspy.lm.requests"
"""Requests that DSPy made for this call. Example: ``1``."""

LM_RETRIES: Final = "dspy.lm.retries"
"""Failed requests that DSPy tried again. Example: ``0``."""

LM_ADAPTATIONS: Final = "dspy.lm.adaptations"
"""What the provider got that differs from what was asked, as DSPy tells it. Example: ``["config.seed dropped"]``."""

LM_COST: Final = "dspy.lm.cost"
"""Cost in USD, DSPy's own figure. Example: ``0.00021``."""

ADAPTER: Final = "dspy.adapter"
"""Adapter that a ``Predict`` used in the end. Example: ``JSONAdapter``."""

DECISION_STATE: Final = "dspy.decision.state"
"""State that a decision LM judged, as JSON; content. Example: ``{"ticket":"..."}``."""

EMBEDDINGS_INPUTS: Final = "dspy.embeddings.input.count"
"""Number of texts embedded. Example: ``2``."""

RETRIEVER_CLASS: Final = "dspy.retriever.class"
"""Class of the retriever. Example: ``ColBERTv2``."""

RETRIEVAL_DOCUMENT_COUNT: Final = "dspy.retrieval.document.count"
"""Number of passages returned. Example: ``3``."""

INTERPRETER_CLASS: Final = "dspy.interpreter.class"
"""Class of the code interpreter. Example: ``PythonInterpreter``."""

EVALUATE_PROGRAM: Final = "dspy.evaluate.program"
"""Class of the evaluated program. Example: ``RAG``."""

EVALUATE_METRIC: Final = "dspy.evaluate.metric"
"""Name of the metric. Example: ``answer_exact_match``."""

EVALUATE_EXAMPLES: Final = "dspy.evaluate.examples"
"""Number of examples. Example: ``200``."""

EVALUATE_THREADS: Final = "dspy.evaluate.threads"
"""Number of threads asked for. Example: ``8``."""

EVALUATE_SCORE: Final = "dspy.evaluate.score"
"""Score of the whole evaluation, in percent. Example: ``71.5``."""

EXAMPLE_INDEX: Final = "dspy.evaluate.example.index"
"""Position of the example in its set, from 0. Example: ``17``."""

EXAMPLE_RESUBMITTED: Final = "dspy.evaluate.resubmitted"
"""DSPy ran this example a second time because the first run was slow; absent otherwise. Example: ``true``."""

COMPILE_OPTIMIZER: Final = "dspy.compile.optimizer"
"""Class of the optimizer. Example: ``MIPROv2``."""

COMPILE_PROGRAM: Final = "dspy.compile.program"
"""Class of the student program. Example: ``RAG``."""

COMPILE_TRAINSET: Final = "dspy.compile.trainset"
"""Number of training examples. Example: ``200``."""

COMPILE_VALSET: Final = "dspy.compile.valset"
"""Number of validation examples. Example: ``50``."""

SUM_INPUT_TOKENS: Final = "dspy.usage.input_tokens"
"""Input tokens of all LM calls beneath, cache hits excluded. Example: ``640``."""

SUM_OUTPUT_TOKENS: Final = "dspy.usage.output_tokens"
"""Output tokens of all LM calls beneath, cache hits excluded. Example: ``96``."""

SUM_COST: Final = "dspy.usage.cost"
"""Cost in USD of all LM calls beneath; absent where none has a known cost. Example: ``0.0011``."""

SUM_LM_CALLS: Final = "dspy.usage.lm_calls"
"""LM calls beneath, cache hits included. Example: ``3``."""

SUM_CACHE_HITS: Final = "dspy.usage.cache_hits"
"""LM calls beneath that DSPy's cache answered. Example: ``1``."""

INPUT_VALUE: Final = "input.value"
"""Inputs as JSON, on spans without GenAI messages; content. Example: ``{"question":"..."}``."""

INPUT_MIME_TYPE: Final = "input.mime_type"
"""Always ``application/json``. Example: ``application/json``."""

OUTPUT_VALUE: Final = "output.value"
"""Output as JSON, on spans without GenAI messages; content. Example: ``{"answer":"..."}``."""

OUTPUT_MIME_TYPE: Final = "output.mime_type"
"""Always ``application/json``. Example: ``application/json``."""

SESSION_ID: Final = "session.id"
"""Session that the call belongs to, as :func:`dspy_trace.session` was told. Example: ``chat-42``."""

CONVERSATION_ID: Final = "gen_ai.conversation.id"
"""The same, or what ``opentelemetry-util-genai`` was told. Example: ``chat-42``."""

USER_ID: Final = "user.id"
"""User that the call is made for. Example: ``alice``."""

TAGS: Final = "tag.tags"
"""Tags of the session. Example: ``["tier:gold"]``."""

METADATA: Final = "metadata"
"""Metadata of the session, as JSON. Example: ``{"release":"2026-11"}``."""

EVENT_PARSE_ERROR: Final = "dspy.adapter.parse_error"
"""Event on a module: an adapter could not read the completion. Example attributes: ``dspy.adapter``, ``error.type``."""

EVENT_FALLBACK: Final = "dspy.adapter.fallback"
"""Event on a module: another adapter took over. Example attributes: ``dspy.adapter.from``, ``dspy.adapter.to``."""

FALLBACK_FROM: Final = "dspy.adapter.from"
"""Adapter that gave up. Example: ``ChatAdapter``."""

FALLBACK_TO: Final = "dspy.adapter.to"
"""Adapter that took over. Example: ``JSONAdapter``."""

EVENT_ATTEMPT_FAILED: Final = "dspy.lm.attempt_failed"
"""Event on an LM call: a request failed and was tried again. Example attribute: ``error.type``."""

EVENT_EVALUATION: Final = "gen_ai.evaluation.result"
"""Event on an example: its score. Example attributes: ``gen_ai.evaluation.name``, ``gen_ai.evaluation.score.value``."""

EVALUATION_NAME: Final = "gen_ai.evaluation.name"
"""Name of the metric. Example: ``answer_exact_match``."""

EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
"""Score that the metric gave. Example: ``1.0``."""

EVENT_EXCEPTION: Final = "exception"
"""Event on a failed span (OpenTelemetry's). Example attribute: ``exception.type``."""

EXCEPTION_TYPE: Final = "exception.type"
"""Full name of the exception's class. Example: ``dspy.utils.exceptions.LMRateLimitError``."""

EXCEPTION_MESSAGE: Final = "exception.message"
"""Text of the exception; content. Example: ``Rate limit reached``."""

EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
"""Traceback, on the span where the exception was first seen; content. Example: ``Traceback (most recent ...``."""
