"""Finding the span that a server chokes on: one bad span makes MLflow reject all that came with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dspy_trace.export.outcomes import Failing, Refused

Row = dict[str, Any]

TRIES = 3
"""Tries after which a server that breaks down is suspected to do so over what it was sent."""


class Search:
    """Sends rows, and takes them apart where that is what it takes.

    A refusal (4xx) takes them apart at once. A breakdown (500) does after three tries, and only if something else gets
    through meanwhile is it blamed on the span: else the server is just broken.
    """

    def __init__(self) -> None:
        self._broken = 0
        self._next = TRIES

    def send(self, store: Callable[[list[Row]], None], rows: list[Row]) -> list[tuple[Row, str]]:
        """Store rows; return those that were refused for good, each with the server's words.

        Raises:
            Undelivered: it has to be tried again, all of it; what was stored may be stored once more.
        """
        parts, refused, suspects = [rows], [], []
        stored, vain = False, 0
        while parts:
            part = parts.pop()
            if not part:
                continue
            try:
                store(part)
                stored = True
                self._broken, self._next = 0, TRIES
                continue
            except Refused as error:
                words = error.words
                if len(part) == 1:
                    refused.append((part[0], words))
                    continue
            except Failing as error:
                vain += 1
                self._wait_or_search(error, stored or vain > 1)
                if not stored and vain > 2 * len(rows).bit_length() + 6:
                    self._give_up()
                    raise
                if len(part) == 1:
                    suspects.append((part[0], error))
                    continue
            parts += reversed(halves(part))
        if suspects and not stored:
            self._give_up()
            raise suspects[-1][1]
        return refused + [told for row, _ in suspects if (told := _once_more(store, row)) is not None]

    def _wait_or_search(self, error: Failing, searching: bool) -> None:
        if searching:
            return
        self._broken += 1
        if self._broken < self._next:
            raise error

    def _give_up(self) -> None:
        self._next = self._broken * 2


def _once_more(store: Callable[[list[Row]], None], row: Row) -> tuple[Row, str] | None:
    """Try a suspect once more, since the server may have been mended meanwhile; return it if it is to blame."""
    try:
        store([row])
    except (Failing, Refused) as error:
        return row, error.words
    return None


def halves(rows: Sequence[Row]) -> list[list[Row]]:
    """Return rows in two parts, divided between traces where there are several."""
    traces: dict[str, list[Row]] = {}
    for row in rows:
        traces.setdefault(row["trace_id"], []).append(row)
    groups: list[list[Row]] = list(traces.values()) if len(traces) > 1 else [[row] for row in rows]
    middle = len(groups) // 2
    return [[row for group in part for row in group] for part in (groups[:middle], groups[middle:])]
