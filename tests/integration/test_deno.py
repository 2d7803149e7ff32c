"""``dspy.PythonInterpreter`` in a real Deno: code, results, what the code calls, and the modules that run code."""

from __future__ import annotations

import json
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import dspy
import pytest

from tests.balanced import balanced
from tests.parts.deno import interpreters  # noqa: F401  # a fixture
from tests.parts.scripted_answers import Body, fill, in_turn
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*experimental"),
]

Interpreters = Callable[..., Any]

HOW = ("dspy.agent.iterations", "dspy.agent.termination_reason")
CALL = ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")


def look_up(place: str) -> str:
    """Look it up."""
    return f"{place} is north"


def test_code_and_what_it_calls(interpreters: Interpreters) -> None:
    """Code, variables and results; a function and a failing one with their arguments; failing code; a final answer."""

    def fail() -> None:
        raise LookupError("nothing there")

    caught = "try:\n  fail()\nexcept Exception as e:\n  print(e)\nprint(look_up(place))"
    tools = {"look_up": look_up, "fail": fail}
    with balanced(capture_content=True) as trace, interpreters(tools=tools) as interpreter:
        interpreter.execute(caught, variables={"place": "Oslo"})
        with pytest.raises(dspy.CodeExecutionError, match="division"):
            interpreter.execute("1 / 0")
        interpreter.execute("SUBMIT({'answer': 42})")
    assert trace.tree(*CALL, events=False) == dedent("""
        execute_code PythonInterpreter
          execute_tool fail !LookupError gen_ai.tool.call.arguments='{}'
          execute_tool look_up gen_ai.tool.call.arguments='{"place":"Oslo"}' gen_ai.tool.call.result='"Oslo is north"'
        execute_code PythonInterpreter !CodeExecutionError
        execute_code PythonInterpreter
    """)
    told = [dict(span.attributes or {}) for span in trace.named("execute_code PythonInterpreter")]
    assert [json.loads(str(one["input.value"])) for one in told] == [
        {"code": caught, "variables": {"place": "Oslo"}},
        {"code": "1 / 0"},
        {"code": "SUBMIT({'answer': 42})"},
    ]
    assert [one.get("output.value") for one in told] == [
        '"LookupError: nothing there\\nOslo is north\\n"',
        None,
        '{"output":{"answer":42}}',
    ]


def write(code: str, name: str = "code", **more: Any) -> Callable[[Body], str]:
    return lambda body: fill(body, **{name: code, **more})


def test_an_rlm(scripted_lm: ScriptedLM, interpreters: Interpreters) -> None:
    """Tools and the questions that code asks of an LM are beneath the piece of code that asked them."""
    code = ["found = look_up(place='Oslo')\nprint(llm_query(found))", "SUBMIT(answer='north')"]
    scripted_lm.answer = in_turn(write(code[0]), "a sub-answer", write(code[1]))
    with balanced() as trace, dspy.context(lm=scripted_lm.lm(), interpreter_factory=interpreters):
        assert dspy.RLM("question -> answer", tools=[look_up])(question="?").answer == "north"
    assert trace.tree(*HOW) == dedent("""
        invoke_agent RLM dspy.agent.iterations=2 dspy.agent.termination_reason='submit'
          execute_code PythonInterpreter
          Predict generate_action
            chat gpt-4o-mini
          execute_code PythonInterpreter
            execute_tool look_up
            execute_tool llm_query
              chat gpt-4o-mini
          Predict generate_action
            chat gpt-4o-mini
          execute_code PythonInterpreter
    """)


def test_code_act_and_a_program_of_thought(scripted_lm: ScriptedLM, interpreters: Interpreters) -> None:
    """Both run what the LM wrote, CodeAct's tools among it; a piece that failed is written again."""
    scripted_lm.answer = in_turn(
        write("print(look_up('Oslo'))", "generated_code", finished=True),
        fill,
        write("1 / 0", "generated_code"),
        write("SUBMIT({'answer': 42})", "generated_code"),
        fill,
    )
    context = dspy.context(lm=scripted_lm.lm(), interpreter_factory=interpreters)
    with balanced(capture_content=True) as trace, context:
        dspy.CodeAct("question -> answer", tools=[look_up])(question="?")
        dspy.ProgramOfThought("question -> answer")(question="?")
    assert trace.tree(*HOW, events=False) == dedent("""
        invoke_agent CodeAct dspy.agent.iterations=1 dspy.agent.termination_reason='finish'
          execute_code PythonInterpreter
          Predict codeact
            chat gpt-4o-mini
          execute_code PythonInterpreter
          ChainOfThought extractor
            Predict extractor.predict
              chat gpt-4o-mini
        invoke_workflow ProgramOfThought
          ChainOfThought code_generate
            Predict code_generate.predict
              chat gpt-4o-mini
          execute_code PythonInterpreter !CodeExecutionError
          ChainOfThought code_regenerate
            Predict code_regenerate.predict
              chat gpt-4o-mini
          execute_code PythonInterpreter
          ChainOfThought generate_output
            Predict generate_output.predict
              chat gpt-4o-mini
    """)
    ran = trace.named("execute_code PythonInterpreter")[1]
    assert (ran.attributes or {})["output.value"] == '"Oslo is north\\n"'
