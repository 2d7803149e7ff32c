"""Saving and loading through MLflow itself. Run by `test_with_mlflow` in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import dspy
import mlflow
import pytest
import yaml
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

import dspy_trace_flavor as flavor
from dspy_trace_flavor import CannotLoad, CannotSave, SecretFound
from tests.flavor import bureau
from tests.flavor.alone import alone, store
from tests.parts.scripted_lm import ScriptedLM

__all__ = ["alone", "store"]

LETTER = {"letter": "My lamp is broken.", "sender": {"name": "Bo", "age": 40}}
CODE = [str(Path(bureau.__file__))]


@pytest.mark.parametrize("form", ["state", "cloudpickle"])
def test_logged_registered_and_loaded(form: str, scripted_lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logged model is loaded by run, version and alias, and asks for what the program asked for; no LM was called."""
    program = bureau.compiled()
    with dspy.context(lm=scripted_lm.lm(), adapter=dspy.JSONAdapter()):
        info = flavor.log_model(
            program, name="bureau", format=form, registered_model_name="bureau", input_example=LETTER, code_paths=CODE
        )
        assert scripted_lm.requests == []
        expected = program(**bureau.LETTER).toDict()
    asked = [request.body for request in scripted_lm.requests]
    mlflow.MlflowClient().set_registered_model_alias("bureau", "live", 1)
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    if form == "state":
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for uri in (info.model_uri, "models:/bureau/1", "models:/bureau@live"):
        loaded = mlflow.pyfunc.load_model(uri)
        before = len(scripted_lm.requests)
        assert loaded.predict(LETTER) == expected
        assert [json.dumps(one.body) for one in scripted_lm.requests[before:]] == [json.dumps(body) for body in asked]
    assert scripted_lm.requests[-1].headers["authorization"] == "Bearer another-key"
    assert loaded.metadata.flavors["python_function"]["loader_module"] == "dspy_trace_flavor"


def test_loading_changes_nothing_of_the_process(scripted_lm: ScriptedLM) -> None:
    """The program has its LM, the rest is told; `configure=True` sets it."""
    with dspy.context(lm=scripted_lm.lm(), adapter=dspy.JSONAdapter(), my_setting=3, num_threads=2, track_usage=True):
        flavor.save_model(bureau.compiled(), "bureau", code_paths=CODE)
    before = dict(dspy.settings.config)
    program = flavor.load_model("bureau", lm_kwargs={"api_key": "another"})
    assert dict(dspy.settings.config) == before
    saved = flavor.settings(program)
    assert sorted(saved) == ["adapter", "lm", "my_setting"]
    assert program.triage.lm is saved["lm"]
    assert saved["lm"].kwargs["api_key"] == "another"
    other = scripted_lm.lm(model="openai/other")
    for wrong in ({"lm": 3}, {"lm_kwargs": "temperature=1"}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} must be .*, not (int|str)"):
            flavor.load_model("bureau", **wrong)
    assert flavor.load_model("bureau", lm=other).triage.lm is other
    assert flavor.load_model("bureau", lm={"openai/gpt-4o-mini": other}).triage.lm is other
    try:
        flavor.load_model("bureau", configure=True, lm_kwargs={"api_key": "another"})
        assert isinstance(dspy.settings.adapter, dspy.JSONAdapter)
    finally:
        dspy.configure(lm=None, adapter=None)


def test_a_missing_key_is_said(scripted_lm: ScriptedLM, caplog: pytest.LogCaptureFixture) -> None:
    """When it is saved and when it is loaded, by the name of its variable."""
    with dspy.context(lm=scripted_lm.lm()):
        flavor.save_model(bureau.Bureau(), "bureau", code_paths=CODE)
    assert "OPENAI_API_KEY (settings['lm'].kwargs['api_key'])" in caplog.text
    caplog.clear()
    flavor.load_model("bureau")
    assert "set the environment variable OPENAI_API_KEY, or load it with lm= or lm_kwargs=" in caplog.text


