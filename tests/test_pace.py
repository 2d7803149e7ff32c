"""A program that computes keeps its event loop, and we get done: who lets go of the interpreter when."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_trace
from dspy_trace.export import pace
from dspy_trace.export.items import Settled
from dspy_trace.export.many import insert
from dspy_trace.export.pace import in_turns
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from tests.delivery import trace
from tests.outlets import Kept, dummy, kept  # noqa: F401  # a fixture

SERVER = Target("http://127.0.0.1:9")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the pauses that are made, and make none."""
    made: list[float] = []
    monkeypatch.setattr(pace, "sleep", made.append)
    return made


@pytest.mark.parametrize(
    ("number", "every", "times"), [(0, 1, 0), (1, 1, 0), (5, 1, 4), (9, 4, 2), (256, 1, 255), (257, 1, 0)]
)
def test_few_items_are_done_in_turns(pauses: list[float], number: int, every: int, times: int) -> None:
    """None is lost; there is a pause between them, never after the last; and none for so many that we would lag."""
    assert list(in_turns(range(number), every)) == list(range(number))
    assert len(pauses) == times
    assert all(0 < pause <= 0.001 for pause in pauses)


def test_many_rows_take_few_statements(tmp_path: Path) -> None:
    """Each statement may wait for five milliseconds, and the next who has something to write for all of them."""
    one, statements = Spool(tmp_path / "spool.db"), set[str]()
    with one.writing() as db:
        # With its values, and once more for each row that has a trigger.
        db.set_trace_callback(statements.add)
    one.put([trace(SERVER, info={"run_id": "r"}) for _ in range(300)], "me")
    assert len(statements) <= 10
    ((number, _, _, _),) = one.targets()
    statements.clear()
    heads = one.heads(number, SERVER, "me", 100)
    taken = one.take(heads, "me")
    one.settle(number, Settled(taken, infos=[(batch.trace_id, b"{}", batch.owner) for batch in taken]))
    followups = one.followups(number, SERVER, "me", 60)
    assert (len(heads), len(taken), len(followups)) == (100, 100, 60)
    assert len(statements) <= 20


@pytest.mark.parametrize("number", [0, 1, 449, 450, 451, 2_000])
def test_rows_of_any_number_are_inserted(tmp_path: Path, number: int) -> None:
    """A statement takes as many as it may."""
    one = Spool(tmp_path / "spool.db")
    with one.writing() as db:
        db.execute("CREATE TABLE pairs (a, b)")
        insert(db, "INSERT INTO pairs (a, b)", [(index, str(index)) for index in range(number)])
    assert one.read("SELECT a, b FROM pairs ORDER BY a") == [(index, str(index)) for index in range(number)]


def test_who_is_ahead_of_us_is_not_held_up(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is asked for with each trace, but not while spans wait: asking lets go of the interpreter."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    dspy_trace.autolog()
    asked: list[str] = []
    getcwd = os.getcwd

    def counting() -> str:
        asked.append(getcwd())
        return asked[-1]

    monkeypatch.setattr(os, "getcwd", counting)

    def call() -> None:
        with dspy.context(lm=dummy()):
            dspy.Predict("question -> answer")(question="?")

    call()
    call()
    assert len(asked) == 2
    out: Any = kept.out
    monkeypatch.setattr(out.processor, "lags", lambda: True)
    call()
    assert len(asked) == 2
    assert len({uri for uri, _ in kept.targets()}) == 1
