"""The flavor on the oldest and the newest Python, and on an older DSPy, each in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.parts.environments import ROOT, clean_environ, digest, uv

PAIRS = (("3.10", "3.1.3"), ("3.13", importlib.metadata.version("dspy")))

NEEDED = ("pytest", "numpy", "pandas", "mlflow-skinny")


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("python", "version"), PAIRS)
def test_saved_and_loaded(python: str, version: str) -> None:
    """What is loaded gives what was saved gave, and asks for the same bytes."""
    done = subprocess.run(
        [str(environment(python, version)), "-m", "tests.flavor.in_version"],
        cwd=ROOT,
        env={**clean_environ(), "LITELLM_LOCAL_MODEL_COST_MAP": "true", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"DSPy {version} on Python {python}: the same" in done.stdout


def environment(python: str, version: str) -> Path:
    """Return the Python of an environment with the checkout and that DSPy; make it if there is none."""
    if not (ROOT / "uv.lock").exists():
        pytest.skip("there is no checkout to install")
    cache = Path(os.environ.get("DSPY_TRACE_TEST_CACHE") or Path(tempfile.gettempdir()) / f"dspy-trace-{os.getuid()}")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"flavor-{python}-{version}-{digest(str(ROOT), (ROOT / 'pyproject.toml').read_text())}"
    if not (folder / "made").exists():
        interpreter = interpreter_of(python)
        uv("venv", "--clear", "--python", interpreter, folder)
        uv("pip", "install", "--python", folder / "bin" / "python", "--editable", ROOT, f"dspy=={version}", *NEEDED)
        (folder / "made").touch()
    return folder / "bin" / "python"


def interpreter_of(python: str) -> Path:
    """Return that Python, where this machine has it; skip the test where not."""
    versions = Path.home() / ".pyenv" / "versions"
    for found in [*versions.glob(f"{python}.*/bin/python"), *(Path(p) / f"python{python}" for p in os.get_exec_path())]:
        asked = (
            subprocess.run([str(found), "-c", "import venv"], capture_output=True, check=False)
            if found.exists()
            else None
        )
        if asked is not None and asked.returncode == 0:
            return found
    pytest.skip(f"there is no Python {python} on this machine")
