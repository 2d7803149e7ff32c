"""The process that writes to MLflow's databases: ``python -m dspy_trace.export.worker SPOOL_FOLDER [SLOT]``.

It exists because importing mlflow takes seconds and hundreds of megabytes, opening a database takes seconds more, and
every stored trace costs milliseconds: none of that belongs in the program. The programs of a user and an environment
share it; they start it on demand, and it ends a while after the last of them. It may be killed at any moment.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, TextIO

from dspy_trace import settings as names
from dspy_trace.export import records
from dspy_trace.export.database import DatabaseSink
from dspy_trace.export.drain import Drain
from dspy_trace.export.launch import for_worker
from dspy_trace.export.locks import ProcessLock, is_free
from dspy_trace.export.outcomes import Undelivered, Unwelcome
from dspy_trace.export.places import bounds, open_mended, spool_file
from dspy_trace.export.runner import Runner
from dspy_trace.export.salvage import mend
from dspy_trace.export.spawn import SHARED, lock_file, producers_file, slot_of
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target, without_secrets
from dspy_trace.guard import ask
from dspy_trace.runs.drain import RunDrain, ServerSink
from dspy_trace.secrets import REPLACEMENT, learn, learn_environment, learn_url, scrub_text

logger = logging.getLogger("dspy_trace")

LOOK = 0.1
"""Seconds between two looks into the spool."""

HANDOVER = 10.0
"""Seconds to wait for a worker that is ending."""

IDLE = 60.0
"""Seconds to stay after the last row and the last program."""

PATIENCE = 10
"""Times as long to stay for a server that does not answer."""


class Worker:
    """One run of the process.

    Args:
        folder: folder of the spool.
        slot: which databases it serves: those that need no credential, or the one whose credential it was given.
        environ: the environment; the credential is taken out of it.
    """

    def __init__(self, folder: Path, slot: str, environ: MutableMapping[str, str]) -> None:
        self.spool = Spool(spool_file(folder), **bounds(environ))
        self.restart = False
        """Whether to begin anew, in a fresh process."""
        self._folder = folder
        self._slot = slot
        self._uri = environ.pop(names.WORKER_CREDENTIAL, None)
        self._idle = ask(float, environ.get(names.WORKER_IDLE), default=IDLE)
        self._lock = ProcessLock(lock_file(folder, slot))
        self._holder = f"worker-{slot}"  # so that one takes up at once what the one before it held
        self._drains: dict[str, list[Drain]] = {}
        self._targets: dict[str, Target] = {}
        self._runners: list[Runner] = []
        self._told: dict[str, str] = {}
        self._packages = _places_of("mlflow", "dspy-trace")
        self._version = -1
        self._busy = monotonic()

    def run(self) -> int:
        """Deliver until there is nothing to do and nobody to do it for; return an exit status."""
        if not self._begin():
            return 0
        logger.info("started, for %s", self._slot if self._slot == SHARED else without_secrets(self._uri or ""))
        while not self.restart:
            sleep(LOOK)
            if self.spool.broken is not None:
                mend(self.spool)
                self.restart = True  # everything that is open holds on to the one that was broken
                break
            if self.spool.has_vanished():
                break
            try:
                self._look()
                if self._is_over():
                    break
            except sqlite3.DatabaseError as error:
                logger.warning("the spool cannot be read: %s", error)
                sleep(0.0 if self.spool.broken else 1.0)
        for runner in self._runners:
            runner.end()
        if self.restart:
            logger.info("beginning anew, since what is open has been replaced")
            self._again()
        for runner in self._runners:
            runner.join(HANDOVER / 2)
        logger.info("ended")
        self._lock.release()  # what MLflow does at the end of the process takes its time
        return 0

    def _begin(self) -> bool:
        """Become the only worker of the slot; return whether that is what we are."""
        open_mended(self.spool)
        state = self._state()
        if not self._lock.acquire(timeout=0.5 if state == "running" else HANDOVER):
            logger.info("another worker runs")
            with self.spool.writing() as db:
                # Whoever started us has written that one is starting, and would wait for it.
                db.execute("UPDATE workers SET state = 'running' WHERE slot = ? AND state = 'starting'", (self._slot,))
            return False
        with self.spool.writing() as db:
            db.execute("INSERT OR REPLACE INTO workers VALUES (?, 'running', ?)", (self._slot, time()))
        return True

    def _state(self) -> str:
        found = self.spool.read("SELECT state FROM workers WHERE slot = ?", self._slot)
        return str(found[0][0]) if found else ""

    def _look(self) -> None:
        """Take note of what other processes have written."""
        (version,) = self.spool.read("PRAGMA data_version")[0]
        if version == self._version:
            return
        self._version = version
        for _, target, sealed, folder in self.spool.targets():
            if target.uri not in self._drains and self._is_ours(target, sealed) and self._waits(target):
                self._serve(target, folder)
        for runner in self._runners:
            runner.wake()

    def _is_ours(self, target: Target, sealed: bool) -> bool:
        return slot_of(target.uri, sealed) == self._slot

    def _waits(self, target: Target) -> bool:
        return records.anything(self.spool, uris=frozenset((target.uri,)), tables=for_worker(target))

    def _serve(self, target: Target, folder: str) -> None:
        """Give a database or server a thread of its own, so that none holds up another."""
        runner = Runner()
        if target.kind == "database":
            sink = DatabaseSink(self._uri or target.uri, folder, self._replaced)
            # Runs first, so that what is said of a trace can name its run.
            work: list[Drain] = [RunDrain(target.uri, sink, self.spool, tell=self._tell)]
            work.append(Drain(target.uri, sink, lambda: [self.spool], self._holder, tell=self._tell))
        else:
            work = [RunDrain(target.uri, ServerSink(target.uri), self.spool, tell=self._tell)]
        self._drains[target.uri] = work
        self._targets[target.uri] = target
        runner.work += work
        self._runners.append(runner)
        runner.start()

    def _replaced(self) -> None:
        self.restart = True

    def _tell(self, uri: str, error: Undelivered) -> None:
        if self._told.get(uri) != error.cause:
            self._told[uri] = error.cause
            logger.warning("traces for %s are not delivered: %s. %s", uri, error.words, error.remedy)

    def _is_over(self) -> bool:
        """Return whether it is time to end, which is then written down, so that whoever comes later starts another."""
        if any(not place.exists() for place in self._packages):
            self.restart = True
        now = monotonic()
        # Whoever holds a credential that is accepted shall be able to start one with it.
        problems = [one.problem for drains in self._drains.values() for one in drains if one.problem is not None]
        if any(problem.cause == "unauthorized" for problem in problems):
            return self._is_written_down()
        asked = self._state() == "asked"
        if self._has_hope() or not (asked or is_free(producers_file(self._folder, self._slot))):
            self._busy = now
        if not asked and now - self._busy < self._idle:
            return False
        if asked and self._has_hope():
            return False
        return self._is_written_down()

    def _is_written_down(self) -> bool:
        """Say in the spool that we end, unless something has come meanwhile; return whether that is so."""
        seen = self._version
        with self.spool.writing() as db:
            if db.execute("PRAGMA data_version").fetchone()[0] != seen:
                return False
            db.execute("UPDATE workers SET state = 'ending', since = ? WHERE slot = ?", (time(), self._slot))
        return True

    def _has_hope(self) -> bool:
        """Return whether something waits that may yet be delivered without anybody's doing."""
        return any(
            records.anything(self.spool, uris=frozenset((uri,)), tables=_tables_of(drain)) and self._is_worth_it(drain)
            for uri, drains in self._drains.items()
            for drain in drains
        )

    def _is_worth_it(self, drain: Drain) -> bool:
        patience = self._idle * PATIENCE if not isinstance(drain.problem, Unwelcome) else 0.0
        return drain.problem is None or monotonic() - drain.last_success <= patience

    def _again(self) -> None:
        """Become a fresh process, in which nothing is open or imported."""
        if self._uri is not None:
            os.environ[names.WORKER_CREDENTIAL] = self._uri
        safe = ["-P"] if sys.version_info >= (3, 11) else []
        command = [sys.executable, *safe, "-m", "dspy_trace.export.worker", str(self._folder), self._slot]
        os.execv(sys.executable, command)


