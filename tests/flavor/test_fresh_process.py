"""Saved in one process, loaded in a fresh one from another folder, with pickles forbidden and the source gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.parts.project import Project
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

SAVE = """
import json, os
import dspy
import dspy_trace_flavor as flavor
from office.desk_of import Desk, lm
from office import HELPERS

program = Desk()
program.reply.predict.demos = [dspy.Example(context=["c"], hours="h", question="q", reasoning="r", answer="a")]
with dspy.context(lm=lm(), adapter=dspy.XMLAdapter()):
    flavor.save_model(program, "saved", format="state", code_paths=["office"])
    print(json.dumps(program(question="When?").toDict()))
"""

LOAD = """
import json, sys
import mlflow
assert "office" not in sys.modules
model = mlflow.pyfunc.load_model("moved")
print(json.dumps(model.predict({"question": "When?"})))
assert "moved" in sys.modules["office"].__file__
"""

IN_MAIN = """
import dspy
import dspy_trace_flavor as flavor
KEY = "a-key-of-main-1"

def tool(city: str) -> str:
    return f"{city} {len(KEY)}"

class Mine(dspy.Module):
    def __init__(self):
        super().__init__()
        self.tool = dspy.Tool(tool)
    def forward(self, text: str):
        return dspy.Prediction(echo=self.tool(city=text))

flavor.save_model(Mine(), "saved")
"""

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

LOAD_NOTEBOOKS = """
import mlflow
model = mlflow.pyfunc.load_model("saved")
print([column.name for column in model.metadata.signature.outputs], model.predict({"question": "q"}))
"""


def test_a_program_of_several_files(project: Project, scripted_lm: ScriptedLM, tmp_path: Path) -> None:
    """The same answers, and byte for byte the same requests, but for the key, which is the loading process's own."""
    package = project.folder / "office"
    package.mkdir()
    (package / "__init__.py").write_text("HELPERS = 1\n")
    source = (project.folder / "desk.py").read_text().replace('"scripted-key"', 'os.environ["OPENAI_API_KEY"]')
    (package / "desk_of.py").write_text(source)
    saved = project.run(SAVE, OPENAI_API_KEY="saving-key-11", PYTHONPATH=".")
    asked = [request.body for request in scripted_lm.requests]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(project.folder / "saved", elsewhere / "moved")
    shutil.rmtree(package)
    forbidden = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OPENAI_API_KEY": "loading-key-22"}
    loaded = project.run(LOAD, folder=elsewhere, **forbidden)
    assert json.loads(loaded.out) == json.loads(saved.out)
    again = scripted_lm.requests[len(asked) :]
    assert [json.dumps(request.body) for request in again] == [json.dumps(body) for body in asked]
    assert {request.headers["authorization"] for request in again} == {"Bearer loading-key-22"}
    written = b"".join(path.read_bytes() for path in (elsewhere / "moved").rglob("*") if path.is_file())
    assert b"saving-key-11" not in written


def test_a_program_of_main(project: Project, tmp_path: Path) -> None:
    """A program that is defined in ``__main__`` is saved as a pickle, and loads where there is no such ``__main__``."""
    saved = project.run(IN_MAIN)
    assert "It cannot be saved as JSON because of program: its class __main__.Mine" in saved.err
    shutil.move(project.folder / "saved", tmp_path / "saved")
    script = "import mlflow; print(mlflow.pyfunc.load_model('saved').predict({'text': 'Bonn'}))"
    loaded = project.run(script, folder=tmp_path)
    assert loaded.out.strip() == "{'echo': 'Bonn 15'}"


def test_a_program_of_a_notebook(project: Project, scripted_lm: ScriptedLM) -> None:
    """Classes, signatures and tools of its cells are saved as a pickle, and run in a process that has none of them."""
    said = project.run(NOTEBOOK, HOME=str(project.home)).out
    assert "It cannot be saved as JSON because of program: its class __main__.Mine" in said
    assert "ANSWER OF Q!" in said
    loaded = project.run(LOAD_NOTEBOOKS, OPENAI_API_KEY="loading-key-2")
    assert loaded.out.endswith("['answer'] {'answer': 'ANSWER OF Q!'}\n")
    first, second = scripted_lm.requests
    assert first.body == second.body
    keys = [one.headers["authorization"] for one in (first, second)]
    assert keys == ["Bearer notebook-key-1", "Bearer loading-key-2"]
    assert b"notebook-key-1" not in b"".join(file.read_bytes() for file in (project.folder / "saved").rglob("*.*"))


def test_the_command_shows_what_is_in_a_model(project: Project) -> None:
    """`dspy-trace model inspect` and `diff`, without running anything of the model; a key is told by its variable."""
    script = """
import dspy, desk
import dspy_trace_flavor as flavor
from click.testing import CliRunner
from dspy_trace.cli import main

program = desk.Desk()
lm = dspy.LM("openai/gpt-4o-mini", api_key="a-planted-key-1", temperature=0.5)
with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
    flavor.save_model(program, "one")
    program.reply.predict.signature = program.reply.predict.signature.with_instructions("Answer with care.")
    program.reply.predict.demos = [dspy.Example(question="Why?", answer="Because.")]
    flavor.save_model(program, "two")
for command in (["inspect", "two"], ["diff", "one", "two"], ["diff", "one", "one"], ["inspect", "nowhere"]):
    done = CliRunner().invoke(main, ["model", *command])
    print(done.exit_code, done.output)
"""
    out = project.run(script, COLUMNS="110").out
    inspected, changed, same = out.split("\n0 ")
    for text in ("desk.Desk", "key from OPENAI_API_KEY", "temperature=0.5", "setting adapter JSONAdapter"):
        assert text in " ".join(inspected.split())
    for text in ("reply.predict Predict", "Answer with care.", "demo 1", "answer: Because."):
        assert text in " ".join(inspected.split())
    assert "Given the" in changed
    assert "Answer with" in changed
    assert "The two models are the same" in same
    assert "\n1 Error: " in same
    assert "planted" not in out
