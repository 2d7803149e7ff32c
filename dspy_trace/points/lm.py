"""Reads LM calls: what every DSPy version has in common, and what DSPy 3.4's execution tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from dspy_trace.facts import AttemptFailed, DecisionCall, Fact, LMCall, ModuleCall
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs, Notes, lm_typed
from dspy_trace.points.addresses import host_and_port, provider_and_model
from dspy_trace.secrets.places import seen
from dspy_trace.values.scalars import number, text

ENGINES = {
    "LM15Engine": "lm15",
    "AsyncLM15Engine": "lm15",
    "LiteLLMEngine": "litellm",
    "AsyncLiteLLMEngine": "litellm",
    "LegacyEngine": "legacy",
    "AsyncLegacyEngine": "legacy",
}
"""DSPy's own engines by class; any other is ``custom``."""

_MOST_CHUNKS = 10_000
"""Chunks of a stream whose times are kept for the metric until it ends."""

_NOTHING: Mapping[str, Any] = {}


class LMReader:
    """Reads the call of a ``BaseLM``; the notes below add what only DSPy's insides know."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        seen(instance, kwargs)
        cls = type(instance).__name__
        state = getattr(instance, "__dict__", _NOTHING)
        model = state["model"] if "model" in state else ask(getattr, instance, "model")
        # DSPy takes a model without a prefix for OpenAI's, but only in its own LM class.
        provider, model = provider_and_model(text(model) or cls, "openai" if cls == "LM" else cls)
        parameters = state["kwargs"] if "kwargs" in state else ask(getattr, instance, "kwargs")
        if not isinstance(parameters, dict):
            parameters = kwargs
        elif len(kwargs) > 1 or "messages" not in kwargs:
            parameters = {**parameters, **kwargs}
        request = _asked(args, kwargs)
        if lm_typed.is_typed(request):
            parameters = ask(lm_typed.parameters, request, default=_NOTHING)
        fact = LMCall(cls, model, provider)
        fact.parameters = parameters
        fact.lm = instance
        fact.within = within
        kind = state["model_type"] if "model_type" in state else ask(getattr, instance, "model_type")
        fact.text_completion = type(kind) is str and kind == "text"
        fact.messages = _prompt(args, kwargs)
        fact.tools = parameters.get("tools")
        fact.json_output = parameters.get("response_format") is not None
        if "api_base" in parameters or "base_url" in parameters:
            urls = text(parameters.get("api_base"), 4_096) or text(parameters.get("base_url"), 4_096)
            fact.address, fact.port = host_and_port(urls)
        return fact

    def end(self, fact: LMCall, instance: Any, result: Any, error: BaseException | None) -> None:
        if error is not None:
            if fact.within is not None:
                fact.within.trouble = error
        elif fact.outputs is None:
            fact.outputs = result


def _asked(args: Args, kwargs: Kwargs) -> Any:
    request = kwargs.get("request")
    if request is not None:
        return request
    return args[0] if args else kwargs.get("prompt")


def _prompt(args: Args, kwargs: Kwargs) -> Any:
    messages = kwargs.get("messages")
    if messages is not None:
        return messages
    prompt = _asked(args, kwargs)
    return ask(lm_typed.messages, prompt) if lm_typed.is_typed(prompt) else prompt


class AttemptNotes(Notes):
    """DSPy 3.4: one request of an LM call, ``_attempt(lm, call, backend, request, provider, state, results)``."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        if args[0] is not fact.lm:
            return None
        fact.requests += 1
        fact.engine = ENGINES.get(type(args[2]).__name__, "custom")
        failed, fact.failed_attempt = fact.failed_attempt, None
        if failed is None:
            return None
        fact.retries += 1
        return AttemptFailed(failed)

    def failed(self, fact: LMCall, instance: Any, error: BaseException) -> Fact | None:
        fact.failed_attempt = error
        return None


class FinalizeNotes(Notes):
    """DSPy 3.4: the result of an LM call, ``finalize(lm, call, result)``; custom ``BaseLM`` included."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        lm, _, result = args
        if lm is fact.lm:
            fact.cache_hit = bool(result.cache_hit)
            fact.outputs = result.outputs
            billing(fact, result.usage, result.cost)
            fact.response_model = text(result.response_model)
            responses = result.responses
            read_response(fact, responses[0] if responses else result.raw)
            if responses:
                fact.finish_reasons = [reason for one in responses if (reason := text(one.finish_reason))]
                if not fact.cache_hit:
                    fact.adaptations = ask(_adaptations, responses, default=())
        return None


def _adaptations(responses: Sequence[Any]) -> list[str]:
    """Return what the provider got that differs from what was asked, once each: what was done, without the values."""
    found = (one for response in responses for one in getattr(response, "adaptations", ()))
    return list(dict.fromkeys(f"{one.field} {one.action}" for one in found))


class FailureNotes(Notes):
    """DSPy 3.4: a call fails, ``_account_failed_call(lm, results, error)``; some of its requests were answered."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        from dspy.clients.call_result import combine

        lm, results, _ = args
        if lm is fact.lm and results:
            paid = results[0] if len(results) == 1 else combine(results, model_type=lm.model_type)
            billing(fact, paid.usage, paid.cost)
        return None


