"""Reads adapters: their two steps, and their trouble with what an LM wrote."""

from __future__ import annotations

from typing import Any

from dspy_trace.facts import AdapterFallback, Fact, Formatting, ModuleCall, ParseFailure, Parsing
from dspy_trace.points import Args, Kwargs, Notes


class FormatReader:
    """Reads ``format(signature, demos, inputs)``."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        return Formatting(type(instance).__name__, args[2] if len(args) > 2 else kwargs.get("inputs"))

    def end(self, fact: Formatting, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.messages = result


class ParseReader:
    """Reads ``parse(signature, completion)``."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        return Parsing(type(instance).__name__, args[1] if len(args) > 1 else kwargs.get("completion"))

    def end(self, fact: Parsing, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.fields = result


class AdapterNotes(Notes):
    """Tells which adapter a module used in the end, and when one took over from another.

    A fallback is an adapter called by another one after something went wrong; an adapter that merely uses another, such
    as ``TwoStepAdapter``, is none.
    """

    def before(self, fact: ModuleCall, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        name = type(instance).__name__
        fell_back = fact.adapters_running > 0 and fact.trouble is not None
        fact.adapters_running += 1
        if not fell_back:
            fact.adapter = fact.adapter if fact.adapters_running > 1 else name
            return None
        fact.trouble = None
        previous, fact.adapter = fact.adapter, name
        return AdapterFallback(previous, name)

    def returned(self, fact: ModuleCall, instance: Any, result: Any) -> Fact | None:
        fact.adapters_running -= 1
        return None

    def failed(self, fact: ModuleCall, instance: Any, error: BaseException) -> Fact | None:
        fact.adapters_running -= 1
        return None


class ParseNotes(Notes):
    """Tells a parse failure, once: ``parse`` and ``_call_postprocess`` see the same error."""

    def failed(self, fact: ModuleCall, instance: Any, error: BaseException) -> Fact | None:
        if not isinstance(error, Exception) or error is fact.trouble:
            return None
        fact.trouble = error
        return ParseFailure(type(instance).__name__, error)
