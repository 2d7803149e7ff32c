"""MLflow's own page on a tracking database: its server, in processes that end with the block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from dspy_trace.export.spawn import environment
from dspy_trace.settings import BACKEND_STORE
from dspy_trace.settings.surroundings import PAGE_SETS

HOST = "127.0.0.1"

USUAL = 5000
"""MLflow's usual port."""

ENDING = 5.0
"""Seconds that the server gets to end by itself."""

LOOK = 0.1


class NoPage(Exception):
    """The page cannot be shown; the message says why, and what to do, in one line."""


def free_port(wanted: int | None) -> int:
    """Return the port that is wanted, by default MLflow's usual one if that is free, else any.

    Raises:
        NoPage: the port that is wanted is not free.
    """
    reason = ""
    for port in (USUAL, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            if os.name == "posix":  # elsewhere it would take a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                reason = error.strerror or str(error)
                continue
            return int(probe.getsockname()[1])
    raise NoPage(f"port {wanted} cannot be used: {reason}. Say another --port, or none to have one chosen")


@contextmanager
def served(uri: str, folder: Path, port: int, start_timeout: float = 180.0) -> Generator[subprocess.Popen[bytes]]:
    """Serve MLflow's page on a port of this machine, for this machine alone.

    Args:
        uri: tracking URI of the database, with what opens it; it is on no command line.
        folder: working folder: relative places of artifacts are meant from there.
        port: where.
        start_timeout: seconds until it must answer. It takes 5 to 20 on a quiet machine.

    Raises:
        NoPage: it did not come up.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _command(port),
            cwd=folder,
            env={**environment(None), **PAGE_SETS, BACKEND_STORE: uri},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(f"http://{HOST}:{port}/health", process, log, start_timeout)
            yield process
        finally:
            _end(process)


def _command(port: int) -> list[str]:
    # -P: what lies in the folder is not imported (Python 3.11).
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    server = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, *safe, *server]


def _wait_for(address: str, process: subprocess.Popen[bytes], log: IO[bytes], timeout: float) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = monotonic() + timeout
    while process.poll() is None and monotonic() < deadline:
        with suppress(OSError), direct.open(address, timeout=5):
            return
        sleep(LOOK)
    raise NoPage(f"MLflow's server did not start. It said: {last_words(log)}")


def last_words(log: IO[bytes]) -> str:
    """Return the last line of a log."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and the processes that it has started, which are in the session that it leads."""
    if os.name != "posix":
        process.terminate()
        process.wait()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)
    # The group is there as long as anybody is in it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def address_of(base: str, experiment_id: str, trace_id: str) -> str:
    """Return where the page shows a trace."""
    return f"{base}/#/experiments/{experiment_id}/traces/{trace_id}"