class StreamNotes(Notes):
    """DSPy 3.4: the stream of an LM call is opened; its request is made when the first event is asked for."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        _opened(fact)
        return None


class LiteLLMStreamNotes(Notes):
    """LiteLLM's stream of an LM call, ``_get_stream_completion_fn(request, cache_kwargs)``; ``None`` is none."""

    def returned(self, fact: LMCall, instance: Any, result: Any) -> Fact | None:
        if result is not None:
            _opened(fact)
        return None


def _opened(fact: LMCall) -> None:
    # Of a call that is tried again, the stream that it ends with counts.
    fact.streaming, fact.stream_opened = True, perf_counter()
    fact.first_chunk = fact.between_chunks = None


class LiteLLMNotes(Notes):
    """LiteLLM is at hand, ``_get_litellm()``, right before it is asked; the first time, that takes seconds."""

    def returned(self, fact: LMCall, instance: Any, result: Any) -> Fact | None:
        if fact.stream_opened is not None and fact.first_chunk is None:
            fact.stream_opened = perf_counter()
        return None


class ChunkNotes(Notes):
    """DSPy 3.4: something of a stream has arrived, event by event or, from LiteLLM, chunk by chunk."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        if fact.stream_opened is None:
            return None
        now = perf_counter()
        if fact.first_chunk is None or fact.last_chunk is None or fact.between_chunks is None:
            fact.first_chunk, fact.between_chunks = now - fact.stream_opened, []
        elif len(fact.between_chunks) < _MOST_CHUNKS:
            fact.between_chunks.append(now - fact.last_chunk)
        fact.last_chunk = now
        return None


class TransportNotes(Notes):
    """DSPy 3.4: a request of the default engine, ``stream(request)``, which knows the host that is called."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        fact.address, fact.port = host_and_port(args[0].url)
        return None


def read_response(fact: LMCall, response: Any) -> None:
    """Add the id, model and finish reasons of a provider's response, of whatever class it is."""
    # DSPy's own engine has no id for a stream, but what the provider said last.
    fact.response_id = text(get(response, "id")) or text(get(get(response, "provider_data"), "id"))
    fact.response_model = fact.response_model or text(get(response, "model"))
    choices = get(response, "choices")
    if issubclass(type(choices), Sequence):
        fact.finish_reasons = ask(_reasons, choices, default=())


def _reasons(choices: Sequence[Any]) -> list[str]:
    # By their index: what can be iterated over once only is not ours to iterate over.
    found = (choices[index] for index in range(len(choices)))
    return [reason for one in found if (reason := text(get(one, "finish_reason")))]


def usage(fact: LMCall | DecisionCall, told: Any) -> None:
    """Add token counts from usage in OpenAI's shape, as far as they are sound."""
    if type(told) is dict and not told:
        return
    look = told.get if type(told) is dict else partial(get, told)
    fact.input_tokens = tokens(look("prompt_tokens"))
    fact.output_tokens = tokens(look("completion_tokens"))
    if fact.input_tokens is None and fact.output_tokens is None:
        # The Responses API's names.
        fact.input_tokens = tokens(look("input_tokens"))
        fact.output_tokens = tokens(look("output_tokens"))
    if not fact.input_tokens and not fact.output_tokens:
        # What LiteLLM reports for a stream that carried no usage, and what DSPy's scripted LM says.
        fact.input_tokens = fact.output_tokens = None
    if isinstance(fact, LMCall):
        of_input, of_output = look("prompt_tokens_details"), look("completion_tokens_details")
        of_input = of_input if of_input is not None else look("input_tokens_details")
        of_output = of_output if of_output is not None else look("output_tokens_details")
        if of_input is not None:
            fact.cache_read_tokens = tokens(get(of_input, "cached_tokens"))
            fact.cache_write_tokens = tokens(get(of_input, "cache_creation_tokens"))
        if of_output is not None:
            fact.reasoning_tokens = tokens(get(of_output, "reasoning_tokens"))


def billing(fact: LMCall, told: Any, price: Any) -> None:
    """Add token counts and cost. A cost of nothing for nobody knows how many tokens is not known either."""
    usage(fact, told)
    known = cost(price)
    fact.cost = None if fact.input_tokens is None and fact.output_tokens is None and not known else known


def tokens(value: Any) -> int | None:
    """Return a count of tokens if it is one: a whole number that OpenTelemetry can hold and that is not negative."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def cost(value: Any) -> float | None:
    """Return a cost in USD if it is one."""
    known = number(value)
    return known if known is not None and known >= 0 else None


def get(holder: Any, name: str) -> Any:
    """Return an item or attribute of a response, which may be a dict, a model or anything else."""
    if holder is None:
        return None
    if issubclass(type(holder), dict):
        return dict.get(holder, name)
    return ask(getattr, holder, name)
