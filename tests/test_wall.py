"""The wall between what happened, where we look and how it is spelled: what each module may import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dspy_trace

ROOT = Path(dspy_trace.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.name != "__main__.py"
)
WATCHED = ("dspy", "dspy_trace", "dspy_trace_flavor", "litellm", "mlflow", "openai", "opentelemetry")

API_ONLY = [
    "dspy_trace.events",
    "dspy_trace.instrumentor",
    "dspy_trace.metrics",
    "dspy_trace.settings",
    "dspy_trace.settings.metrics",
    *(name for name in MODULES if name.startswith("dspy_trace.observing")),
]
A_PROGRAM = "dspy_trace.demo.program"
ALONE = [
    name
    for name in MODULES
    if name in ("dspy_trace", "dspy_trace.facts", "dspy_trace.testing", A_PROGRAM, *API_ONLY)
    or name.startswith(("dspy_trace.points", "dspy_trace.vocab"))
]
TOGETHER = [name for name in MODULES if name not in ALONE]
"""Modules of which it is only asked what they do not import: one after the other, the first that does is named."""

# Each group of modules is imported in a process of its own, forked from one that has imported nothing that is watched.
IMPORTER = """
import asyncio, importlib, inspect, json, logging, os, sys, urllib.request, uuid
import orjson, typing_extensions, wrapt
watched = json.loads(sys.argv[1])
for group in sys.argv[2:]:
    if os.fork() == 0:
        for name in group.split():
            try:
                importlib.import_module(name)
                told = [module for module in sys.modules if module.partition(".")[0] in watched]
            except BaseException as error:
                told = repr(error)
            print(json.dumps([name, told]), flush=True)
        os._exit(0)
    os.wait()
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """For each module of the package: what is loaded of the watched packages once it has been imported."""
    command = [sys.executable, "-c", IMPORTER, json.dumps(WATCHED), *ALONE, " ".join(TOGETHER)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT.parent)
    assert ran.returncode == 0, ran.stderr
    told = dict(map(json.loads, ran.stdout.splitlines()))
    return {name: set(loaded) if isinstance(loaded, list) else {loaded} for name, loaded in told.items()}


def of(loaded: set[str], package: str) -> set[str]:
    """Return the modules of `package`, itself included."""
    return {name for name in loaded if name == package or name.startswith(f"{package}.")}


def test_every_module_was_imported(imports: dict[str, set[str]]) -> None:
    """The other tests look at all modules, whatever is added."""
    assert imports.keys() == set(MODULES)
    assert [name for name, loaded in imports.items() if name not in loaded] == [], imports
    assert {"dspy_trace.facts", "dspy_trace.points.table", "dspy_trace.vocab.genai"} <= imports.keys()
    assert "opentelemetry.sdk" in imports["dspy_trace.testing"]


def test_importing_the_package_is_next_to_nothing(imports: dict[str, set[str]]) -> None:
    """``import dspy_trace`` loads neither DSPy nor MLflow nor anything of OpenTelemetry."""
    assert imports["dspy_trace"] == {"dspy_trace", "dspy_trace._version"}


def test_facts_import_nothing_of_ours(imports: dict[str, set[str]]) -> None:
    """What happened is said in DSPy's words, and knows neither side of the wall."""
    assert imports["dspy_trace.facts"] == {"dspy_trace", "dspy_trace._version", "dspy_trace.facts"}


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("dspy_trace.points")])
def test_points_know_no_telemetry(name: str, imports: dict[str, set[str]]) -> None:
    """Where we look knows neither OpenTelemetry nor a vocabulary, and loads DSPy for nobody."""
    assert not of(imports[name], "opentelemetry")
    assert not of(imports[name], "dspy_trace.vocab")
    assert not of(imports[name], "dspy")


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("dspy_trace.vocab")])
def test_vocabularies_know_no_dspy(name: str, imports: dict[str, set[str]]) -> None:
    """How it is spelled knows neither DSPy nor where we look."""
    assert not of(imports[name], "dspy")
    assert not of(imports[name], "dspy_trace.points")


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_for_the_program(name: str, imports: dict[str, set[str]]) -> None:
    """DSPy is imported by the program alone, MLflow by nobody; the flavor needs us, never the reverse."""
    if name != A_PROGRAM:
        assert not of(imports[name], "dspy")
        assert not of(imports[name], "litellm")
        assert not of(imports[name], "openai")
    assert not of(imports[name], "mlflow")
    assert not of(imports[name], "dspy_trace_flavor")


@pytest.mark.parametrize("name", API_ONLY)
def test_the_instrumentation_needs_the_api_only(name: str, imports: dict[str, set[str]]) -> None:
    """Without an SDK there is nothing to record, so none is loaded."""
    assert not of(imports[name], "opentelemetry.sdk")
