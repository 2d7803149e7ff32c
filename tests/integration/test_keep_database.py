"""``autolog()`` in a folder without anything: the trace is in a new ``mlflow.db``, and the program has not waited."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from tests.parts import desk
from tests.parts.mlflow_server import MISSING, Reader, is_installed
from tests.parts.project import Done, Project, tree

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]

UNTRACED = "import desk; print(desk.ask())"
TRACED = f"import dspy_trace; dspy_trace.autolog(); {UNTRACED}"

TREE = """
invoke_workflow Desk CHAIN
  retrieval Handbook RETRIEVER
  execute_tool opening_hours TOOL
  ChainOfThought reply CHAIN
    Predict reply.predict LLM
      chat gpt-4o-mini CHAT_MODEL
"""


def test_the_program_neither_waits_nor_grows(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """One call with `autolog()` takes half a second more than without, on a machine that has the time, and 30 MB."""
    traced, untraced = [], []
    project.run(UNTRACED)  # reads everything from the disk once
    for number in range(5):
        untraced.append(project.run(UNTRACED, folder=project.new_folder(f"untraced {number}")))
        traced.append(project.run(TRACED, folder=project.new_folder(f"traced {number}")))
        # It would take the processor from the next run.
        project.end_workers()
    seconds, cpu, kilobytes = (
        median(getattr(one, name) for one in traced) - median(getattr(one, name) for one in untraced)
        for name in ("seconds", "cpu", "kilobytes")
    )
    # On a machine that is busy everything takes longer, and so does what we add.
    busy = max(1.0, median(one.seconds / one.cpu for one in untraced))
    with capsys.disabled():
        print(f"\nautolog() adds {seconds:.2f} s ({cpu:.2f} s of processor time; busy: {busy:.1f}), {kilobytes / 1024:.0f} MB")
    assert not any(one.mlflow for one in traced)
    assert {one.out for one in traced} == {one.out for one in untraced}
    assert [one.err for one in traced] == [one.err for one in untraced]
    assert kilobytes < 30 * 1024
    assert cpu < 0.5
    assert seconds < 0.5 * busy
