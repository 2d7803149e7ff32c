"""Many rows by one statement.

Each statement, and each row that it finds, lets go of the interpreter, and a program that computes gives it back only
after five milliseconds: with a statement for each row, whoever has something to write would wait for seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Protocol

_VALUES: Final = 900
"""Values of one statement, of which an old SQLite takes 999, and some for the statement itself."""


class Numbered(Protocol):
    """A row of a table, known by its id."""

    @property
    def id(self) -> int: ...


def insert(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, which are equally long.

    Args:
        db: where.
        statement: all up to ``VALUES``. Example: ``INSERT INTO batches (target, spans)``.
        rows: the values of each.
    """
    at_once = _VALUES // len(rows[0]) if rows else 1
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        places = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        db.execute(f"{statement} VALUES {places}", [value for row in some for value in row])


def of(db: sqlite3.Connection, statement: str, rows: Sequence[Numbered], before: tuple[Any, ...] = ()) -> list[Any]:
    """Execute a statement for some rows, and return what it finds.

    Args:
        db: where.
        statement: all up to the ids. Example: ``DELETE FROM batches WHERE id IN``.
        rows: which.
        before: values for the places that come before the ids.
    """
    found: list[Any] = []
    for start in range(0, len(rows), _VALUES):
        some = [row.id for row in rows[start : start + _VALUES]]
        found += db.execute(f"{statement} ({', '.join('?' * len(some))})", (*before, *some)).fetchall()
    return found