def _tables_of(drain: Drain) -> tuple[str, ...]:
    """Return what a drain empties: one that has nothing to do is no hope for what another cannot deliver."""
    return records.RUNS if isinstance(drain, RunDrain) else records.TRACES


def _places_of(*packages: str) -> list[Path]:
    """Return where the metadata of packages is: it goes when another version is installed."""
    found = (ask(importlib.metadata.distribution, package) for package in packages)
    return [path for one in found if isinstance(path := getattr(one, "_path", None), Path)]


class Redacted:
    """A stream that lets no secret through, whoever writes to it."""

    def __init__(self, stream: TextIO, short: str | None) -> None:
        self._stream = stream
        self._short = short
        """A password that is too short to be searched for anywhere else."""

    def write(self, text: str) -> int:
        if self._short is not None:
            text = text.replace(self._short, REPLACEMENT)
        return self._stream.write(scrub_text(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _humble(environ: Mapping[str, str]) -> None:
    """Stand back behind every program, and keep secrets out of the log."""
    if hasattr(os, "nice"):
        ask(os.nice, 10)
    secret = environ.get(names.WORKER_CREDENTIAL)
    learn_environment(environ)
    learn(secret, names.WORKER_CREDENTIAL)
    learn_url(secret, names.WORKER_CREDENTIAL)
    password = re.search(r"://[^:/@]*:(.+)@", secret or "")
    short = password[1] if password is not None else None
    sys.stdout, sys.stderr = Redacted(sys.stdout, short), Redacted(sys.stderr, short)
    form = f"%(asctime)s {os.getpid()} %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, format=form, level=logging.WARNING)
    logger.setLevel(logging.INFO)


def main(arguments: list[str]) -> int:
    """Run the worker; return an exit status."""
    folder, slot = Path(arguments[0]), arguments[1] if len(arguments) > 1 else SHARED
    if hasattr(os, "fork") and os.fork():
        # The program that started us waits for nobody, and `os.wait()` in it shall not find us.
        os._exit(0)
    _humble(os.environ)
    return Worker(folder, slot, os.environ).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
