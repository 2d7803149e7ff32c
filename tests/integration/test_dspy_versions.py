"""dspy-trace on older DSPys, and on the one that all other tests run on, each in an environment of its own.

The environments hold the checkout itself, not a copy.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.parts.environments import ROOT, clean_environ, digest, kept, uv

VERSIONS = ("2.6.24", "3.0.4", "3.1.3", "3.3.1", importlib.metadata.version("dspy"))

NOT_ON = {"2.6.24": (3, 13)}
"""The first Python that a version refuses to be installed on."""

NEEDED = ("pytest", "numpy")
"""What the programs need beside DSPy: the scripted LM is a pytest plugin, and DSPy's embedder needs numpy."""

OWN_PINS = ("dspy", "gepa")
"""Packages that a DSPy wants in versions of its own; all others are as the lock file has them."""


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
    made_of = digest(*NEEDED, *OWN_PINS, (ROOT / "pyproject.toml").read_text(), (ROOT / "uv.lock").read_text())
    return kept(f"dspy-{version}", made_of, partial(build, version)) / "bin" / "python"


def build(version: str, folder: Path) -> None:
    """Make the environment with uv."""
    locked = folder.parent / "locked.txt"
    without = [word for name in OWN_PINS for word in ("--no-emit-package", name)]
    options = ["--frozen", "--group", "test", "--no-emit-project", "--no-hashes", "--python", sys.executable, *without]
    uv("export", *options, "--output-file", locked)
    uv("venv", "--python", sys.executable, folder)
    wanted = ["--editable", ROOT, f"dspy=={version}", *NEEDED]
    uv("pip", "install", "--python", folder / "bin" / "python", "--constraint", locked, *wanted)
