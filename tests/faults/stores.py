"""Real stores of MLflow's behind a server, or written by the worker process: PostgreSQL where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.parts.mlflow_server import end, free_port
from tests.parts.project import share, until


class Postgres:
    """A server of PostgreSQL's that can be ended and started again.

    Args:
        folder: for its files; it is given to the user that runs it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to be run by root.
        self._as: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if _is_root() else {}
        if self._as:
            shutil.chown(folder, "postgres", "postgres")
        command = [_program("initdb") or "", "-D", str(folder / "data"), "-U", "me", "--auth=trust", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **self._as)
        self.start()

    @property
    def uri(self) -> str:
        """As MLflow takes it."""
        return f"postgresql+psycopg2://me@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it, and return when it answers."""
        command = [_program("postgres") or "", "-D", str(self._folder / "data"), "-p", str(self._port)]
        options = ["-h", "127.0.0.1", "-k", str(self._folder), "-F"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([*command, *options], cwd=self._folder, **quiet, **self._as)
        until(self._answers, 30.0 * share())

    def stop(self) -> None:
        """End it as an administrator does who does not wait for its clients."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(2)
            end(process)

    def read(self, query: str) -> list[Any]:
        """Return what a query finds."""
        import psycopg2

        with closing(psycopg2.connect(self.uri.replace("+psycopg2", ""))) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def _answers(self) -> bool:
        import psycopg2

        try:
            return bool(self.read("SELECT 1"))
        except psycopg2.OperationalError:
            return False


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Give a server of PostgreSQL's; skip the test where it is not installed."""
    missing = [name for name in ("initdb", "postgres") if _program(name) is None]
    if missing:
        pytest.skip(f"PostgreSQL is not installed: {' and '.join(missing)} not found")
    pytest.importorskip("psycopg2")
    # Not in pytest's own folder, into which no other user may look.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str | None:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
