"""Python environments of their own, made by uv: for other versions of DSPy, and for programs that ours cannot hold.

    python = environment("dspy==3.1.3")
    assert "DSPy 3.1.3: " in run(python, "-m", "tests.versions.program")

They are kept in the folder that ``DSPY_TRACE_TEST_CACHE`` names, or else in the temporary one, so that a second run is
quick.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OWN_PINS = ("dspy", "gepa")
"""Packages that a DSPy wants in versions of its own; all others are as the lock file has them."""

NO_REGISTRY = re.compile(
    r"error sending request|dns error|failed to lookup|connection refused|connect error|timed out|network|offline",
    re.IGNORECASE,
)
"""What uv says where it does not reach the registry."""

NOT_FOR_THIS = re.compile(r"No solution found|no wheels with a matching|doesn't have a source distribution")
"""What uv says where there is none for this Python or this machine."""


def kept(name: str, made_of: str, build: Callable[[Path], None]) -> Path:
    """Return the folder of an environment, which `build` makes if there is none that was made of the same."""
    cache = Path(os.environ.get("DSPY_TRACE_TEST_CACHE") or Path(tempfile.gettempdir()) / f"dspy-trace-{os.getuid()}")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{digest(str(ROOT), sys.version)}"
    if not (folder / made_of).exists():
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache) as unfinished:
            build(Path(unfinished) / "new")
            (Path(unfinished) / "new" / made_of).touch()
            # Two runs may build the same one at once: either will do. What runs there needs none of its scripts, which
            # name the folder that it was made in.
            if folder.exists():
                folder.rename(Path(unfinished) / "old")
            (Path(unfinished) / "new").rename(folder)
    return folder


def installed(requirement: str) -> Path:
    """Return the ``bin`` folder of an environment with one package; skip the test where it cannot be had."""

    def build(folder: Path) -> None:
        uv("venv", "--python", sys.executable, folder)
        uv("pip", "install", "--python", folder / "bin" / "python", "--no-build", requirement)

    return kept(requirement.replace("==", "-"), digest(requirement), build) / "bin"


def environment(*wanted: str, python: str | Path = sys.executable, checkout: bool = True, locked: bool = True) -> Path:
    """Return the Python of an environment with the checkout itself, not a copy, and with what is wanted.

    Args:
        *wanted: what is installed, such as ``dspy==3.1.3``.
        python: the Python that it is made of.
        checkout: install the checkout, too.
        locked: everything else in the versions of the lock file, except what a DSPy wants in its own.
    """
    if not (ROOT / "uv.lock").exists():
        pytest.skip("there is no checkout to install")

    def build(folder: Path) -> None:
        options: list[str | Path] = _constraints(folder.parent / "locked.txt") if locked else []
        options += ["--editable", ROOT] if checkout else []
        uv("venv", "--python", python, folder)
        uv("pip", "install", "--python", folder / "bin" / "python", *options, *wanted)

    made_of = digest(*OWN_PINS, (ROOT / "pyproject.toml").read_text(), (ROOT / "uv.lock").read_text())
    name = f"{wanted[0].replace('==', '-')}-{digest(*wanted, str(python), str(checkout), str(locked))}"
    return kept(name, made_of, build) / "bin" / "python"


def _constraints(file: Path) -> list[str | Path]:
    without = [word for name in OWN_PINS for word in ("--no-emit-package", name)]
    options = ["--frozen", "--group", "test", "--no-emit-project", "--no-hashes", "--python", sys.executable]
    uv("export", *options, *without, "--output-file", file)
    return ["--constraint", file]


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def uv(*arguments: str | Path) -> None:
    """Run uv in the checkout; skip the test where there is none, or what is wanted cannot be had."""
    found = shutil.which("uv")
    command = [found] if found else [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else None
    if command is None:
        pytest.skip("uv is not installed")
    done = subprocess.run(
        [*command, "--quiet", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode and NO_REGISTRY.search(done.stderr):
        pytest.skip(f"the package registry is not reached: {done.stderr.strip().splitlines()[-1]}")
    if done.returncode and "--no-build" in arguments and NOT_FOR_THIS.search(done.stderr):
        pytest.skip(f"{arguments[-1]} cannot be installed here: {' '.join(done.stderr.split())}")
    assert done.returncode == 0, done.stderr


def run(python: str | Path, *arguments: str, folder: Path = ROOT, **environ: str) -> str:
    """Run Python in a folder, the checkout by default; return what it said, or fail the test if it fails."""
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env={**clean_environ(), **quiet, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def clean_environ() -> dict[str, str]:
    """Return the environment without what names another Python, or sets up tracing."""
    names = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith(("OTEL_", "DSPY_", "COVERAGE_", "OPENAI_"))
    }


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
