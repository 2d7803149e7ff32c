"""Reads LM calls on DSPy before 3.4, which has no ``clients.execution``: what only those versions tell, and how.

Each class names the method that it reads, and the versions that have it. None of them counts requests: retries are
LiteLLM's there, and not to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_trace.facts import Fact, LMCall, ModuleCall
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs, Notes
from dspy_trace.points.lm import LMReader, billing, get, read_response, tokens
from dspy_trace.points.lm_typed import part_of
from dspy_trace.values.scalars import text


class LMReaderBefore34(LMReader):
    """Reads what only DSPy 3.3 takes as well: a typed ``LMRequest``, or typed messages one by one."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        fact = super().begin(instance, args, kwargs, within)
        first = kwargs.get("request") or (args[0] if args else None)
        if first is not None and type(first) is not str and isinstance(fact, LMCall):
            request = first if _is_of("LMRequest", first) else None
            said = first.messages if request is not None else args
            fact.messages = ask(lambda: [_message(each) for each in said], default=fact.messages)
            if request is not None:
                fact.parameters = {**fact.parameters, **ask(_config, request, default={}), **kwargs}
                fact.tools = ask(_tools, request) or fact.tools
                fact.json_output = fact.json_output or fact.parameters.get("response_format") is not None
        return fact


def _is_of(cls: str, value: Any) -> bool:
    return type(value).__name__ == cls and type(value).__module__.startswith("dspy.")


def _config(request: Any) -> dict[str, Any]:
    """Return what a request asks for itself; for all else, the LM's own parameters hold."""
    told = {name: value for name, value in vars(request.config).items() if value is not None}
    if "reasoning" in told:
        told["reasoning_effort"] = told["reasoning"].effort
    return told


def _tools(request: Any) -> list[dict[str, Any]]:
    names = ("type", "name", "description", "parameters")
    return [{name: getattr(tool, name) for name in names} for tool in request.tools]


def _message(item: Any) -> dict[str, Any]:
    """Return a typed message, or what else may stand among them, which a user says."""
    if _is_of("LMResponse", item):
        return {"role": "assistant", "content": item.text}
    if not _is_of("LMMessage", item):
        return {"role": "user", "content": item if isinstance(item, str) else [part_of(item)]}
    thoughts = [part.text for part in item.parts if part.type == "thinking"]
    calls = [
        {"id": part.id, "function": {"name": part.name, "arguments": part.args}}
        for part in item.parts
        if part.type == "tool_call"
    ]
    result = next((part for part in item.parts if part.type == "tool_result"), None)
    if result is not None:
        answer = "".join(part.text for part in result.content if part.type == "text")
        return {"role": "tool", "tool_call_id": result.call_id, "content": answer}
    content = [part_of(part) for part in item.parts if part.type not in ("thinking", "tool_call")]
    return {"role": item.role, "content": content, "reasoning_content": "".join(thoughts), "tool_calls": calls}


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
        used = get(response, "usage")
        if type(used) in (list, tuple) or (issubclass(type(used), Mapping) and type(used) is not dict):
            used = ask(dict, used)  # what DSPy makes of it as well
        billing(fact, used, get(hidden, "response_cost"))
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
