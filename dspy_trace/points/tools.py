"""Reads tools and code interpreters."""

from __future__ import annotations

from typing import Any

from dspy_trace.facts import CodeExecution, Fact, ModuleCall, ToolCall
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs
from dspy_trace.settings import LIMIT
from dspy_trace.values.fields import is_tool
from dspy_trace.values.scalars import text

_FACADE = "__dspy_"
"""Beginning of the names by which code in an interpreter builds and calls DSPy's modules."""

_AGENT_MODULES = ("dspy.predict.react", "dspy.predict.react_v2")


class ToolReader:
    """Reads ``Tool``. The tools that ReAct and ReActV2 add to end their loop are none of the user's and not told."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact | None:
        function = ask(getattr, instance, "func")
        name = text(ask(getattr, instance, "name")) or "tool"
        if name in ("finish", "submit") and getattr(function, "__module__", None) in _AGENT_MODULES:
            return None
        # ``Type.description`` is a method of DSPy's; the tool's text is ``desc``.
        told = text(ask(getattr, instance, "desc"), LIMIT), kwargs, ask(getattr, instance, "args")
        return ToolCall(name, *told, agent=_agent(within))

    def end(self, fact: ToolCall, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.result = result


def _agent(within: ModuleCall | None) -> str | None:
    return (within.path or within.cls) if within is not None and within.agent else None


class InterpreterReader:
    """Reads ``execute(code, variables)`` of the interpreters."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        fact = CodeExecution(type(instance).__name__, args[0] if args else kwargs.get("code"))
        fact.variables = args[1] if len(args) > 1 else kwargs.get("variables")
        return fact

    def end(self, fact: CodeExecution, instance: Any, result: Any, error: BaseException | None) -> None:
        # What the code has submitted comes in a wrapping of DSPy's.
        fact.result = ask(getattr, result, "output") if type(result).__name__ == "FinalOutput" else result


class InvokedToolReader:
    """Reads ``invoke_tool(name, [args,] kwargs)``: code in an interpreter calls a function of the program's.

    One that is a ``Tool``, or leads to one, is observed as such; how DSPy builds modules for the code is none at all.
    """

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact | None:
        name = text(args[0] if args else kwargs.get("tool_name")) or "tool"
        tools = ask(getattr, instance, "tools")
        function = tools.get(name) if isinstance(tools, dict) else None
        if name.startswith(_FACADE) or function is None or _leads_to_tool(function):
            return None
        given = args[1:] or (kwargs.get("args"), kwargs.get("kwargs"))
        arguments: dict[str, Any] = {}
        for told in given:
            if isinstance(told, list):
                arguments.update((f"args[{index}]", value) for index, value in enumerate(told))
            elif isinstance(told, dict):
                arguments.update(told)
        return ToolCall(name, text(ask(getattr, function, "__doc__"), LIMIT), arguments, agent=_agent(within))

    def end(self, fact: ToolCall, instance: Any, result: Any, error: BaseException | None) -> None:
        fact.result = result


def _leads_to_tool(function: Any) -> bool:
    cells = [ask(getattr, cell, "cell_contents") for cell in ask(getattr, function, "__closure__") or ()]
    return any(is_tool(type(held)) for held in (function, *cells))
