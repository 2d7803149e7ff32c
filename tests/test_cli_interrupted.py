"""Ctrl-C while a command waits for a server that takes connections and says nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.parts.mlflow_server import environment
from tests.parts.project import share, until

COMMANDS = {
    "ls": ["ls"],
    "show": ["show", "tr-0123456789abcdef0123456789abcdef"],
    "flush": ["flush", "--timeout", "60"],
    "doctor": ["doctor"],
    "watch": ["watch"],
}

RUN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from dspy_trace.cli import main; sys.argv[0] = 'dspy-trace'; main()"
)

SPAN = """
import os, dspy, dspy_trace
from dspy.utils import DummyLM
dspy_trace.autolog()
dspy.configure(lm=DummyLM([{"answer": "yes"}]))
dspy.Predict("question -> answer")(question="?")
dspy_trace.shutdown(0.5)
"""


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_ctrl_c(tmp_path: Path, words: list[str]) -> None:
    """It ends at once with one line, a code that is not 0, and no process of its own left behind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = environment(
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{server.getsockname()[1]}",
            DSPY_TRACE_SPOOL_DIR=str(tmp_path / "spool"),
        )
        if words[0] == "flush":
            subprocess.run([sys.executable, "-c", SPAN], cwd=tmp_path, env=environ, check=True, capture_output=True)
            server.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()
        server.settimeout(60 * share())
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *words],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        held, _ = server.accept()
        with held:
            process.send_signal(signal.SIGINT)
            until(lambda: process.poll() is not None, 10)
    _, err = process.communicate()
    assert (err.strip().splitlines()[-1:], process.returncode) == (["Aborted!"], 1)
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
