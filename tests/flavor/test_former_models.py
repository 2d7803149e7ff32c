"""Models that older versions of ``mlflow.dspy`` have saved, with the DSPy of their time: loaded, asked, saved anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parts.environments import ROOT, environment, run
from tests.parts.project import Project
from tests.parts.scripted_lm import ScriptedLM

MLFLOW, DSPY = "2.21.3", "2.6.24"
"""The oldest versions whose models are loaded. What the newest save is loaded in ``checks_saving.py``."""

SAVE = """
import sys
import dspy, mlflow
from tests.flavor import bureau

dspy.settings.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[2], api_key="k"), adapter=dspy.JSONAdapter())
mlflow.dspy.save_model(bureau.compiled(), f"{sys.argv[1]}/bureau")
mlflow.dspy.save_model(dspy.ReAct("question -> answer", tools=[bureau.look_up]), f"{sys.argv[1]}/react")
print(f"{mlflow.__version__} {dspy.__version__}")
"""

LOAD = """
import json
import dspy
import dspy_trace_flavor as flavor
from tests.flavor import bureau

asked = [("bureau", bureau.LETTER), ("react", {"question": "q"})]

def answers(folder):
    for name, row in asked:
        program = flavor.load_model(f"{folder}/{name}", lm_kwargs={"cache": False})
        with dspy.context(**flavor.settings(program)):
            yield name, program, program(**row).answer

told = []
for name, program, answer in answers(FOLDER):
    told.append(answer)
    with dspy.context(**flavor.settings(program)):
        flavor.save_model(program, f"anew/{name}", format="state", code_paths=[bureau.__file__])
assert sorted(flavor.settings(program)) == ["adapter", "lm"]
print(json.dumps([told, [answer for _, _, answer in answers("anew")]]))
"""


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_models_of_older_versions(project: Project, scripted_lm: ScriptedLM, tmp_path: Path) -> None:
    """They answer with instructions and demos as compiled, by the tools and settings that they were saved with; saved
    anew, in JSON, they ask for the same."""
    old = environment(f"mlflow-skinny=={MLFLOW}", f"dspy=={DSPY}", "pandas", checkout=False, locked=False)
    assert f"{MLFLOW} {DSPY}\n" in run(old, "-c", SAVE, str(tmp_path / "old"), scripted_lm.url)
    loaded = project.run(LOAD.replace("FOLDER", repr(str(tmp_path / "old"))), PYTHONPATH=str(ROOT), OPENAI_API_KEY="k")
    first, second = json.loads(loaded.out)
    assert first == second
    bodies = [request.body for request in scripted_lm.requests]
    assert bodies[: len(bodies) // 2] == bodies[len(bodies) // 2 :]
    assert bodies[0]["temperature"] == 0.5
    assert bodies[0]["response_format"]["type"] == "json_schema"
    system, *demo, _ = (message["content"] for message in bodies[0]["messages"])
    assert "Sort the letter with care." in system
    assert "Thank you!" in demo[0]
    assert "look_up" in bodies[2]["messages"][0]["content"]
