"""What every test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dspy_trace import guard
from dspy_trace.instrumentor import DSPyInstrumentor

# DSPy asks the network for model prices when it first needs one, and waits for the answer; its bundled list is enough.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

# What another one imports comes before it: pytest explains no assert of a module that it finds imported.
pytest_plugins = [
    "tests.parts.collector",
    "tests.parts.lm",
    "tests.parts.mlflow_server",
    "tests.parts.scripted_lm",
    "tests.parts.scripted_mlflow",
    "tests.parts.project",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what asks for the long form of the faults."""
    parser.addoption("--all", action="store_true", help="run tests/faults in their long form: about half an hour")


@pytest.fixture(autouse=True)
def nothing_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the guard would swallow fails the test, and no test leaves DSPy instrumented."""
    monkeypatch.setattr(guard, "strict", True)
    guard.failures.clear()
    yield
    if DSPyInstrumentor().is_instrumented_by_opentelemetry:
        DSPyInstrumentor().uninstrument()
        pytest.fail("the test left DSPy instrumented")
