"""The spools that one process uses: the file that it shares with others, and memory where that cannot be."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from dspy_trace.export import records
from dspy_trace.export.aside import was_put_aside
from dspy_trace.export.items import Waiting
from dspy_trace.export.leftovers import move, say_older
from dspy_trace.export.outcomes import Undelivered
from dspy_trace.export.places import memory_spool, open_spool
from dspy_trace.export.spool import Spool, count
from dspy_trace.export.spoolfile import Unusable
from dspy_trace.guard import shielded


class Stores:
    """The spools of one process, each opened on first use.

    Args:
        owner: in whose name it writes.
        say: told what is to be said to people, by what it is about.
        environ: the environment.
    """

    def __init__(self, owner: str, say: Callable[[str, Undelivered], None], environ: Mapping[str, str]) -> None:
        self._owner = owner
        self._say = say
        self._environ = environ
        self._put = 0
        """Spans that were put, ever."""
        self._putting = threading.RLock()  # is taken before the other
        self._lock = threading.RLock()
        self._file: Spool | None = None
        self._memory: Spool | None = None

    def write(self, durable: bool, write: Callable[[Spool], None], spans: int = 0) -> None:
        """Write to the spool; to memory where that is asked for, or where the spool cannot be written any more.

        Args:
            durable: whether it is to survive the process.
            write: writes to a spool, all or nothing.
            spans: number of spans that it puts there.
        """
        with self._putting:
            if not durable or not self._is_written(write):
                write(self.memory())
            self._put += spans

    def _is_written(self, write: Callable[[Spool], None]) -> bool:
        for again in (True, False):
            try:
                write(self.file())
                return True
            except (sqlite3.Error, OSError, Unusable) as error:
                if again and self._file is not None and self._file.broken is not None:
                    continue  # another takes its place
                self._say("spool", Undelivered(str(error), "spool", "Traces wait in memory until it can be written."))
                return False
        return False

    def file(self) -> Spool:
        """Return the spool of this user and environment; another where it has gone, or has been found broken."""
        with self._lock:
            if self._file is not None and self._file.broken is None and not self._file.has_vanished():
                return self._file
        with self._putting, self._lock:
            before = self._file
            if before is None or before.broken is not None or before.has_vanished():
                self._file = self._opened(before)
            assert self._file is not None
            return self._file

    def _opened(self, before: Spool | None) -> Spool:
        broken = before is not None and before.broken is not None
        if before is not None and before.has_vanished():
            shielded("replacing the spool", before.disown)
        self._file = made = open_spool(environ=self._environ, broken=before if broken else None)
        shielded("looking for older rows", say_older, made)
        shielded("adding up", records.tidy, made)
        shielded("adopting rows", records.adopt, made)
        if before is not None:
            if not broken and not was_put_aside(before):
                shielded("moving the spool", move, before, made, self._owner)
            shielded("counting what is lost", self._count_lost, made)
        return made

    def _count_lost(self, made: Spool) -> None:
        accounts, waiting = self.accounts()
        lost = self._put - sum(accounts.values()) - waiting.spans
        if lost > 0:
            with made.writing() as db:
                count(db, self._owner, "dropped: spool broken", lost)

    def memory(self) -> Spool:
        """Return the spool in memory."""
        with self._lock:
            if self._memory is None:
                self._memory = memory_spool()
            return self._memory

    def all(self) -> list[Spool]:
        """Return those that are in use."""
        if self._file is not None and self._file.broken is not None:
            self.file()
        with self._lock:
            return [spool for spool in (self._file, self._memory) if spool is not None]

    def rescued(self) -> Spool:
        """Return the spool file, with what had to wait in memory and can only be delivered from there."""
        file, memory = self.file(), self._memory
        if memory is not None and file.path is not None and records.anything(memory):
            with self._lock:  # meanwhile they are in both
                move(memory, file, self._owner, "database")
        return file

    def accounts(self) -> tuple[Counter[str], Waiting]:
        """Return what has become of what was put, in spans, and what waits."""
        names: Counter[str] = Counter()
        waiting = Waiting()
        spools = self.all()
        with self._lock:
            for spool in spools:
                with spool.reading():
                    names.update(records.accounts(spool, self._owner))
                    waiting += records.waiting(spool, owner=self._owner)
        return names, waiting

    def close(self) -> None:
        """Let others take what is held, and close the file; the next look at it opens it again."""
        file = self._file
        if file is not None and file.path is not None:
            shielded("closing the spool", file.release, self._owner)
            file.close()
