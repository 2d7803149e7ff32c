"""From the program's threads to the spool: records of runs are queued there, and made and written on ours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING, Any

import orjson

from dspy_trace.export.runner import Runner, started
from dspy_trace.export.scrubbing import without_secrets
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from dspy_trace.guard import shielded
from dspy_trace.runs import spooled
from dspy_trace.runs.spooled import Record
from dspy_trace.values.jsonable import mended

if TYPE_CHECKING:
    from dspy_trace.export.sender import Delivery

logger = logging.getLogger("dspy_trace")

SECONDS = 0.2
"""How long records are gathered before they are written."""

MOST = 50_000
"""Records that wait in memory, at most."""

Told = dict[str, Any]
Make = Callable[[], Told]
"""Makes a record, on our thread, of what was captured on the program's."""


class RunQueue:
    """Takes records at any time. One per process.

    Args:
        delivery: takes them on.
    """

    def __init__(self, delivery: Delivery) -> None:
        self.lost = 0
        """Records that could not be kept."""
        self._delivery = delivery
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: list[tuple[Target, str, Told | Make]] = []
        self._since = 0.0
        self._runner: Runner | None = None

    def put(self, target: Target, run: str, record: Told | Make) -> None:
        """Queue a record of a run. Never waits."""
        with self._lock:
            if len(self._waiting) >= MOST:
                self._lose(1)
                return
            if not self._waiting:
                self._since = monotonic()
            self._waiting.append((target, run, record))
            first = len(self._waiting) == 1
            if self._runner is None or not self._runner.is_alive():
                runner = Runner()
                runner.work.append(self)
                self._runner = started(runner)
        if first and self._runner is not None:
            self._runner.wake()

    def step(self) -> float | None:
        """Write what has been gathered; return the seconds until there is more to do."""
        with self._lock:
            left = self._since + SECONDS - monotonic() if self._waiting else None
        if left is None or left > 0:
            return left
        self.write_out()
        return None

    def write_out(self) -> None:
        """Make all records that wait and put them into the spool, on this thread."""
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            made = [shielded("telling of a run", _made, *one) for one in waiting]
            records = [record for record in made if record is not None]
            if records:
                shielded("writing to the spool", self._write, records)

    def _write(self, records: list[Record]) -> None:
        def write(spool: Spool, sealed: Collection[Target]) -> None:
            refused = spooled.put(spool, records, self._delivery.owner, sealed)
            if refused:
                self._lose(refused)

        self._delivery.write_runs({record.target for record in records}, write)

    def end(self) -> None:
        """Write what waits and end our thread; a later record starts another."""
        self.write_out()
        if self._runner is not None:
            self._runner.end()
            self._runner = None

    def _lose(self, records: int) -> None:
        if not self.lost:
            logger.warning("dspy-trace: runs are told more than can be kept; some of it is lost")
        self.lost += records

    def forked(self) -> None:
        """Begin anew in a child process: what waits is the parent's to write."""
        self._begin()


def _made(target: Target, run: str, record: Told | Make) -> Record:
    told = record() if callable(record) else record
    try:
        payload = orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        payload = orjson.dumps(mended(told), option=orjson.OPT_NON_STR_KEYS)
    return Record(target, run, without_secrets(payload), "end" in told)