def test_model_config_reaches_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """When saving, when loading, and when serving, by MLflow's own variable; the compiled state stays."""
    flavor.save_model(bureau.compiled(), "bureau", model_config={"tone": "dry"}, code_paths=CODE)
    program = flavor.load_model("bureau")
    assert (program.tone, program.rounds) == ("dry", 1)
    assert program.triage.signature.instructions == "Sort the letter with care."
    assert len(program.triage.demos) == 1
    loaded = mlflow.pyfunc.load_model("bureau", model_config={"tone": "warm"})
    assert loaded.get_raw_model().tone == "warm"
    monkeypatch.setenv("MLFLOW_PYFUNC_INFERENCE_CONFIG", '{"tone": "loud", "lm": "openai/other"}')
    loaded = mlflow.pyfunc.load_model("bureau")
    assert loaded.get_raw_model().tone == "loud"
    assert loaded._model_impl.runner.settings["lm"].model == "openai/other"
    with pytest.raises(CannotSave, match=r"model_config: Bureau\(\) does not take 'color': it takes tone, rounds"):
        flavor.save_model(bureau.Bureau(), "other", model_config={"color": "red"})


def test_auto_says_why_it_is_a_pickle(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What JSON cannot hold becomes a pickle, which is refused where pickles are forbidden, before it is read."""

    class Local(dspy.Module):  # type: ignore[misc]
        def forward(self, text: str) -> Any:
            return dspy.Prediction(echo=text)

    flavor.save_model(Local(), "local")
    assert "It cannot be saved as JSON because of program: its class" in caplog.text
    assert mlflow.pyfunc.load_model("local").predict({"text": "x"}) == {"echo": "x"}
    with pytest.raises(CannotSave, match="cannot be imported in another process"):
        flavor.save_model(Local(), "other", format="state")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(CannotLoad, match="Save it with format='state'"):
        flavor.load_model("local")
    assert not Path("other").exists()


def test_nothing_is_left_of_a_save_that_fails(scripted_lm: ScriptedLM, tmp_path: Path) -> None:
    """Neither a folder nor the parts of one, whatever is wrong."""
    source = tmp_path / "tools.py"
    source.write_text("KEY = 'planted-in-source-1'")
    wrong = ModelSignature(inputs=Schema([ColSpec("string", "question")]))
    with dspy.context(lm=scripted_lm.lm(api_key="planted-in-source-1")):
        for error, message, options in (
            (SecretFound, r"settings\['lm'\].*: its secret would be in code/tools.py", {"code_paths": [str(source)]}),
            (SecretFound, "its secret would be in MLmodel", {"metadata": {"note": "planted-in-source-1"}}),
            (
                SecretFound,
                "requirements.txt|conda.yaml",
                {"extra_pip_requirements": ["--index-url https://me:pa55word@h/"]},
            ),
            (SecretFound, "input_example.json", {"input_example": {**LETTER, "letter": "planted-in-source-1"}}),
            (
                CannotSave,
                "it does not fit the program, which takes letter, sender: it has 'question'",
                {"signature": wrong},
            ),
            (CannotSave, "there is no nowhere.py", {"code_paths": ["nowhere.py"]}),
            (CannotSave, r"code_paths: it must be a list, such as \['tools.py'\]", {"code_paths": "tools.py"}),
            (CannotSave, "metadata: it must be a dict .* not str", {"metadata": "note"}),
            (
                CannotSave,
                "signature: it must be one of MLflow's, a ModelSignature, not str",
                {"signature": "text -> note"},
            ),
            (CannotSave, "format: it must be one of", {"format": "pickle"}),
            (CannotSave, "task: it must be one of", {"task": "llm/v1/completions"}),
            (ValueError, "row 0 lacks 'sender'", {"input_example": {"letter": "x"}}),
        ):
            with pytest.raises(error, match=message):
                flavor.save_model(bureau.Bureau(), "bureau", **options)
            assert sorted(os.listdir()) == ["mlflow.db", "tools.py"] or sorted(os.listdir()) == ["tools.py"]
    with pytest.raises(CannotSave, match=r"it must be a dspy.Module, not str"):
        flavor.save_model("program", "bureau")
    with pytest.raises(CannotSave, match="exists already"):
        flavor.save_model(bureau.Bureau(), str(tmp_path))


def test_a_folder_that_is_not_what_was_saved_is_refused(tmp_path: Path) -> None:
    """Changed, added, lost, newer, damaged: nothing of it is executed."""
    module = tmp_path / "executed.py"
    module.write_text(Path(bureau.__file__).read_text())
    flavor.save_model(bureau.Bureau(), "saved", code_paths=[str(module)])

    def refused(message: str, change: Any) -> None:
        shutil.copytree("saved", "copy")
        change(Path("copy"))
        with pytest.raises(CannotLoad, match=message):
            flavor.load_model("copy")
        with pytest.raises(CannotLoad, match=message):
            mlflow.pyfunc.load_model("copy")
        shutil.rmtree("copy")

    def conf(place: Path, **changes: Any) -> None:
        told = yaml.safe_load((place / "MLmodel").read_text())
        told["flavors"]["dspy_trace"].update(changes)
        (place / "MLmodel").write_text(yaml.safe_dump(told))

    trap = "import pathlib; pathlib.Path('executed').touch()"
    refused("code/executed.py was changed", lambda place: (place / "code/executed.py").write_text(trap))
    refused("code/json.py was added", lambda place: (place / "code/json.py").write_text(trap))
    refused("data/program.json was changed", lambda place: (place / "data/program.json").write_text("{}"))
    refused("data/program.json is missing", lambda place: (place / "data/program.json").unlink())
    refused("data/program.pkl was added", lambda place: (place / "data/program.pkl").write_bytes(b""))
    refused("has layout 2, and this dspy-trace reads up to 1", lambda place: conf(place, version=2))
    refused("is of format 'other'", lambda place: conf(place, format="other"))
    assert not Path("executed").exists()
    Path("empty").mkdir()
    with pytest.raises(CannotLoad, match="is no MLflow model"):
        flavor.load_model("empty")


def test_a_missing_class_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose class is nowhere says what is to be installed."""
    (tmp_path / "gone_module.py").write_text(
        "import dspy\nclass Gone(dspy.Module):\n    def forward(self, a): return a\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import gone_module

    flavor.save_model(gone_module.Gone(), "gone")
    monkeypatch.delattr(gone_module, "Gone")
    with pytest.raises(CannotLoad, match=r"has no attribute 'Gone'.*install the package that it was saved with"):
        flavor.load_model("gone")


def test_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They pin DSPy, this package, and what the program's source imports; `conda.yaml` has the same."""
    (tmp_path / "needy.py").write_text("import httpx, json\nimport dspy\nclass Needy(dspy.Module):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import needy

    flavor.save_model(needy.Needy(), "needy", code_paths=["needy.py"])
    lines = Path("needy/requirements.txt").read_text().split()
    names = [line.partition("==")[0] for line in lines]
    assert {"dspy", "dspy-trace", "cloudpickle", "httpx", "mlflow"} == set(names)
    assert all("==" in line for line in lines)
    assert flavor.get_default_pip_requirements()[0] == f"dspy=={dspy.__version__}"
    assert flavor.get_default_conda_env()["dependencies"][-1]["pip"][-1].startswith("cloudpickle==")


def test_models_of_mlflows_own_flavor_are_loaded(scripted_lm: ScriptedLM) -> None:
    """What `mlflow.dspy` has saved is loaded, and the process's settings are left as they are."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with dspy.context(lm=scripted_lm.lm(), adapter=dspy.JSONAdapter()):
        mlflow.dspy.save_model(bureau.compiled(), "theirs")
        mlflow.dspy.log_model(bureau.compiled(), name="logged", use_dspy_model_save=True)
    before = dict(dspy.settings.config)
    (logged,) = mlflow.search_logged_models(output_format="list")
    for uri in ("theirs", logged.model_uri):
        program = flavor.load_model(uri, lm_kwargs={"temperature": 0.25}, model_config={"tone": "dry"})
        assert (dict(dspy.settings.config), mlflow.get_active_model_id()) == (before, None)
        assert {"adapter", "lm"} <= flavor.settings(program).keys()
        with dspy.context(**flavor.settings(program)):
            assert program(**bureau.LETTER).answer
        assert scripted_lm.requests[-1].body["temperature"] == 0.25
        assert "dry" in scripted_lm.requests[-1].body["messages"][-1]["content"]
    Path("theirs/data/model.pkl").write_bytes(b"cdspy.gone\nGone\n.")
    version = dspy.__version__
    with pytest.raises(CannotLoad, match=rf"ModuleNotFoundError: .*dspy.gone.* Where .*dspy=={version} is installed"):
        flavor.load_model("theirs")
