"""The flavor on the oldest and the newest Python and DSPy, each in an environment of its own."""

from __future__ import annotations

import importlib.metadata

import pytest

from tests.parts.environments import environment, interpreter_of, run

PAIRS = (("3.10", "2.6.24"), ("3.13", importlib.metadata.version("dspy")))

NEEDED = ("pytest", "numpy", "pandas", "mlflow-skinny")


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("python", "version"), PAIRS)
def test_saved_and_loaded(python: str, version: str) -> None:
    """What is loaded gives what was saved gave, and asks for the same bytes."""
    made = environment(f"dspy=={version}", *NEEDED, python=interpreter_of(python), locked=False)
    assert f"DSPy {version} on Python {python}: the same" in run(made, "-m", "tests.flavor.in_version")
