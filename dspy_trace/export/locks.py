"""Locks between processes that the system lets go of when their holder dies: SQLite's, for every platform has them."""

from __future__ import annotations

import os
import sqlite3
import weakref
from pathlib import Path


class ProcessLock:
    """A lock on a file: exclusive for one process, or shared by many while nobody has it exclusively.

    Args:
        path: the file; it is made, and stays empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        _locks.add(self)

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._connection is not None

    def acquire(self, *, shared: bool = False, timeout: float = 0.0) -> bool:
        """Take it, waiting at most `timeout` seconds; return whether it was to be had."""
        if self._connection is not None:
            return True
        try:
            connection = sqlite3.connect(
                str(self._path), timeout=timeout, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError:  # its folder is gone
            return False
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("BEGIN" if shared else "BEGIN EXCLUSIVE")
            # A transaction only begins to lock with its first look.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.OperationalError:
            connection.close()
            return False
        self._connection = connection
        return True

    def release(self) -> None:
        """Let it go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def after_fork_in_child(self) -> None:
        """Leave it to the parent."""
        if self._connection is not None:
            _abandoned.append(self._connection)
            self._connection = None


def is_free(path: Path) -> bool:
    """Return whether nobody holds the lock on a file in any way."""
    lock = ProcessLock(path)
    free = lock.acquire()
    lock.release()
    return free


_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()
_abandoned: list[sqlite3.Connection] = []


def _in_child() -> None:
    for lock in list(_locks):
        lock.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
