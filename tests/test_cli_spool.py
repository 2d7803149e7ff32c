"""`dspy-trace stats` and `dspy-trace dead-letters`: looking into the spool, and deciding on what was refused."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from dspy_trace.export import drain
from dspy_trace.export.places import spool_file
from dspy_trace.export.target import Target
from tests.delivery import delivering, environment, eventually, trace
from tests.parts.scripted_mlflow import POISON, ScriptedMlflow
from tests.test_cli import Command, command, fails, put

__all__ = ["command"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries."""
    monkeypatch.setattr(drain, "FIRST", 0.02)
    monkeypatch.setattr(drain, "LONGEST", 0.1)


@pytest.fixture
def refused(scripted_mlflow: ScriptedMlflow, tmp_path: Path) -> ScriptedMlflow:
    """Give a server that has refused two spans of nine for good."""
    target = Target(scripted_mlflow.url)
    with delivering(environment(tmp_path)) as delivery:
        delivery.put([trace(target), *(trace(target, **{POISON: 422}) for _ in range(2))])
        eventually(lambda: not delivery.waits())
    return scripted_mlflow


WORDS = [["stats"], ["dead-letters"], ["dead-letters", "list"], ["dead-letters", "drop", "--all"]]


@pytest.mark.parametrize("words", WORDS)
def test_a_spool_that_cannot_be_used(command: Command, words: list[str]) -> None:
    """One of a newer version is said, and left alone."""
    file = spool_file(Path(os.environ["DSPY_TRACE_SPOOL_DIR"]))
    file.parent.mkdir()
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "newer dspy-trace" in fails(command(*words))


@pytest.mark.parametrize("words", WORDS[:3])
def test_no_spool(command: Command, words: list[str]) -> None:
    """Looking makes none."""
    result = command(*words)
    assert result.exit_code == 0
    assert "Nothing waits" in result.stdout or "no dead letters" in result.stdout
    assert not Path(os.environ["DSPY_TRACE_SPOOL_DIR"]).exists()


@pytest.mark.parametrize("what", ["replay", "drop"])
def test_which_is_meant_must_be_said(command: Command, refused: ScriptedMlflow, what: str) -> None:
    """By number or by `--all`, and not by both; an unknown number does nothing to the others."""
    for words in ([], ["1", "--all"]):
        result = command("dead-letters", what, *words)
        assert result.exit_code == 2
        assert "--all" in result.stderr
    assert "no dead letter 77" in fails(command("dead-letters", what, "1", "77"))
    assert "no dead letter 77" in fails(command("dead-letters", "show", "77"))
    assert len(command("dead-letters").stdout.splitlines()) == 3


def test_dead_letters_are_listed_and_shown(command: Command, refused: ScriptedMlflow) -> None:
    """Each with its trace, its target and the server's words; and all that was in it."""
    head, first, _ = command("dead-letters", "list").stdout.splitlines()
    assert head.split() == ["number", "age", "what", "trace", "target", "reason"]
    shown = json.loads(command("dead-letters", "show", "1").stdout)
    assert (shown[0]["name"], shown[0]["attributes"][POISON]) == ("program", 422)
    for text in ("1 span", shown[0]["trace_id"], refused.url, "422"):
        assert text in first


def test_dead_letters_are_replayed_and_dropped(command: Command, refused: ScriptedMlflow, tmp_path: Path) -> None:
    """A replayed one waits like any other; a dropped one is counted; the accounts add up all along."""
    told = json.loads(command("stats", "--json").stdout)
    assert (told["delivered"], told["dead"], told["dropped"]) == (7, 2, {})
    assert command("dead-letters", "drop", "1").stdout == "1 dead letter dropped.\n"
    assert command("dead-letters", "replay", "--all").stdout == (
        "1 dead letter put back. `dspy-trace flush` delivers it.\n"
    )
    told = json.loads(command("stats", "--json").stdout)
    assert (told["delivered"], told["dead"], told["dropped"]) == (7, 0, {"dead letter": 1})
    assert [(one["uri"], one["spans"]) for one in told["waiting"]] == [(refused.url, 1)]
    again = command("flush")  # it is as bad as it was
    assert "1 span refused for good" in again.stderr
    assert json.loads(command("stats", "--json").stdout)["dead"] == 1


def test_stats_say_what_waits_for_whom_and_why(command: Command, tmp_path: Path) -> None:
    """A line for each target that something waits for, with the last error; a dead server's is its refusal."""
    put(tmp_path, trace(Target("http://127.0.0.1:9")))
    put(tmp_path, trace(Target("http://127.0.0.1:10")), trace(Target("http://127.0.0.1:10", "7")))
    command("flush", "--timeout", "0.3")
    head, ten, nine, total = command("stats").stdout.splitlines()
    assert head.split() == ["target", "waiting", "size", "oldest", "notes", "dead", "problem"]
    assert ten.split()[:2] == ["http://127.0.0.1:10", "6"]
    assert nine.split()[:2] == ["http://127.0.0.1:9", "3"]
    assert "Start the server" in nine
    assert total == "0 spans delivered, 0 dead, 0 dropped."
