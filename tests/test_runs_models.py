"""What comes of a compile as a model: packed in the program's process, without MLflow; or why there is none."""

from __future__ import annotations

import base64
import json
import logging
import threading
from typing import Any

import dspy
import pytest

import dspy_trace
from tests.optimizers import TRAINSET, Own, bootstrap, compiled, lm, logged
from tests.outlets import Kept, kept
from tests.runs import QA, Told, exact, runs

__all__ = ["kept", "lm", "logged"]


class Holds(QA):
    """A program with something in it."""

    def __init__(self, thing: Any) -> None:
        super().__init__()
        self.thing = thing


def optimized(kept: Kept, lm: Any, program: Any) -> Told:
    with dspy.context(lm=lm):
        dspy.BootstrapFewShot(metric=exact, max_bootstrapped_demos=1).compile(program, trainset=TRAINSET)
    (told,) = runs(kept)
    return told


def files(model: dict[str, Any]) -> dict[str, str]:
    return {name: base64.b64decode(text).decode() for name, text in model["files"].items()}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    return [text for text in told if "model" in text]


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        ([threading.Lock()], "program.thing[0]: it cannot be pickled"),
        (["x" * 1_000] * 1_000 + list(map(str, range(200_000))), "program: it holds more than 2,097,152 bytes"),
    ],
    ids=["a lock", "too large"],
)
def test_what_cannot_be_saved_is_said(
    thing: Any, why: str, logged: Kept, lm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says why; the compile's run is as it would be without, and no model is told of."""

    class Holding(Own):
        def compile(self, student: Any, *, trainset: Any, **kwargs: Any) -> Any:
            return Holds(thing)

    (told,) = compiled(logged, lm, lambda lm: Holding(exact).compile(QA(), trainset=TRAINSET), models=0)
    assert (told.status, told.models) == ("FINISHED", [])
    assert "programs/final.json" in told.files
    (warned,) = said(caplog)
    assert f"the compiled program is not logged as a model: {why}" in warned


def test_a_failed_compile_leaves_none(logged: Kept, lm: Any) -> None:
    """Neither does one that is interrupted, nor one whose optimizer returns no program."""

    class Nothing(Own):
        def compile(self, student: Any, *, trainset: Any, **kwargs: Any) -> Any:
            super().compile(student, trainset=trainset, **kwargs)
            return "no program"

    with dspy.context(lm=lm):
        for error in (ValueError("broken"), KeyboardInterrupt()):
            with pytest.raises(type(error)):
                Own(exact).compile(QA(), trainset=TRAINSET, error=error)
        assert Nothing(exact).compile(QA(), trainset=TRAINSET) == "no program"
    assert [run.models for run in runs(logged)] == [[]] * len(runs(logged))


def test_no_content_no_model(kept: Kept, lm: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Instructions and demos are content: where it is kept out, or changed on the way, nothing is logged."""
    for options in ({"capture_content": False}, {"redact": lambda value: value}):
        caplog.clear()
        dspy_trace.autolog(log_compiles=True, log_models=True, **options)
        with dspy.context(lm=lm):
            bootstrap(lm)
        assert said(caplog) == [
            "dspy-trace: log_models=True logs nothing where content is kept out or redact= is given"
        ]
    dspy_trace.autolog(disable=True)
    assert [run.models for run in runs(kept)] == [[], []]


def test_a_model_as_it_is_told(logged: Kept, lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, signature and requirements; no secret is among them."""
    key = "kept-apart-0123456789"
    monkeypatch.setenv("SEARCH_API_KEY", key)
    model = optimized(logged, lm, Holds({"api_key": key, "text": f"Bearer {key}"})).models[0]
    program = files(model)["data/program.json"]
    assert sorted(model["files"]) == ["data/program.json", "data/summary.json"]
    assert (model["name"], model["kind"], model["streams"]) == ("Holds", "state", True)
    assert [column["name"] for column in json.loads(model["signature"]["inputs"])] == ["question"]
    assert f"dspy=={dspy.__version__}" in model["requirements"]
    assert key not in program + files(model)["data/summary.json"]
    assert "SEARCH_API_KEY" in program


def test_a_model_is_as_the_compile_left_it(logged: Kept, lm: Any) -> None:
    """Whatever becomes of the program afterwards."""

    def changed(lm: Any) -> Any:
        program = bootstrap(lm)
        program.ask.demos = []
        return program

    (told,) = compiled(logged, lm, changed)
    assert '"answer": "yes"' in files(told.models[0])["data/summary.json"]
