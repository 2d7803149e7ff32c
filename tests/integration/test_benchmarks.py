"""The benchmarks that the README names run, and say what they measured; how much that was is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.parts.mlflow_server import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def ran(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
    )
    return done.stdout


def test_overhead() -> None:
    """Ours and the same by hand record the same spans, or nothing is measured."""
    told = json.loads(ran("benchmarks.overhead", "--rounds", "1", "--calls", "3", "--json"))
    assert told["spans a call"] == 4
    assert set(told["added us a call"]) == {"by hand", "dspy-trace", "dspy-trace, not sampled", "dspy-trace, no SDK"}


def test_durability() -> None:
    """Each durability has its turn."""
    told = json.loads(ran("benchmarks.durability", "--rounds", "1", "--spans", "50", "--json"))
    assert set(told) == {"async", "sync", "none"}


def test_secrets() -> None:
    """A line for each size, beneath the head."""
    assert len(ran("benchmarks.secrets", "--rounds", "1").splitlines()) == 7
