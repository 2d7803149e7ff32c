"""dspy-trace on older DSPys, and on the one that all other tests run on, each in an environment of its own.

The environments are kept in the folder that ``DSPY_TRACE_TEST_CACHE`` names, or else in the temporary one, so that a
second run is quick. They hold the checkout itself, not a copy.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

VERSIONS = ("2.6.24", "3.0.4", "3.1.3", "3.3.1", importlib.metadata.version("dspy"))

NOT_ON = {"2.6.24": (3, 13)}
"""The first Python that a version refuses to be installed on."""

NEEDED = ("pytest", "numpy")
"""What the programs need beside DSPy: the scripted LM is a pytest plugin, and DSPy's embedder needs numpy."""

OWN_PINS = ("dspy", "gepa")
"""Packages that a DSPy wants in versions of its own; all others are as the lock file has them."""

NO_REGISTRY = re.compile(
    r"error sending request|dns error|failed to lookup|connection refused|connect error|timed out|network|offline",
    re.IGNORECASE,
)
"""What uv says where it does not reach the registry."""


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_traces_are_as_they_should_be(version: str) -> None:
    """Every program gives its whole trace, and gives and asks what it does without tracing."""
    if sys.version_info >= NOT_ON.get(version, (4,)):
        pytest.skip(f"DSPy {version} cannot be installed on Python {sys.version_info[0]}.{sys.version_info[1]}")
    python = environment(version)
    done = subprocess.run(
        [str(python), "-m", "tests.versions.program"],
        cwd=ROOT,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"DSPy {version}: " in done.stdout


def environment(version: str) -> Path:
    """Return the Python of an environment with the checkout and that DSPy; make it if there is none."""
    if not (ROOT / "uv.lock").exists():
        pytest.skip("there is no checkout to install")
    cache = Path(os.environ.get("DSPY_TRACE_TEST_CACHE") or Path(tempfile.gettempdir()) / f"dspy-trace-{os.getuid()}")
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"dspy-{version}-{digest(str(ROOT), sys.version)}"
    made_of = digest(*NEEDED, *OWN_PINS, (ROOT / "pyproject.toml").read_text(), (ROOT / "uv.lock").read_text())
    if not (folder / made_of).exists():
        with tempfile.TemporaryDirectory(prefix=f"dspy-{version}-", dir=cache) as unfinished:
            build(version, Path(unfinished) / "new")
            (Path(unfinished) / "new" / made_of).touch()
            # Two runs may build the same one at once: either will do. What runs there needs none of its scripts, which
            # name the folder that it was made in.
            if folder.exists():
                folder.rename(Path(unfinished) / "old")
            (Path(unfinished) / "new").rename(folder)
    return folder / "bin" / "python"


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build(version: str, folder: Path) -> None:
    """Make the environment with uv."""
    locked = folder.parent / "locked.txt"
    without = [word for name in OWN_PINS for word in ("--no-emit-package", name)]
    options = ["--frozen", "--group", "test", "--no-emit-project", "--no-hashes", "--python", sys.executable, *without]
    uv("export", *options, "--output-file", locked)
    uv("venv", "--python", sys.executable, folder)
    wanted = ["--editable", ROOT, f"dspy=={version}", *NEEDED]
    uv("pip", "install", "--python", folder / "bin" / "python", "--constraint", locked, *wanted)


def uv(*arguments: str | Path) -> None:
    """Run uv in the checkout; skip the test where there is none, or no registry that it reaches."""
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
    assert done.returncode == 0, done.stderr


def clean_environ() -> dict[str, str]:
    """Return the environment without what names another Python, or sets up tracing."""
    names = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith(("OTEL_", "DSPY_", "COVERAGE_", "OPENAI_"))
    }
