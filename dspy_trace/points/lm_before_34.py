"""Reads the results of LM calls on DSPy before 3.4, which has no ``clients.execution``."""

from __future__ import annotations

from typing import Any

from dspy_trace.facts import Fact, LMCall
from dspy_trace.points import Args, Kwargs
from dspy_trace.points.lm import cost, get, read_response, usage


class ResponseNotes:
    """The response of an LM call, ``_process_lm_response(response, prompt, messages, **kwargs)``.

    It has no count of requests: retries are LiteLLM's there.
    """

    def before(self, fact: LMCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        if instance is not fact.lm:
            return None
        response = args[0] if args else kwargs.get("response")
        read_response(fact, response)
        fact.cache_hit = bool(get(response, "cache_hit"))
        usage(fact, get(response, "usage"))
        fact.cost = cost(get(get(response, "_hidden_params"), "response_cost"))
        return None

    def after(self, fact: LMCall, instance: Any, result: Any, error: BaseException | None) -> Fact | None:
        return None
