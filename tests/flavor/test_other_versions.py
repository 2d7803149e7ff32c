"""The flavor on the oldest and the newest Python and DSPy, each in an environment of its own; and in a notebook."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tests.parts.environments import environment, interpreter_of, run
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

OLDEST, NEWEST = ("3.10", "2.6.24"), ("3.13", importlib.metadata.version("dspy"))

NEEDED = ("pytest", "numpy", "pandas", "mlflow-skinny", "ipykernel", "nbclient")

CELLS = """
import os
import dspy
import dspy_trace_flavor as flavor
MARK = "!"
def shout(text: str) -> str:
    return text.upper() + MARK
# %%
class Ask(dspy.Signature):
    "Answer in one word."
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
class Mine(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict(Ask)
        self.shout = dspy.Tool(shout)
    def forward(self, question: str):
        return dspy.Prediction(answer=self.shout(text=self.ask(question=question).answer))
# %%
lm = dspy.LM("openai/gpt-4o-mini", api_base=os.environ["DESK_LM"], api_key="notebook-key-1", cache=False)
with dspy.context(lm=lm):
    print(Mine()(question="q").answer)
    flavor.save_model(Mine(), "saved")
"""

NOTEBOOK = f"""
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell(text) for text in {CELLS!r}.split("# %%")]
ran = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=100, kernel_name="python3").execute()
print("".join(one.text for cell in ran.cells for one in cell.outputs if one.output_type == "stream"))
"""

LOAD = """
import mlflow
model = mlflow.pyfunc.load_model("saved")
print([column.name for column in model.metadata.signature.outputs], model.predict({"question": "q"}))
"""


def made(python: str, version: str) -> Path:
    return environment(f"dspy=={version}", *NEEDED, python=interpreter_of(python), locked=False)


@pytest.mark.parametrize(("python", "version"), [OLDEST, NEWEST])
def test_saved_and_loaded(python: str, version: str) -> None:
    """What is loaded gives what was saved gave, and asks for the same bytes."""
    told = run(made(python, version), "-m", "tests.flavor.in_version")
    assert f"DSPy {version} on Python {python}: the same" in told


def test_a_program_of_a_notebook(tmp_path: Path, scripted_lm: ScriptedLM) -> None:
    """Classes, signatures and tools of its cells are saved as a pickle, and run in a process that has none of them."""
    python = made(*NEWEST)
    places = {"HOME": str(tmp_path), "DESK_LM": scripted_lm.url, "DSPY_CACHEDIR": str(tmp_path / "cache")}
    said = run(python, "-c", NOTEBOOK, folder=tmp_path, **places)
    assert "It cannot be saved as JSON because of program: its class __main__.Mine" in said
    assert "ANSWER OF Q!" in said
    loaded = run(python, "-c", LOAD, folder=tmp_path, OPENAI_API_KEY="loading-key-2", **places)
    assert loaded.endswith("['answer'] {'answer': 'ANSWER OF Q!'}\n")
    first, second = scripted_lm.requests
    assert first.body == second.body
    assert [one.headers["authorization"] for one in (first, second)] == [
        "Bearer notebook-key-1",
        "Bearer loading-key-2",
    ]
    assert b"notebook-key-1" not in b"".join(file.read_bytes() for file in (tmp_path / "saved").rglob("*.*"))
