"""Seeing to it, from the program, that a worker runs while something waits for a database."""

from __future__ import annotations

import importlib.util
import logging
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, time

from dspy_trace.export import records
from dspy_trace.export.database import INSTALL
from dspy_trace.export.locks import ProcessLock, is_free
from dspy_trace.export.outcomes import Undelivered, Unwelcome
from dspy_trace.export.spawn import hindrance, lock_file, log_file, producers_file, slot_of, spawn
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Credential, Target
from dspy_trace.guard import ask

logger = logging.getLogger("dspy_trace")

STARTING = 15.0
"""Seconds that a worker may take until it has its lock."""

LOOK = 0.25
"""Seconds between two looks while something waits."""

AGAIN = 30.0
"""Seconds until something that could not be done is tried again."""

FLUSH = "What waits is kept; deliver it with `dspy-trace flush`."


class Launcher:
    """Starts workers on demand and passes on what they report. Used by one thread, but for :meth:`start_now`.

    Args:
        spool: gives the spool, which is a file.
        credentials: gives what opens a target.
        tell: told why nothing is delivered to a tracking URI.
        environ: the environment.
    """

    def __init__(
        self,
        spool: Callable[[], Spool],
        credentials: Callable[[Target], Credential | None],
        tell: Callable[[str, Undelivered], None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.failed = 0
        self.started = 0
        """Workers started, ever."""
        self.problem: Undelivered | None = None
        self._spool = spool
        self._credentials = credentials
        self._tell = tell
        self._environ = environ
        self._targets: dict[str, Target] = {}
        self._presence: dict[str, ProcessLock] = {}
        self._starting: list[subprocess.Popen[bytes]] = []
        self._at_it = threading.Lock()
        self._since = time()
        self._denied = 0.0
        self._not_before = 0.0

    def serve(self, target: Target) -> None:
        """Look after a database from now on."""
        self._targets.setdefault(target.uri, target)

    @property
    def uris(self) -> frozenset[str]:
        """The databases looked after."""
        return frozenset(uri for uri, target in self._targets.items() if target.kind == "database")

    @property
    def off(self) -> bool:
        """Whether workers have been switched off."""
        return hindrance(self._environ) == "off"

    def hurry(self, deadline: float) -> None:
        """Try at once what is being put off."""
        self._not_before = 0.0

    def step(self) -> float | None:
        """See to what waits; return the seconds until the next look, ``None`` if nothing does."""
        try:
            return self._looked(self._spool())
        except (sqlite3.Error, OSError) as error:
            logger.debug("dspy-trace: the spool cannot be read: %s", error)
            return 1.0

    def _looked(self, spool: Spool) -> float | None:
        self._reap()
        if not any(self._waits(spool, target) for target in list(self._targets.values())):
            return None
        self._pass_on(spool)
        if self._not_before <= monotonic():
            self.start_now()
        return LOOK

    def close(self, end: bool = False) -> None:
        """Stop being a reason for workers to stay; with `end`, ask them to end."""
        for slot, lock in self._presence.items():
            lock.release()
            if end:
                with self._spool().writing() as db:
                    db.execute("UPDATE workers SET state = 'asked' WHERE slot = ? AND state = 'running'", (slot,))
        self._presence.clear()

    def start_now(self) -> bool:
        """Start a worker for whatever waits, unless one runs; return whether one does, or will.

        If another thread is at it, wait for that: it would not come to an end if the program did.
        """
        with self._at_it:
            return self._start_all()

    def _start_all(self) -> bool:
        spool = self._spool()
        if spool.path is None:
            words = "it is written by a process of its own, and no file can be made that reaches it"
            for target in list(self._targets.values()):
                self._cannot(target, Unwelcome(words, "no spool", "Set DSPY_TRACE_SPOOL_DIR."))
            return False
        running = [self._ensure(spool, target) for target in list(self._targets.values()) if self._waits(spool, target)]
        return all(running)

    def _waits(self, spool: Spool, target: Target) -> bool:
        return records.anything(spool, uris=frozenset((target.uri,)), tables=for_worker(target))

    def _ensure(self, spool: Spool, target: Target) -> bool:
        assert spool.path is not None
        credential = self._credentials(target)
        slot = slot_of(target.uri, credential is not None)
        if slot not in self._presence:
            presence = ProcessLock(producers_file(spool.path.parent, slot))
            if presence.acquire(shared=True, timeout=1.0):
                self._presence[slot] = presence
        if not self._wanted(spool, slot):
            return True
        why = hindrance(self._environ)
        if why is not None:
            if why != "off":
                self._cannot(target, Unwelcome(f"no process can be started to write it: {why}", "no worker", FLUSH))
            return False
        if not _is_installed("mlflow") or not _is_installed("sqlalchemy"):
            cause = "mlflow missing" if target.kind == "database" else "no runs"
            self._cannot(target, Unwelcome("MLflow is not installed", cause, INSTALL))
            return False
        return self._start(spool, target, slot, credential)

    def _wanted(self, spool: Spool, slot: str) -> bool:
        """Return whether a worker is to be started. Those that are about to begin or to end say so in the spool."""
        assert spool.path is not None
        found = spool.read("SELECT state, since FROM workers WHERE slot = ?", slot)
        state, since = found[0] if found else ("", 0.0)
        if state == "starting":
            return not 0 <= time() - since < STARTING
        return state != "running" or is_free(lock_file(spool.path.parent, slot))

    def _is_kept(self, db: sqlite3.Connection, folder: Path, slot: str) -> bool:
        """Take back that a worker was asked to end, unless it has gone; return whether one stays because of it."""
        if is_free(lock_file(folder, slot)):
            return False
        found = db.execute("UPDATE workers SET state = 'running' WHERE slot = ? AND state = 'asked'", (slot,))
        return found.rowcount > 0

    def _start(self, spool: Spool, target: Target, slot: str, credential: Credential | None) -> bool:
        assert spool.path is not None
        with spool.writing() as db:
            # Of several processes that come to want one at the same moment, one starts it.
            if not self._wanted(spool, slot) or self._is_kept(db, spool.path.parent, slot):
                return True
            db.execute("INSERT OR REPLACE INTO workers VALUES (?, 'starting', ?)", (slot, time()))
        try:
            self._starting.append(spawn(spool.path.parent, slot, credential, self._environ))
        except OSError as error:
            why = f"no process can be started to write it: {error}"
            self._cannot(target, Unwelcome(why, "no worker", FLUSH))
            return False
        self.started += 1
        if self.started % 3 == 0:
            words = f"the process that is to write it has ended early, {self.started - 1} times"
            self._tell(target.uri, Unwelcome(words, "no worker", f"See {log_file(spool.path.parent)}."))
        return True

    def _reap(self) -> None:
        """Take note of how the start of a worker ended; the worker itself is not our child."""
        ended = [process for process in self._starting if process.poll() is not None]
        self._starting = [process for process in self._starting if process not in ended]
        if any(process.returncode for process in ended):
            spool = self._spool()
            assert spool.path is not None
            last = ask(_last_line, log_file(spool.path.parent), default="")
            error = Unwelcome(f"the process that is to write it does not start: {last}", "no worker", FLUSH)
            for target in list(self._targets.values()):
                self._cannot(target, error)

    def abandon(self) -> None:
        """Let the program end without waiting until a worker has started."""
        for process in self._starting:
            process.returncode = process.poll() or 0
        self._starting = []

    def _cannot(self, target: Target, error: Unwelcome) -> None:
        self.failed += 1
        self.problem = error
        self._not_before = monotonic() + AGAIN
        records.report(self._spool(), target.uri, error.cause, f"{error.words}. {error.remedy}")
        self._tell(target.uri, error)

    def _pass_on(self, spool: Spool) -> None:
        """Tell what a worker has noted since we began."""
        found = [one for one in records.problems(spool) if one.uri in self._targets and one.last >= self._since]
        for problem in found:
            if problem.cause != "unreachable" or problem.times >= 2:
                self._tell(problem.uri, Undelivered(problem.message, problem.cause, ""))
            if problem.cause == "unauthorized" and problem.last > self._denied:
                # Its worker has ended, for others may know better. Ours would find the same again.
                self._denied, self._not_before = problem.last, monotonic() + AGAIN
        if found:
            self.problem = Undelivered(found[0].message, found[0].cause, "")
        elif self._not_before <= monotonic():
            self.problem = None


def for_worker(target: Target) -> tuple[str, ...]:
    """Return the tables of the spool that hold what the worker writes for a target: of a server's, only runs."""
    return (*records.TRACES, *records.RUNS) if target.kind == "database" else records.RUNS


def _is_installed(package: str) -> bool:
    """Return whether a package could be imported, without importing it."""
    return ask(importlib.util.find_spec, package) is not None


def _last_line(log: object) -> str:
    with open(str(log), "rb") as file:
        return file.read()[-2_000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
