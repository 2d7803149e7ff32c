"""Running the program of :mod:`tests.faults.load`, and settling its accounts with what a server has got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest

from dspy_trace.export import records
from dspy_trace.export.spool import Spool
from tests.delivery import delivering
from tests.faults.load import Spec
from tests.parts.mlflow_server import ROOT, environment
from tests.parts.project import commands, share

Key = tuple[str, str]
"""Trace and span id."""


@dataclass
class Row:
    """A line of the table."""

    fault: str
    observed: int
    delivered: int
    lost: int
    stall: float | None
    exit: float | None
    cpu: float | None = None
    note: str = ""


class Board:
    """The table that is printed when all is done."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def lines(self) -> list[str]:
        """Return the table."""
        counts = ("observed", "delivered", "lost")
        head = ("fault", *counts, "longest stall of the program", "exit time", "the stall by CPU")
        table = [head]
        for row in self.rows:
            stall = "-" if row.stall is None else f"{row.stall:.2f} ms"
            ends = "-" if row.exit is None else f"{row.exit:.2f} s"
            cpu = "-" if row.cpu is None else f"{row.cpu:.2f} ms"
            name = f"{row.fault} ({row.note})" if row.note else row.fault
            table.append((name, str(row.observed), str(row.delivered), str(row.lost), stall, ends, cpu))
        widths = [max(len(line[column]) for line in table) for column in range(len(head))]
        return [
            " | ".join(
                cell.ljust(width) if not number else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]


board_key = pytest.StashKey[Board]()


@dataclass
class Ran:
    """What has become of a program."""

    status: int
    stderr: str
    exit: float | None
    reports: list[dict[str, Any]]
    ended: set[Key] = field(default_factory=set)
    """Spans of ours that have ended, as far as the program has noted them."""
    unwritten: set[Key] = field(default_factory=set)
    """Those of them that ended after the last write that was completed had begun."""

    def total(self, name: str) -> int:
        """Return a figure of the accounts, of all processes."""
        return sum(report["stats"][name] for report in self.reports)

    @property
    def queue_dropped(self) -> int:
        """Spans that there was no room for in memory."""
        return sum(report["stats"]["dropped"].get("queue full", 0) for report in self.reports)

    def stall(self, name: str = "clock longest") -> float | None:
        """Return how long our code kept a thread of the program, in milliseconds."""
        return max((report["stalls"][name] for report in self.reports), default=None)


class Program:
    """Runs programs with a spool of their own.

    Args:
        home: folder for all of it.
        uri: tracking URI.
    """

    def __init__(self, home: Path, uri: str, **environ: str) -> None:
        self.home = home
        self.environ = {
            "DSPY_TRACE_SPOOL_DIR": str(home / "spool"),
            "MLFLOW_TRACKING_URI": uri,
            "DSPY_TRACE_WORKER": "off",
            **environ,
        }

    def start(self, spec: Spec) -> subprocess.Popen[str]:
        """Start the program."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.load", json.dumps(asdict(spec))],
            cwd=ROOT,
            env=environment(**self.environ),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, during: Callable[[], None] = lambda: None, **spec: Any) -> Ran:
        """Run it, and do something meanwhile."""
        process = self.start(Spec(str(self.home), **spec))
        try:
            during()
            _, stderr = process.communicate(timeout=300)
        finally:
            with suppress(OSError):
                process.kill()
        return self.ran(process.returncode, stderr, monotonic())

    def ran(self, status: int, stderr: str, now: float) -> Ran:
        """Return what has become of a program that has just ended."""
        reports = [json.loads(path.read_text()) for path in self.home.glob("report.*")]
        ids = self.home / "ids"
        lines = ids.read_text().splitlines() if ids.exists() else []
        written = max((number for number, line in enumerate(lines) if line == "written"), default=0)
        begun = max((number for number, line in enumerate(lines[:written]) if line == "writing"), default=0)
        ends = now - max(report["ends"] for report in reports) if reports else None
        return Ran(status, stderr, ends, reports, _keys(lines), _keys(lines[begun:]))

    def noted(self) -> int:
        """Return how many spans of ours the program has noted by now."""
        ids = self.home / "ids"
        return len(_keys(ids.read_text().splitlines())) if ids.exists() else 0

    def workers(self) -> list[int]:
        """Return the worker processes that serve the spool."""
        return [
            pid
            for pid, command in commands()
            if "dspy_trace.export.worker" in command and str(self.home / "spool") in command
        ]

    def deliver_rest(self, timeout: float = 60.0) -> Spool:
        """Deliver what the program has left, as the next one would, and return the spool."""
        environ = {**os.environ, **self.environ}
        with delivering(environ) as delivery:
            assert delivery.deliver_all(timeout * share()), records.problems(delivery.file())
            return delivery.file()


def _keys(lines: list[str]) -> set[Key]:
    return {(line[:32], line[33:]) for line in lines if len(line) == 49}


class Audit:
    """Settles accounts, and writes a line of the table.

    Args:
        board: the table.
    """

    def __init__(self, board: Board) -> None:
        self.board = board

    def settle(
        self,
        fault: str,
        program: Program,
        ran: Ran,
        stored: Callable[[], Set[Key]],
        *,
        in_memory: bool = False,
        note: str = "",
    ) -> set[Key]:
        """Deliver the rest, and check that all that was observed has become something; return what is lost.

        Args:
            fault: what has happened.
            program: what has run.
            ran: what became of it.
            stored: gives what the server has.
            in_memory: accounts were kept in memory, and have ended with the program.
            note: to print beside the fault.
        """
        spool = program.deliver_rest()
        accounts, got = records.accounts(spool), stored()
        letters = [row for letter in records.dead_letters(spool) for row in orjson.loads(letter.payload)]
        lost = ran.ended - got - {(row["trace_id"], row["span_id"]) for row in letters}
        dropped = sum(n for name, n in accounts.items() if name.startswith("dropped")) + ran.queue_dropped
        delivered = len(got & ran.ended) if in_memory else accounts.get("delivered", 0)
        observed = ran.total("observed") or len(ran.ended)
        missing = max(len(lost) - dropped, 0)
        stalls = ran.stall(), ran.exit, ran.stall("cpu longest")
        self.board.rows.append(Row(fault, observed, delivered, missing, *stalls, note))
        if ran.reports:
            assert ran.status == 0, ran.stderr
            assert "Traceback" not in ran.stderr
            assert got <= ran.ended, "what was stored has never been"
            assert missing == 0
            became = delivered + accounts.get("dead", 0) + dropped + ran.total("filtered")
            assert observed == became, (accounts, ran.reports)
            self._check_program(ran)
        return lost

    def fold(self, fault: str, lines: int) -> None:
        """Make one line of the last lines."""
        rows, self.board.rows = self.board.rows[-lines:], self.board.rows[:-lines]
        sums = [
            sum(row_sum) for row_sum in zip(*((row.observed, row.delivered, row.lost) for row in rows), strict=True)
        ]
        self.board.rows.append(Row(f"{fault}, {lines} times", *sums, None, None))

    def _check_program(self, ran: Ran) -> None:
        """Accounts add up at any moment; on a quiet machine stalls are under 1 ms and 10 ms, and the exit under 5 s.

        On a busy one the processor time of these threads counts, with room: the clock counts what others do.
        """
        for told in (told for report in ran.reports for told in (report["early"], report["stats"])):
            parts = [told[name] for name in ("queued", "spooled", "delivered", "dead", "filtered")]
            assert told["observed"] == sum(parts) + sum(told["dropped"].values()), told
        assert (ran.stall("cpu 99.9") or 0) < 1.0 + share(), ran.reports
        assert (ran.stall("cpu longest") or 0) < 10.0 * share(), ran.reports
        if len(ran.reports) == 1:
            assert ran.exit is not None
            assert ran.exit < 4.0 + share(), f"the end of the program took {ran.exit:.1f} s"
