"""One SQLite file that processes share: its connection, what breaks it, and what a fork does to both.

SQLite from the standard library, in WAL mode: writers of several processes, readers that do not wait for them, and a
file that a killed process leaves whole. What is committed survives the process; the disk is not synchronised at each
commit, so that a power failure may cost the last moments, never the file.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from dspy_trace.export.schema import NAMES, RUNS, SCHEMA, TABLES, statements

BUSY = 2.0
"""Seconds to wait for another process that writes."""


class Unusable(Exception):
    """A spool file cannot be used; the message says why."""


class SpoolFile:
    """A spool's file, or its stand-in in memory.

    One connection serves all threads of the process, one at a time: each use takes well under a millisecond.

    Args:
        path: the file; made with mode 0600 if there is none. ``None`` is memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.broken: str | None = None
        """What SQLite says of the file, once it has found that it is none of its own or damaged."""
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._beside: dict[Path, tuple[int, int] | None] = {}
        _files.add(self)

    def open(self) -> None:
        """Open it now.

        Raises:
            Unusable: the file belongs to somebody else, has a newer schema, or cannot do what is needed.
            OSError: its folder cannot be written.
            sqlite3.Error: it is no spool, or SQLite cannot use it.
        """
        with self._lock:
            if self._connection is None:
                self.broken = None
                with self._noticing():
                    self._connection = self._connected()
                self._beside = {path: _inode(path) for path in beside(self.path)}

    def has_vanished(self) -> bool:
        """Return whether what is open is no longer what has its name: nobody else would ever see what is put there."""
        return self._inode is not None and self._inode != _inode(self.path)

    def is_named(self, path: Path) -> bool:
        """Return whether what is open has this name by now."""
        return self._inode is not None and self._inode == _inode(path)

    def disown(self) -> None:
        """Delete what SQLite has beside a file that has gone: it would take that for the new one's, and spoil it."""
        for path, inode in self._beside.items():
            if inode is not None and inode == _inode(path):
                path.unlink(missing_ok=True)

    @contextmanager
    def _noticing(self) -> Generator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # Those derived from it say that the file is busy, full or read-only, or that we have made a mistake.
            if type(error) is sqlite3.DatabaseError:
                self.broken = str(error)
            raise

    def _connected(self) -> sqlite3.Connection:
        if self.path is not None:
            _make(self.path)
            self._inode = _inode(self.path)
        connection = sqlite3.connect(
            ":memory:" if self.path is None else str(self.path),
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self.path is not None:
            if _write_ahead(connection) != "wal":
                raise Unusable("its file system does not let processes share a database")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 8388608")
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                raise Unusable(f"it was made by a newer dspy-trace (schema {version}, not {SCHEMA})")
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if there and not there >= NAMES:
                raise Unusable("it is another program's database")
            if version == 0:
                for statement in statements(TABLES):
                    connection.execute(statement)
            if version < SCHEMA:
                for statement in statements(RUNS):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Give the connection for one transaction, which is taken back if the block raises.

        Raises:
            sqlite3.Error: it cannot be written; nothing of the block has happened.
        """
        with self._lock, self._noticing():
            self.open()
            connection = self._connection
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def read(self, statement: str, *values: Any) -> list[Any]:
        """Return all rows that a statement finds."""
        with self._lock, self._noticing():
            self.open()
            assert self._connection is not None
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def reading(self) -> Generator[None]:
        """Let every :meth:`read` of the block see the same moment, whatever other processes write meanwhile."""
        with self._lock:
            self.open()
            connection = self._connection
            assert connection is not None
            connection.execute("BEGIN")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close it; it opens again at the next use. What was in memory is gone."""
        with self._lock:
            self._inode = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __del__(self) -> None:
        # A thread that was still busy may have opened it again after it was closed.
        if getattr(self, "_connection", None) is not None:
            self.close()

    def before_fork(self) -> None:
        """Let no other thread be in the middle of something while the process is copied."""
        self._held = self._lock.acquire(timeout=1.0)

    def after_fork_in_parent(self) -> None:
        if self._held:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Leave the connection to the parent: SQLite's must not be used, nor closed, on the other side of a fork."""
        self._lock = threading.RLock()
        self._inode = None
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._connection = None

    _held = False


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Switch to a write-ahead log, and return the mode that it is in then.

    Of several processes that switch a new file at once all but one fail at once: SQLite's time-out is not for that.
    """
    end = monotonic() + BUSY
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > end:
                raise
        sleep(0.005)


def beside(path: Path | None) -> list[Path]:
    """Return the files that SQLite keeps beside a database: its log, and the index of that."""
    return [] if path is None else [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def _inode(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make(path: Path) -> None:
    """Make the file, readable by nobody else, with its folder; SQLite gives its side files the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    with suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))
    # A file that is there is not opened: closing it again would release the locks that this process has on it.
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("it is no file")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise Unusable("it belongs to another user")


_files: weakref.WeakSet[SpoolFile] = weakref.WeakSet()
_abandoned: list[sqlite3.Connection] = []


def _before() -> None:
    for file in list(_files):
        file.before_fork()


def _in_parent() -> None:
    for file in list(_files):
        file.after_fork_in_parent()


def _in_child() -> None:
    for file in list(_files):
        file.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
