"""The table of faults, and what is behind the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import Audit, Board, board_key
from tests.parts.faulty_proxy import FaultyProxy
from tests.parts.scripted_mlflow import ScriptedMlflow


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether the long form was asked for: ``pytest tests/faults --all``."""
    return bool(request.config.getoption("--all"))


@pytest.fixture
def audit(request: pytest.FixtureRequest) -> Audit:
    """Give what settles accounts and writes the table."""
    return Audit(request.config.stash.setdefault(board_key, Board()))


@pytest.fixture
def proxy(scripted_mlflow: ScriptedMlflow) -> Iterator[FaultyProxy]:
    """Give the proxy in front of a recording server."""
    made = FaultyProxy(scripted_mlflow.url)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give the folder of a program."""
    return tmp_path


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table."""
    board = config.stash.get(board_key, None)
    if board is not None and board.rows:
        terminalreporter.section("faults")
        for line in board.lines():
            terminalreporter.write_line(line)
