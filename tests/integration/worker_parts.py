"""What tests of the real worker process share: finding it, ending it, and reading MLflow's database by plain SQL."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dspy_trace.export.sender import Delivery
from dspy_trace.export.target import Target
from tests.delivery import environment, eventually

SLOW = 150.0
"""Seconds that a worker may take on a machine that does other things: importing mlflow and making a database."""


def workers(folder: Path) -> list[int]:
    """Return the processes that work for the spool in a folder."""
    found = []
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0") if place.name.isdecimal() else []
            if b"dspy_trace.export.worker" in words and os.fsencode(folder) in words:
                found.append(int(place.name))
    return found


def log(folder: Path) -> str:
    """Return what workers have written."""
    return "".join(file.read_text() for file in folder.glob("*-worker.log"))


@contextmanager
def spool_folder(folder: Path) -> Iterator[Path]:
    """Give a folder for a spool; its workers are ended, and their log is shown if the test has failed."""
    place = folder / "spool"
    try:
        yield place
    except BaseException:
        print(log(place))
        raise
    finally:
        for worker in workers(place):
            os.kill(worker, signal.SIGKILL)


def on(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment whose worker is started, and ends soon when nobody needs it."""
    told = environment(folder, DSPY_TRACE_WORKER="on", DSPY_TRACE_WORKER_IDLE="2", DSPY_TRACE_EXIT_WAIT="0", **more)
    return {**os.environ, **told}


def database(folder: Path, experiment: str | None = None, name: str = "mlflow.db") -> Target:
    """Return a target in a database of this folder."""
    return Target(f"sqlite:///{folder}/{name}", experiment_name=experiment)


def rows(target: Target, query: str, *values: Any) -> list[Any]:
    """Ask MLflow's database; nothing if it is not there or not made yet."""
    path = Path(target.uri.removeprefix("sqlite:///"))
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def spans(target: Target) -> set[tuple[str, str]]:
    """Return trace and span ids of what is stored."""
    return {(trace.removeprefix("tr-"), span) for trace, span in rows(target, "SELECT trace_id, span_id FROM spans")}


def delivered(delivery: Delivery) -> None:
    """Wait until nothing waits."""
    eventually(lambda: not delivery.waits(), SLOW)
