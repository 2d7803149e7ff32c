"""How programs end, and what of their spans is in the spool then. Nothing is delivered here: no worker is started."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from dspy_trace.export.places import spool_file
from tests.delivery import environment, eventually
from tests.parts.mlflow_server import ROOT, end, free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the ends are those of POSIX")

BEGIN = """
import atexit, os, signal, sys, threading, time
handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
from opentelemetry.sdk.trace import TracerProvider
from dspy_trace.export.outlet import outlet
provider = TracerProvider()
outlet().join(provider)
tracer = provider.get_tracer("app")

def span(name):
    made = tracer.start_span(name)
    outlet().processor.keep(made.get_span_context(), {})
    made.end()

span("first")
assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
"""

SAY_AND_WAIT = "print('ready', flush=True); time.sleep(60)"

LATER = """
def work():
    time.sleep(0.5)
    span("last")
"""


def environ(folder: Path) -> dict[str, str]:
    """Return the environment of a program, whose traces go to a database that nobody writes."""
    ours = environment(folder, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db", DSPY_TRACE_EXIT_WAIT="0")
    return {**os.environ, **ours, "PYTHONPATH": str(ROOT)}


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    """Start a program."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program], cwd=folder, env=environ(folder), stdout=pipe, stderr=pipe, text=True
    )


def kept(folder: Path) -> list[str]:
    """Return the names of the spans in the spool."""
    path = spool_file(folder / "spool")
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone():
            return []  # it is being made
        payloads = db.execute("SELECT payload FROM batches ORDER BY id").fetchall()
    return sorted(row["name"] for (payload,) in payloads for row in orjson.loads(payload))


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("span('last')", 0),
        ("span('last'); sys.exit(3)", 3),
        ("span('last'); raise RuntimeError('of the program')", 1),
        ("span('last'); raise KeyboardInterrupt", -2),
        (LATER + "threading.Thread(target=work).start()", 0),
        (LATER + "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor(2).submit(work)", 0),
        ("atexit.register(span, 'last')", 0),
        ("provider.shutdown(); span('last')", 0),
        ("span('last')\nwhile outlet().processor.queued(): time.sleep(0.01)\nos._exit(0)", 0),
    ],
    ids=[
        "end of the script",
        "sys.exit",
        "unhandled exception",
        "interrupt",
        "a thread goes on",
        "a pool goes on",
        "atexit",
        "the provider is shut down",
        "os._exit, later",
    ],
)
def test_ends(program: str, status: int, tmp_path: Path) -> None:
    """However a program ends by itself, its last span is kept, and its status and handlers are its own."""
    process = start(program, tmp_path)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    if "provider.shutdown" not in program:  # the SDK gives no span to anybody after that
        assert kept(tmp_path) == ["first", "last"]
    else:
        assert kept(tmp_path)[0] == "first"


@pytest.mark.parametrize("how", ["as it is", "as an exit", "killed"])
def test_ended_from_outside(how: str, tmp_path: Path) -> None:
    """SIGTERM and SIGKILL leave what was handed over an interval before; where SIGTERM is made an exit, all of it."""
    wait = SAY_AND_WAIT
    if how == "as an exit":
        wait = f"signal.signal(signal.SIGTERM, lambda *told: (span('last'), sys.exit(0))); {SAY_AND_WAIT}"
    process = start(wait, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    eventually(lambda: kept(tmp_path) == ["first"], 30.0)
    process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == {"as it is": -15, "as an exit": 0, "killed": -9}[how]
    assert kept(tmp_path) == (["first", "last"] if how == "as an exit" else ["first"])


PREFORK = """
children = []
reading, writing = os.pipe()
for number in range(3):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, lambda *told: sys.exit(0))
        span(f"request of {number}")
        os.write(writing, b".")
        while True:
            time.sleep(60)
    children.append(child)
for child in children:
    os.read(reading, 1)
for child in children:
    os.kill(child, signal.SIGTERM)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
span("last")
"""


def test_a_server_that_forks_its_workers(tmp_path: Path) -> None:
    """As gunicorn does: the application is loaded and traced before the fork, and workers end by SIGTERM."""
    process = start(PREFORK, tmp_path)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert kept(tmp_path) == ["first", "last", *(f"request of {number}" for number in range(3))]


SERVICE = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    span("request of version {version}")
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"{version}"}})
"""


@pytest.mark.integration
def test_a_service_that_is_reloaded(tmp_path: Path) -> None:
    """As `uvicorn --reload` does when its source changes: what both processes have recorded is kept, each its own.

    They die of the SIGTERM that uvicorn raises once more, so that it is what was handed over an interval before.
    """
    port, source = free_port(), tmp_path / "service.py"
    source.write_text(BEGIN + SERVICE.format(version=1))
    command = [sys.executable, "-m", "uvicorn", "service:app", "--reload", "--lifespan", "off", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environ(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answer() -> bytes | None:
        try:
            with direct.open(f"http://127.0.0.1:{port}/", timeout=5) as found:
                told: bytes = found.read()
                return told
        except OSError:
            return None

    try:
        eventually(lambda: answer() == b"1", 60)
        eventually(lambda: "request of version 1" in kept(tmp_path))
        # Of another size: of one that is as old to the second and as large, Python would run the bytecode it has kept.
        source.write_text(BEGIN + SERVICE.format(version=2) + "\n\n")
        eventually(lambda: answer() == b"2", 60)
        eventually(lambda: "request of version 2" in kept(tmp_path))
    finally:
        end(process)
    names = kept(tmp_path)
    assert {"first", "request of version 1", "request of version 2"} <= set(names)
    assert names.count("first") == 2
