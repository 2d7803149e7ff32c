"""The flavor in MLflow's own hands: saved, logged, loaded, asked, evaluated; in processes that import mlflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import mlflow_server

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_with_mlflow(tmp_path: Path) -> None:
    """All checks hold. They run apart from the other tests, none of which may find mlflow imported."""
    checks = map(str, sorted(Path(__file__).parent.glob("checks_*.py")))
    command = [sys.executable, "-m", "pytest", *checks, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=mlflow_server.environment(DSPY_CACHEDIR=str(tmp_path / "cache")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
