"""Notebooks: a real kernel, whose cells are run, interrupted, and whose process is restarted and killed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.delivery import delivering, eventually
from tests.parts.project import Project, share
from tests.parts.scripted_answers import Body, Reply, default_answer, prompt_text
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_mlflow import ScriptedMlflow

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

START = "import asyncio, dspy, dspy_trace, desk\ndspy_trace.autolog()"
ASYNC = """
with dspy.context(lm=desk.lm()):
    program = dspy.Predict("question -> answer")
    found = await asyncio.gather(*[program.acall(question=str(number)) for number in range(3)])
len(found)
"""

PREDICT = ("invoke_workflow Predict", ("chat gpt-4o-mini", ()))
REPLY = ("ChainOfThought reply", ("Predict reply.predict", ("chat gpt-4o-mini", ())))
ASK = ("invoke_workflow Desk", REPLY, ("execute_tool opening_hours", ()), ("retrieval Handbook", ()))


class Notebook:
    """A kernel and what is typed into it.

    Args:
        project: where it runs.
        environ: its environment.
    """

    def __init__(self, project: Project, **environ: str) -> None:
        self.manager = KernelManager(connection_file=str(project.home / "kernel.json"))
        self.manager.start_kernel(cwd=str(project.folder), env=project.environment(**environ))
        self.connect()

    def connect(self) -> None:
        """Wait for the kernel to answer."""
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60.0 * share())

    def run(self, cell: str) -> str:
        """Run a cell; return what it is worth, or the name of what it raises."""
        return self.ended(self.client.execute(cell))

    def ended(self, cell: str) -> str:
        """Wait for the end of a cell that runs, and return the same."""
        worth = ""
        while True:
            told: dict[str, Any] = self.client.get_iopub_msg(timeout=60.0 * share())
            kind, content = told["header"]["msg_type"], told["content"]
            if told["parent_header"].get("msg_id") != cell:
                continue
            if kind == "execute_result":
                worth = str(content["data"]["text/plain"])
            if kind == "error":
                worth = str(content["ename"])
            if kind == "status" and content["execution_state"] == "idle":
                return worth

    def restart(self) -> None:
        """Have it begin anew, as a person does."""
        self.client.stop_channels()
        self.manager.restart_kernel()
        self.connect()

    def end(self) -> None:
        """Kill it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(project: Project, scripted_mlflow: ScriptedMlflow) -> Iterator[Notebook]:
    """Give a kernel that traces to a server."""
    made = Notebook(project, MLFLOW_TRACKING_URI=scripted_mlflow.url, DSPY_TRACE_EXIT_WAIT="30")
    yield made
    made.end()


def stored(server: ScriptedMlflow) -> Counter[Any]:
    """Return how often the server has each trace, whole: a name, and what is beneath it."""
    spans = server.spans

    def beneath(trace: str, parent: str | None) -> list[Any]:
        found = [key for key, span in spans.items() if key[0] == trace and span["parent"] == parent]
        return sorted((spans[key]["name"], *(beneath(*key) or [()])) for key in found)

    return Counter(root for trace in {trace for trace, _ in spans} for root in beneath(trace, None))


def test_cells(notebook: Notebook, project: Project, scripted_lm: ScriptedLM, scripted_mlflow: ScriptedMlflow) -> None:
    """Each call of a cell is a trace, on the kernel's event loop too; interrupted, restarted or killed, it arrives."""
    asked: list[str] = []

    def answer(body: Body) -> Reply | str:
        asked.append(prompt_text(body))
        return Reply(delay=600.0) if "never answered" in asked[-1] else default_answer(body)

    scripted_lm.answer = answer
    notebook.run(START)
    assert notebook.run("desk.ask()") == notebook.run("desk.ask('Again?'); desk.ask()") != ""
    assert notebook.run(ASYNC) == "3"
    assert notebook.run("dspy_trace.flush()") == "True"
    assert stored(scripted_mlflow) == {ASK: 3, PREDICT: 3}

    cell = notebook.client.execute("desk.ask('never answered')")
    eventually(lambda: "never answered" in asked[-1], 30.0 * share())
    notebook.manager.interrupt_kernel()
    assert notebook.ended(cell) == "KeyboardInterrupt"
    assert notebook.run("dspy_trace.flush()") == "True"
    assert stored(scripted_mlflow) == {ASK: 4, PREDICT: 3}

    notebook.run("desk.ask()")
    notebook.restart()
    eventually(lambda: stored(scripted_mlflow) == {ASK: 5, PREDICT: 3}, 30.0 * share())

    scripted_mlflow.close()
    notebook.run(START)
    notebook.run("desk.ask()")
    eventually(lambda: project.waits().get("batches"), 30.0 * share())
    notebook.end()
    scripted_mlflow.restart()
    with delivering({**os.environ, **project.environment(DSPY_TRACE_WORKER="off")}) as later:
        assert later.deliver_all(30.0 * share())
    assert stored(scripted_mlflow) == {ASK: 6, PREDICT: 3}
