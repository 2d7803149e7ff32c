"""`dspy-trace ui`: addresses of a server; of a database, a server of its own that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from dspy_trace.commands import page, ui
from tests.delivery import lives
from tests.parts.project import until
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow
from tests.test_cli import Command, command, fails

__all__ = ["command"]

TRACE = "tr-" + "0a1b2c3d" * 4

INFO = {
    "trace_id": TRACE,
    "trace_location": {"mlflow_experiment": {"experiment_id": "7"}},
    "request_time": "2026-05-01T12:00:00Z",
    "state": "OK",
    "execution_duration": "1.5s",
    "tags": {"mlflow.traceName": "HelpDesk"},
    "request_preview": "Why?",
}
SPAN = {
    "trace_id": "0a1b2c3d" * 4,
    "span_id": "1" * 16,
    "name": "invoke_workflow HelpDesk",
    "start_time_unix_nano": "1777636800000000000",
    "end_time_unix_nano": "1777636801500000000",
    "attributes": [{"key": "input.value", "value": {"string_value": '{"question": "Why?"}'}}],
}
STORE = {
    "experiment": {"experiment_id": "7"},
    "experiments": [{"experiment_id": "7", "name": "Default"}],
    "traces": [INFO],
    "trace": {"trace_info": INFO, "spans": [SPAN]},
}
"""What a server answers that holds one trace, whatever it is asked."""


@pytest.fixture
def server(scripted_mlflow: ScriptedMlflow) -> ScriptedMlflow:
    """Give a server that holds one trace."""
    scripted_mlflow.fault = lambda request: Fault(200, json.dumps(STORE).encode())
    return scripted_mlflow


def test_a_server_has_its_page_already(command: Command, server: ScriptedMlflow) -> None:
    """Its address and that of the trace are printed; nothing is started."""
    result = command("ui", "--tracking-uri", server.url)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"MLflow's page  {server.url}",
        f"This trace     {server.url}/#/experiments/7/traces/{TRACE}",
    ]


def test_the_browser_is_opened_where_that_is_asked_for(
    command: Command, server: ScriptedMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not otherwise."""
    opened: list[str] = []
    monkeypatch.setattr(ui.click, "launch", opened.append)
    command("ui", "--tracking-uri", server.url)
    assert opened == []
    command("ui", "--open", "0a1b", "--tracking-uri", server.url)
    assert opened == [f"{server.url}/#/experiments/7/traces/{TRACE}"]


def test_a_port_that_is_busy() -> None:
    """It is said; MLflow's usual port gives way to any other, unless it is asked for."""
    with socket.create_server((page.HOST, 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(page.NoPage, match=f"port {port} cannot be used: .*--port"):
            page.free_port(port)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(page, "USUAL", port)
            assert page.free_port(None) != port


STUBBORN = """
import http.server, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    open("child", "w").write(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(os.environ["MLFLOW_BACKEND_STORE_URI"].encode())
while not os.path.exists("child"): time.sleep(0.01)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_no_process_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the server nor what it has started, though it ignores signals; its command line tells no secret."""
    monkeypatch.setattr(page, "ENDING", 0.2)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.setattr(page, "_command", lambda port: [sys.executable, "stubborn.py", str(port)])
    secret = "postgresql://me:hunter2@db/mlflow"
    with pytest.raises(KeyboardInterrupt), page.served(secret, tmp_path, page.free_port(None), 30) as process:
        child = int((tmp_path / "child").read_text())
        assert lives(child)
        assert "hunter2" not in " ".join(map(str, process.args))  # type: ignore[arg-type]
        raise KeyboardInterrupt
    assert process.poll() == -signal.SIGKILL
    until(lambda: not lives(child), 10)


def test_a_server_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said last is said."""
    monkeypatch.setattr(page, "_command", lambda port: [sys.executable, "-c", "raise SystemExit('no room\\n')"])
    with (
        pytest.raises(page.NoPage, match=r"MLflow's server did not start. It said: no room$"),
        page.served("sqlite:///x.db", tmp_path, page.free_port(None)),
    ):
        pass


def test_a_page_without_a_database(command: Command) -> None:
    """Nothing is started, and none is made."""
    assert fails(command("ui")).startswith(f"there is no database {Path.cwd()}/mlflow.db")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("words", [["--port", "0"], ["--port", "x"], ["--port", "70000"], ["a", "b"]])
def test_wrong_arguments(command: Command, words: list[str]) -> None:
    """Click says how the command is used; its code is 2."""
    assert command("ui", *words).exit_code == 2
