"""Programs as tools, and programs that are saved and loaded: what the LM and the disk get is what they get untraced."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dspy
import pytest

from dspy_trace.testing import record
from tests.host import run, same, told
from tests.parts.scripted_answers import fill, in_turn
from tests.parts.scripted_lm import ScriptedLM


class Lookup(dspy.Module):
    """Look up a town."""

    def forward(self, town: str, exact: bool = False) -> str:
        return f"{town}, {exact}"

    async def aforward(self, town: str, exact: bool = False) -> str:
        return f"{town}, {exact}"


class Documented(Lookup):
    """Look up a town, by a call of its own."""

    def __call__(self, town: str, exact: bool = False) -> str:
        """Say where a town is."""
        return super().__call__(town=town, exact=exact)

    async def acall(self, town: str, exact: bool = False) -> str:
        """Say where a town is, later."""
        return await super().acall(town=town, exact=exact)


TOOLS: dict[str, Callable[[], Any]] = {
    "module": Lookup,
    "module with a call of its own": Documented,
    "method": lambda: Documented().__call__,
    "async method": lambda: Documented().acall,
    "predict": lambda: dspy.Predict("town -> place"),
    "method of predict": lambda: dspy.Predict("town -> place").__call__,
    "tool in a tool": lambda: dspy.Tool(Documented().__call__).__call__,
}


@pytest.mark.parametrize("kind", TOOLS)
def test_a_tool_made_of_a_program_describes_itself_in_the_same_way(kind: str) -> None:
    """Name, description, arguments and their types are what DSPy finds in the plain method."""

    def described() -> Any:
        tool = dspy.Tool(TOOLS[kind]())
        return told([tool.name, tool.desc, tool.args, str(tool.arg_types), tool.has_kwargs, str(tool)])

    bare = described()
    with record(detail="full"):
        assert described() == bare


@pytest.mark.parametrize("kind", [kind for kind in TOOLS if "async" not in kind and "predict" not in kind])
def test_an_agent_calls_a_program_as_a_tool(kind: str) -> None:
    """Its prompts are the same, and the program is beneath the tool."""

    def program(server: ScriptedLM) -> Any:
        tool = dspy.Tool(TOOLS[kind](), name="lookup", arg_types={"town": str}, args={"town": {"type": "string"}})
        server.answer = in_turn(
            lambda body: fill(body, next_tool_name="lookup", next_tool_args={"town": "Oslo"}),
            lambda body: fill(body, next_tool_name="finish", next_tool_args={}),
        )
        return dspy.ReAct("question -> answer", tools=[tool])(question="Where?")

    trace = same(program, detail="standard")
    cls = "Lookup" if kind == "module" else "Documented"
    inside = "    execute_tool __call__\n      " if kind == "tool in a tool" else "    "
    assert f"  execute_tool lookup\n{inside}{cls}" in trace.tree()


def test_an_async_method_as_a_tool() -> None:
    """The coroutine that the method returns is awaited by DSPy as any other."""

    async def program(server: ScriptedLM) -> Any:
        tool = dspy.Tool(Documented().acall, name="lookup", arg_types={"town": str}, args={"town": {"type": "string"}})
        return await tool.acall(town="Oslo"), inspect.iscoroutinefunction(tool.func)

    assert same(program).tree() == "\nexecute_tool lookup\n  invoke_workflow Documented\n"


def _script_class() -> type[dspy.Module]:
    """Return a class as a script defines it, that overrides what we patch; cloudpickle takes it along by value."""

    class Script(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
            self.kept = self.predict.__call__

        def __call__(self, **kwargs: Any) -> Any:
            return super().__call__(**kwargs)

        async def acall(self, **kwargs: Any) -> Any:
            return await super().acall(**kwargs)

        def forward(self, question: str) -> Any:
            return self.kept(question=question)

    Script.__module__ = "__main__"
    return Script


def test_state_is_saved_and_loaded_in_the_same_way(tmp_path: Path) -> None:
    """JSON and pickle state, written and read while traced, are the files that are written untraced."""

    def files(folder: Path) -> list[Any]:
        program = dspy.ReAct("question -> answer", tools=[Documented().__call__])
        program.react.demos = [dspy.Example(question="q", answer="a")]
        program.save(folder / "state.json")
        program.save(folder / "state.pkl")
        loaded = dspy.ReAct("question -> answer", tools=[Documented().__call__])
        loaded.load(folder / "state.json")
        again = dspy.ReAct("question -> answer", tools=[Documented().__call__])
        again.load(folder / "state.pkl", allow_pickle=True)
        return told([program, loaded, again]), (folder / "state.json").read_bytes(), (folder / "state.pkl").read_bytes()

    for name in ("bare", "traced"):
        (tmp_path / name).mkdir()
    bare = files(tmp_path / "bare")
    with record(detail="full"):
        assert files(tmp_path / "traced") == bare


def test_what_is_pickled_traced_needs_nothing_of_ours() -> None:
    """No pickle made while instrumented names us: it loads where dspy-trace is not installed."""
    before = _script_class()
    with record(detail="full"):
        for cls in (before, _script_class()):
            adapter = type("Adapter_", (dspy.JSONAdapter,), {"__module__": "__main__"})
            for value in (cls, cls(), cls().__call__, cls().kept, adapter(), adapter().format):
                data = cloudpickle.dumps(value)
                assert b"dspy_trace" not in data
                assert b"wrapt" not in data
        for value in (Documented(), Documented().__call__, Documented.__call__, dspy.Predict.acall, dspy.Tool.__call__):
            data = pickle.dumps(value)
            assert b"dspy_trace" not in data
            assert b"wrapt" not in data


def test_a_class_is_pickled_by_value_with_methods_of_any_kind() -> None:
    """A partial, a static method and a lambda in the place of what we patch, and a deep copy of each as it is bound."""
    with record(detail="full"):

        class Odd(dspy.Module):
            def run(self, n: int) -> int:
                return n

            __call__ = functools.partialmethod(run, 1)
            acall = staticmethod(lambda: 2)

        class Nameless(dspy.Module):
            __call__ = lambda self: 3  # noqa: E731  # what it is about

        Odd.__module__ = Nameless.__module__ = "__main__"
        for program in (Odd(), Nameless()):
            assert copy.deepcopy(program.__call__)() == copy.copy(program.__call__)() == program()
            data = cloudpickle.dumps(program)
            assert b"dspy_trace" not in data
            assert cloudpickle.loads(data)() == program()
        assert copy.deepcopy(Odd().acall)() == 2


def test_a_saved_program_is_loaded_and_called(tmp_path: Path) -> None:
    """`save(save_program=True)` and `dspy.load` while traced: the loaded program does the same and is traced."""

    def program(server: ScriptedLM) -> Any:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        _script_class()().save(folder, save_program=True)
        loaded = dspy.load(folder, allow_pickle=True)
        return loaded(question="Why?"), loaded.kept.__self__ is loaded.predict

    bare = run(program)
    with record() as trace:
        traced = run(program)
    assert (traced.returned, traced.requests) == (bare.returned, bare.requests)
    assert bare.returned[2] is True
    assert trace.tree() == "\ninvoke_workflow Script\n  Predict predict\n    chat gpt-4o-mini\n"


@pytest.mark.integration
def test_a_program_saved_traced_is_loaded_where_we_are_not_installed(tmp_path: Path) -> None:
    """Another interpreter, in which neither dspy-trace nor wrapt can be imported, loads and calls it."""
    with record(detail="full"):
        _script_class()().save(tmp_path / "program", save_program=True)
        (tmp_path / "method").write_bytes(cloudpickle.dumps(_script_class()().acall))
    code = f"""
        import asyncio, sys
        sys.modules["dspy_trace"] = sys.modules["wrapt"] = None
        import cloudpickle, dspy

        class Own(dspy.BaseLM):
            def __call__(self, *args, **kwargs):
                return ["[[ ## answer ## ]]\\nfine\\n[[ ## completed ## ]]"]

        dspy.configure(lm=Own("own"))
        program = dspy.load({str(tmp_path / "program")!r}, allow_pickle=True)
        print(type(program).__name__, program(question="Why?").answer)
        with open({str(tmp_path / "method")!r}, "rb") as file:
            method = cloudpickle.load(file)
        print(method.__self__.kept(question="Why?").answer, asyncio.iscoroutinefunction(method))
    """
    environment = {**os.environ, "PYTHONPATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.stdout == "Script fine\nfine True\n", done.stderr
