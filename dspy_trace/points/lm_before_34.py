"""Reads LM calls on DSPy before 3.4, which has no ``clients.execution``: what only those versions tell, and how.

Each class names the method that it reads, and the versions that have it. None of them counts requests: retries are
LiteLLM's there, and not to be seen.
"""

from __future__ import annotations

from typing import Any

from dspy_trace.facts import Fact, LMCall
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs, Notes
from dspy_trace.points.lm import billing, get, read_response, text, tokens


class ResponseNotes(Notes):
    """The response of an LM call, ``BaseLM._process_lm_response(response, prompt, messages, **kwargs)``."""

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        if instance is not fact.lm:
            return None
        response = args[0] if args else kwargs.get("response")
        hidden = get(response, "_hidden_params")
        read_response(fact, response)
        # DSPy 3 marks what came from its cache. LiteLLM's own cache, which DSPy 2.6 can be told to use, does so here.
        fact.cache_hit = fact.cache_hit or get(response, "cache_hit") is True or get(hidden, "cache_hit") is True
        billing(fact, get(response, "usage"), get(hidden, "response_cost"))
        if not fact.cache_hit and type(response).__module__.startswith("litellm."):
            fact.engine = "litellm"
        return None


class TypedResponseNotes(Notes):
    """DSPy 3.3: a typed response, ``BaseLM._finalize_lm_response(request, response)``.

    An LM that is not typed itself has passed its provider's response to ``_process_lm_response`` before.
    """

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        if instance is not fact.lm:
            return None
        response = args[1]
        fact.outputs = ask(response.to_legacy_outputs)
        if fact.cache_hit is None:
            fact.cache_hit = get(response, "cache_hit") is True
            fact.response_id = text(get(response, "response_id"))
            fact.response_model = text(get(response, "model"))
            fact.finish_reasons = [
                reason for one in get(response, "outputs") or () if (reason := text(get(one, "finish_reason")))
            ]
            used = get(response, "usage")
            billing(fact, used, get(response, "cost"))
            fact.cache_read_tokens = fact.cache_read_tokens or tokens(get(used, "cache_read_tokens"))
            fact.cache_write_tokens = fact.cache_write_tokens or tokens(get(used, "cache_write_tokens"))
            fact.reasoning_tokens = fact.reasoning_tokens or tokens(get(used, "reasoning_tokens"))
        return None


class CacheNotes(Notes):
    """DSPy 2.6: a look into the cache, ``Cache.get(request)``. What it returns does not say where it comes from."""

    def returned(self, fact: LMCall, instance: Any, result: Any) -> Fact | None:
        if result is not None:
            fact.cache_hit = True
        return None
