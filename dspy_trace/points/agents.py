"""Reads what agents say of how they went: in the trajectory or the history that is part of their output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy_trace.facts import ModuleCall
from dspy_trace.guard import ask
from dspy_trace.points.lm import get
from dspy_trace.values.scalars import text, whole

_FORCED = "Extract forced final output"
"""What DSPy's RLM gives as reasoning where it ran out of iterations."""


def steps_before(inputs: Mapping[str, Any]) -> int:
    """Return how many steps a conversation has that an agent is about to go on with; it is the caller's own list."""
    messages = get(inputs.get("history"), "messages")
    return len(messages) if type(messages) is list else 0


def read(fact: ModuleCall, agent: Any) -> None:
    """Add how many steps an agent made and why it ended, as far as its output tells."""
    output = fact.output
    if not isinstance(output, dict):
        return
    trajectory = output.get("trajectory")
    if "termination_reason" in output:
        fact.termination = text(output["termination_reason"])
        messages = get(output.get("history"), "messages")
        fact.iterations = len(messages) - fact.steps_before if type(messages) is list else None
    elif type(trajectory) is list:
        fact.iterations = len(trajectory)
        fact.termination = "max_iters" if text(output.get("final_reasoning")) == _FORCED else "submit"
    elif type(trajectory) is dict:
        _read_steps(fact, agent, trajectory)


def _read_steps(fact: ModuleCall, agent: Any, trajectory: Mapping[Any, Any]) -> None:
    """Read the trajectory of ReAct or CodeAct, of which the oldest steps may have been cut off."""
    fact.iterations = last = max((_number(key) for key in trajectory), default=0)
    most = whole(fact.inputs.get("max_iters", ask(getattr, agent, "max_iters")))
    thoughts = not trajectory or any(type(key) is str and key.startswith("thought_") for key in trajectory)
    if text(trajectory.get(f"tool_name_{last - 1}")) == "finish":
        fact.termination = "finish"
    elif thoughts:
        fact.termination = "max_iters" if last == most else "step_failed"
    elif most is not None and last < most:
        # CodeAct does not say whether its last possible step was to be the last.
        fact.termination = "finish"


def _number(key: Any) -> int:
    """Return the number of the step that a key such as ``observation_0`` is of, counted from 1."""
    number = key.rpartition("_")[2] if type(key) is str else ""
    return int(number) + 1 if number.isdecimal() and len(number) < 9 else 0
