"""What agents and interpreters say of how they went: steps, reasons, code, and the tools that code calls."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from typing import Any

import dspy
import pytest

from tests.balanced import balanced
from tests.hostile import hostile
from tests.parts.scripted_answers import Body, Reply, fill, in_turn
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*experimental")
HOW = ("dspy.agent.iterations", "dspy.agent.termination_reason")


def look_up(place: str) -> str:
    """Look it up."""
    return f"{place} is north"


def act(name: str, **arguments: Any) -> Callable[[Body], str]:
    return lambda body: fill(body, next_tool_name=name, next_tool_args=arguments)


OSLO = act("look_up", place="Oslo")
TOO_LONG = Reply("too long", status=400, error_code="context_length_exceeded")
REACT: dict[str, Any] = {
    "finish": ([OSLO, act("finish")], 2, "finish"),
    "max_iters": ([OSLO, OSLO, OSLO], 3, "max_iters"),
    "step_failed": ([OSLO, TOO_LONG], 1, "step_failed"),
    "at once": ([TOO_LONG], 0, "step_failed"),
}


@pytest.mark.parametrize("name", REACT)
async def test_react(name: str, scripted_lm: ScriptedLM) -> None:
    """Steps that were made, and why there are no more, synchronously or not."""
    answers, iterations, termination = REACT[name]
    agent = dspy.ReAct("question -> answer", tools=[look_up], max_iters=3)
    for asynchronous in (False, True):
        scripted_lm.answer = in_turn(*answers, then=fill)
        with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
            await agent.acall(question="?") if asynchronous else agent(question="?")
        told = trace.one("invoke_agent ReAct").attributes
        assert tuple(told.get(key) for key in HOW) == (iterations, termination)
        assert {span.attributes["gen_ai.agent.name"] for span in trace.named("execute_tool look_up")} <= {"ReAct"}


@pytest.mark.parametrize("history", [None, lambda history: history, lambda history: {"messages": history.messages}])
def test_react_v2(history: Any, scripted_lm: ScriptedLM) -> None:
    """DSPy's own reason; steps of earlier turns, which are in the history, are not counted again."""
    call: Any = Reply(None, [{"name": "look_up", "arguments": {"place": "Oslo"}}])
    submit: Any = Reply(None, [{"name": "submit", "arguments": {"answer": "north"}}])
    scripted_lm.answer = in_turn(call, submit, call, call, submit)
    agent = dspy.ReActV2("question -> answer", tools=[look_up], max_iters=2)
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        first = agent(question="?")
        agent(question="again?", **({"history": history(first.history)} if history else {}))
    told = [tuple(span.attributes[key] for key in HOW) for span in trace.named("invoke_agent ReActV2")]
    assert told == [(2, "submit"), (3, "forced_submit")]


def test_an_agent_that_fails_says_nothing_of_it(scripted_lm: ScriptedLM) -> None:
    """What is not known is absent: the error says why it ended."""
    scripted_lm.answer = lambda body: Reply("no", status=400)
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()), pytest.raises(dspy.LMError):
        dspy.ReAct("question -> answer", tools=[look_up])(question="?")
    assert not [key for key in trace.one("invoke_agent ReAct").attributes if key.startswith("dspy.agent.")]


class Odd(dspy.ReAct):
    """Returns what it is given."""

    output: Any = None

    def forward(self, **inputs: Any) -> Any:
        return self.output


@pytest.mark.parametrize(
    "output",
    [
        None,
        3,
        dspy.Prediction(trajectory=None),
        dspy.Prediction(trajectory={3: 4, "x_²": 1, "_": 2, "tool_name_99999999999": "finish"}),
        dspy.Prediction(termination_reason=7, history=[1]),
        dspy.Prediction(termination_reason="\ud800", history=None),
        dspy.Prediction(trajectory=[], final_reasoning=hostile("__eq__", "__str__", "__bool__")()),
        dspy.Prediction(trajectory={"tool_name_0": hostile("__eq__", "__hash__")()}),
    ],
    ids=lambda output: type(output).__name__,
)
def test_an_agent_may_return_anything(output: Any) -> None:
    """A subclass of an agent's has an output of its own: nothing is invented."""
    agent = Odd("question -> answer", tools=[look_up])
    agent.output = output
    with balanced() as trace:
        assert agent(question="?") is output
    assert trace.one("invoke_agent Odd").attributes.get("dspy.agent.iterations") in (None, 0, 1)


CODE = ['found = look_up(place="Oslo")\nprint(llm_query(found))', "import dspy", "SUBMIT(answer='north')"]


def write(code: str) -> Callable[[Body], str]:
    return lambda body: fill(body, code=code)


def test_what_code_calls_stands_beneath_its_step(scripted_lm: ScriptedLM) -> None:
    """An RLM's code: its tools and the LM that it asks are beneath the piece of code that called them.

    The first piece of code is DSPy's own: it makes ``dspy`` importable there.
    """
    scripted_lm.answer = in_turn(write(CODE[0]), "a sub-answer", write(CODE[1]), write(CODE[2]))
    agent = dspy.RLM("question -> answer", tools=[look_up], interpreter_factory=dspy.LocalInterpreter)
    with balanced(capture_content=True) as trace, dspy.context(lm=scripted_lm.lm()):
        assert agent(question="?").answer == "north"
    assert trace.tree(*HOW) == dedent("""
        invoke_agent RLM dspy.agent.iterations=3 dspy.agent.termination_reason='submit'
          execute_code LocalInterpreter
          Predict generate_action
            chat gpt-4o-mini
          execute_code LocalInterpreter
            execute_tool look_up
            execute_tool llm_query
              chat gpt-4o-mini
          Predict generate_action
            chat gpt-4o-mini
          execute_code LocalInterpreter
          Predict generate_action
            chat gpt-4o-mini
          execute_code LocalInterpreter
    """)
    query = trace.one("execute_tool llm_query").attributes
    assert query["gen_ai.agent.name"] == "RLM"
    assert query["gen_ai.tool.call.arguments"] == '{"args[0]":"Oslo is north"}'
    assert query["gen_ai.tool.call.result"] == '"a sub-answer"'
    assert query["gen_ai.tool.description"] == "Query the LLM with a prompt string."
    submitted = trace.named("execute_code LocalInterpreter")[-1].attributes
    assert submitted["output.value"] == '{"answer":"north"}'


def test_an_interpreters_tools(scripted_lm: ScriptedLM) -> None:
    """A function, a failing one and a ``dspy.Tool``: each is one span, with arguments and result."""

    def fail() -> None:
        raise LookupError("nothing there")

    tools = {"plain": look_up, "fail": fail, "tool": dspy.Tool(look_up, name="tool")}
    code = "plain('Oslo'); tool(place='Bergen')\ntry:\n  fail()\nexcept Exception as e:\n  print('failed')"
    with balanced(capture_content=True) as trace, dspy.LocalInterpreter(tools=tools) as interpreter:
        interpreter.execute(code)
    assert trace.tree("gen_ai.tool.call.arguments", "gen_ai.tool.call.result", events=False) == dedent("""
        execute_code LocalInterpreter
          execute_tool plain gen_ai.tool.call.arguments='{"args[0]":"Oslo"}' gen_ai.tool.call.result='"Oslo is north"'
          execute_tool tool gen_ai.tool.call.arguments='{"place":"Bergen"}' gen_ai.tool.call.result='"Bergen is north"'
          execute_tool fail !LookupError gen_ai.tool.call.arguments='{}'
    """)
