"""Reads decision LMs, which answer questions about a state (``dspy.experimental.TypeSafe``)."""

from __future__ import annotations

from typing import Any

from dspy_trace.facts import DecisionCall, Fact, ModuleCall
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs, Notes
from dspy_trace.points.addresses import host_and_port
from dspy_trace.points.lm import get, usage
from dspy_trace.secrets.places import seen
from dspy_trace.values.scalars import text


class DecisionReader:
    """Reads ``lm(state, questions)``."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        seen(instance)
        cls = type(instance).__name__
        fact = DecisionCall(cls, text(ask(getattr, instance, "model")) or cls, cls.lower())
        fact.state = args[0] if args else kwargs.get("state")
        fact.questions = args[1] if len(args) > 1 else kwargs.get("questions")
        fact.address, fact.port = host_and_port(ask(getattr, instance, "base_url"))
        return fact

    def end(self, fact: DecisionCall, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.answers = result


class FinishNotes(Notes):
    """The response, ``_finish(request, response, cache_hit)``."""

    def before(self, fact: DecisionCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        _, response, cache_hit = args
        fact.cache_hit = bool(cache_hit)
        fact.response_model = text(get(response, "model"))
        usage(fact, get(response, "usage"))
        return None
