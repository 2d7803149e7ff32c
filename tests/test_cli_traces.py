"""`dspy-trace ls` and `show`: filters, forms of output, readers that go away, and traces that are being written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dspy_trace.commands import stores
from dspy_trace.export.locks import ProcessLock
from dspy_trace.export.places import spool_file
from dspy_trace.export.spawn import lock_file
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from tests.delivery import eventually, trace
from tests.parts.mlflow_server import environment
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow
from tests.test_cli import Command, command, fails, put
from tests.test_page import STORE, TRACE, server

__all__ = ["command", "server"]


def searched(server: ScriptedMlflow) -> list[dict[str, Any]]:
    """Return what the server was asked to search for."""
    return [json.loads(one.body) for one in server.requests if one.path.endswith("/traces/search")]


@pytest.mark.parametrize(
    ("words", "condition"),
    [
        ([], None),
        (["--errors"], "trace.status = 'ERROR'"),
        (["--name", "Desk"], "trace.name = 'Desk'"),
        (["--name", "Help*"], "trace.name LIKE 'Help%'"),
        (["--name", "it's"], 'trace.name = "it\'s"'),
        (["--session", "chat-1", "--errors"], "trace.status = 'ERROR' AND metadata.`mlflow.trace.session` = 'chat-1'"),
        (["--since", "2026-05-01T00:00:00+00:00"], "trace.timestamp_ms >= 1777593600000"),
    ],
)
def test_filters_are_mlflows_search(command: Command, server: ScriptedMlflow, words: list[str], condition: str) -> None:
    """Each option narrows what the store is asked for."""
    result = command("ls", "--tracking-uri", server.url, "-n", "3", *words)
    assert result.exit_code == 0
    (asked,) = searched(server)
    assert asked.get("filter") == condition
    assert asked["max_results"] == 3


@pytest.mark.parametrize("text", ["1", "x", "2h ago", "nanh", "1e999d", "2026-13-01", ""])
def test_what_is_no_moment(command: Command, server: ScriptedMlflow, text: str) -> None:
    """It is refused without asking anybody."""
    result = command("ls", "--tracking-uri", server.url, "--since", text)
    assert result.exit_code == 2
    assert "is no moment: say 30m, 2h, 7d" in result.stderr
    assert server.requests == []


def test_what_mlflows_search_cannot_say(command: Command, server: ScriptedMlflow) -> None:
    """It is said, and not asked half."""
    for text in ("a'b\"c", "a\nb"):
        assert "MLflow's search cannot look for" in fails(command("ls", "--tracking-uri", server.url, "--name", text))
    assert searched(server) == []


def test_nothing_that_is_wanted(command: Command, server: ScriptedMlflow) -> None:
    """An empty list is no error, and says so."""
    server.fault = lambda request: Fault(200, json.dumps({**STORE, "traces": []}).encode())
    result = command("ls", "--tracking-uri", server.url, "--errors")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("There are no such traces in the experiment Default of")


def test_json(command: Command, server: ScriptedMlflow) -> None:
    """`ls` writes an object a line, `show` one with all that is known of each span."""
    (line,) = command("ls", "--json", "--tracking-uri", server.url).stdout.splitlines()
    assert json.loads(line)["trace_id"] == TRACE
    told = json.loads(command("show", "--json", "--tracking-uri", server.url).stdout)
    assert told["summary"]["name"] == "HelpDesk"
    assert told["spans"][0]["attributes"] == {"input.value": '{"question": "Why?"}'}


def test_content_is_shown_where_it_is_asked_for(command: Command, server: ScriptedMlflow) -> None:
    """And the tree keeps its bars out where they are not wanted."""
    plain = command("show", "--tracking-uri", server.url, COLUMNS="100").stdout.splitlines()
    assert plain[-1].endswith("━")
    told = command("show", "--content", "--no-bars", "--tracking-uri", server.url, COLUMNS="100").stdout.splitlines()
    assert told[-2:] == ["invoke_workflow HelpDesk  1.50 s", "  > question  Why?"]


def test_ids_are_whole_in_a_narrow_terminal(command: Command, server: ScriptedMlflow) -> None:
    """Above the tree, an id and an address go on in the next line."""
    above = command("show", "--tracking-uri", server.url, COLUMNS="20").stdout.partition("\n\n")[0]
    assert max(map(len, above.splitlines())) <= 20
    assert TRACE in above.replace("\n", "")
    assert server.url in above.replace("\n", "")


@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"], ["show"], ["show", "--content"], ["show", "--json"]])
def test_nobody_reads_any_more(server: ScriptedMlflow, tmp_path: Path, words: list[str]) -> None:
    """As with `| head -1` there is no traceback, and the code is not 0."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "dspy_trace.cli", *words, "--tracking-uri", server.url],
        env=environment(DSPY_TRACE_SPOOL_DIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("colours", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_for_who_wants_none(command: Command, server: ScriptedMlflow, colours: dict[str, str]) -> None:
    """A pipe, NO_COLOR and a dumb terminal get plain text."""
    for words in (["ls"], ["show"], ["doctor"]):
        assert "\x1b" not in command(*words, "--tracking-uri", server.url, **colours).stdout


def written(folder: Path) -> Target:
    """Leave something in the spool for the database of this folder; return where it goes."""
    place = Target(f"sqlite:///{Path.cwd()}/mlflow.db")
    put(folder, trace(place))
    return place


def test_what_is_being_written_is_waited_for(command: Command, tmp_path: Path) -> None:
    """While a worker runs, who looks right after the program waits until what there was has arrived."""
    written(tmp_path)
    spool = Spool(spool_file(tmp_path / "spool"))
    spool.open()
    with spool.writing() as db:
        db.execute("INSERT INTO workers VALUES ('shared', 'running', 0)")
    worker = ProcessLock(lock_file(tmp_path / "spool", "shared"))
    assert worker.acquire()
    said: list[str] = []
    looking = threading.Thread(target=lambda: said.append(fails(command("ls"))))
    looking.start()
    looking.join(0.5)
    assert looking.is_alive()
    with spool.writing() as db:
        db.execute("DELETE FROM batches")
    looking.join(20)
    assert not looking.is_alive()
    assert said[0].startswith("there is no database")
    assert "on the way" not in said[0]
    worker.release()
    spool.close()


def test_what_nobody_writes_is_not_waited_for(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has died would keep the person for ever."""
    monkeypatch.setattr(stores, "LOOK", 60.0)
    written(tmp_path)
    spool = Spool(spool_file(tmp_path / "spool"))
    spool.open()
    with spool.writing() as db:
        db.execute("INSERT INTO workers VALUES ('shared', 'running', 0)")
    spool.close()
    eventually(lambda: "3 spans are on the way there" in fails(command("ls")), 20)
