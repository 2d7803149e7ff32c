"""Where DSPy is missing, too old, of a version of its own, or no longer has what we look at: nothing breaks."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import dspy
import pytest
from dspy.clients import execution
from dspy.clients.cache import Cache
from dspy.dsp import colbertv2
from opentelemetry.instrumentation.dependencies import DependencyConflictError

import dspy_trace
from dspy_trace import DSPyInstrumentor
from dspy_trace.testing import record
from tests.parts.scripted_lm import ScriptedLM

PROGRAM = """
import logging, sys
from dspy_trace import DSPyInstrumentor
logging.basicConfig(format="%(levelname)s %(message)s")
instrumentor = DSPyInstrumentor()
instrumentor.instrument()
print("instrumented:", instrumentor.is_instrumented_by_opentelemetry)
try:
    import dspy.primitives.module as host
    print("patched:", type(vars(host.Module)["__call__"]).__name__)
except ImportError:
    print("patched: no DSPy")
instrumentor.uninstrument()
"""

OLD_DSPY = "class Module:\n    def __call__(self, **inputs):\n        return self.forward(**inputs)\n"

ANSWERED = """
invoke_workflow Predict
  chat gpt-4o-mini
"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Give a folder of all installed packages but DSPy."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for kind in ("purelib", "platlib"):
        for found in Path(sysconfig.get_paths()[kind]).iterdir():
            if found.name != "dspy" and not found.name.startswith("dspy-") and not (folder / found.name).exists():
                (folder / found.name).symlink_to(found)
    if not (folder / "dspy_trace").exists():  # a development install is no package there
        (folder / "dspy_trace").symlink_to(Path(dspy_trace.__file__).parent)
    return folder


def install(folder: Path, version: str) -> None:
    """Say in `folder` that DSPy of `version` is installed."""
    told = folder / f"dspy-{version.replace(' ', '_')}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dspy\nVersion: {version}\n")


def run(packages: Path) -> tuple[list[str], list[str]]:
    """Instrument in a process that sees only `packages`; return the lines that it prints and those that it logs."""
    # Without site, no installed package is seen but those.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys\nsys.path.insert(0, {str(packages)!r})\n{PROGRAM}"],
        cwd=packages,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE_"))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_a_missing_dspy_is_said_once_and_how_to_get_it(packages: Path) -> None:
    """`instrument()` raises nothing where there is no DSPy; the one message has the remedy."""
    printed, logged = run(packages)
    assert printed == ["instrumented: False", "patched: no DSPy"]
    said = [line for line in logged if "dspy-trace" in line]
    assert len(said) == 1 and said[0].startswith("WARNING ")
    assert "not installed" in said[0] and "pip install 'dspy>=2.6.24'" in said[0]


def test_a_dspy_that_is_too_old_is_said_once_and_left_alone(packages: Path) -> None:
    """Nothing of an unsupported DSPy is patched; the one message names its version and the remedy."""
    install(packages, "2.6.23")
    (packages / "dspy" / "primitives").mkdir(parents=True)
    (packages / "dspy" / "__init__.py").touch()
    (packages / "dspy" / "primitives" / "__init__.py").touch()
    (packages / "dspy" / "primitives" / "module.py").write_text(OLD_DSPY)
    printed, logged = run(packages)
    assert printed == ["instrumented: False", "patched: function"]
    said = [line for line in logged if "dspy-trace" in line]
    assert len(said) == 1 and said[0].startswith("WARNING ")
    assert "DSPy 2.6.23 is older than 2.6.24" in said[0] and "pip install --upgrade 'dspy>=2.6.24'" in said[0]


def test_zero_code_is_told_of_a_conflict_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where OpenTelemetry asks for an exception, to log it itself, it gets one, and we log nothing."""
    install(tmp_path, "2.6.23")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.DEBUG), pytest.raises(DependencyConflictError, match=r"2\.6\.23"):
        DSPyInstrumentor().instrument(raise_exception_on_conflict=True)
    assert [record for record in caplog.records if record.name == "dspy_trace"] == []


@pytest.mark.parametrize("version", ["3.4.1.dev0", "3.5.0rc1", "3.4.1+ours.2", "4.0", "main-abc123!", "", "2.6.24"])
def test_an_odd_version_is_traced(
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scripted_lm: ScriptedLM,
) -> None:
    """Candidates, builds of one's own and versions that are none are traced, without a word."""
    install(tmp_path, version)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("dspy") == version
    with record() as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.Predict("question -> answer")(question="one")
    assert trace.tree() == ANSWERED
    assert [record for record in caplog.records if record.name == "dspy_trace"] == []


@pytest.mark.parametrize(("version", "before"), [("2.6.24", True), ("3.4.1", False), ("main-abc123!", False)])
def test_a_version_that_says_nothing_counts_as_the_newest(
    version: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only old versions have is looked for in those alone."""
    install(tmp_path, version)
    monkeypatch.syspath_prepend(tmp_path)
    plain = vars(Cache)["get"]
    with record():
        assert (vars(Cache)["get"] is not plain) is before
    assert vars(Cache)["get"] is plain


@contextmanager
def without(module: ModuleType, names: Sequence[str]) -> Iterator[None]:
    """Take names out of a module of DSPy's for as long as the block lasts."""
    taken = {name: vars(module)[name] for name in names}
    for name in names:
        delattr(module, name)
    try:
        yield
    finally:
        for name, value in taken.items():
            setattr(module, name, value)


def facts_without(module: ModuleType, names: Sequence[str], scripted_lm: ScriptedLM) -> dict[str, Any]:
    """Return what is told of an LM call where `module` has no `names` when it is patched."""
    plain = {name: vars(module)[name] for name in names}
    with ExitStack() as stack:
        with without(module, names):
            trace = stack.enter_context(record())
        with dspy.context(lm=scripted_lm.lm(temperature=0.5)):
            dspy.Predict("question -> answer")(question="one")
        assert trace.tree() == ANSWERED
    assert {name: vars(module)[name] for name in names} == plain
    return dict(trace.one("chat gpt-4o-mini").attributes or {})


REQUEST = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.request.temperature": 0.5,
    "dspy.lm.class": "LM",
    "server.address": "127.0.0.1",
}

FROM_ATTEMPT = {"dspy.lm.engine", "dspy.lm.requests", "dspy.lm.retries"}

FROM_FINALIZE = {
    "dspy.lm.cache_hit",
    "dspy.lm.cost",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
}


@pytest.mark.parametrize(
    ("module", "names", "told"),
    [
        (execution, ["finalize"], FROM_ATTEMPT),
        (execution, ["_attempt", "_aattempt"], FROM_FINALIZE),
        (execution, ["finalize", "_attempt", "_aattempt", "checked_stream", "achecked_stream"], set()),
        (colbertv2, ["ColBERTv2"], FROM_ATTEMPT | FROM_FINALIZE),
    ],
)
def test_a_name_that_is_gone_takes_only_its_own_facts_along(
    module: ModuleType, names: list[str], told: set[str], scripted_lm: ScriptedLM
) -> None:
    """Where DSPy has renamed what we look into, the trace lacks those facts and nothing else."""
    facts = facts_without(module, names, scripted_lm)
    assert facts.pop("server.port") == int(scripted_lm.url.split(":")[2].split("/")[0])
    assert {key: facts.pop(key) for key in REQUEST} == REQUEST
    assert set(facts) == told
