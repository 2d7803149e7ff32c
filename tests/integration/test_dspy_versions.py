"""dspy-trace on older DSPys, and on the one that all other tests run on, each in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

from tests.parts.environments import environment, run

VERSIONS = ("2.6.24", "3.0.4", "3.1.3", "3.3.1", importlib.metadata.version("dspy"))

NOT_ON = {"2.6.24": (3, 13)}
"""The first Python that a version refuses to be installed on."""

NEEDED = ("pytest", "numpy")
"""What the programs need beside DSPy: the scripted LM is a pytest plugin, and DSPy's embedder needs numpy."""


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_traces_are_as_they_should_be(version: str) -> None:
    """Every program gives its whole trace, and gives and asks what it does without tracing."""
    if sys.version_info >= NOT_ON.get(version, (4,)):
        pytest.skip(f"DSPy {version} cannot be installed on Python {sys.version_info[0]}.{sys.version_info[1]}")
    python = environment(f"dspy=={version}", *NEEDED)
    assert f"DSPy {version}: " in run(python, "-m", "tests.versions.program")
