"""What is read out of a spool with bad pages: all that can be found on either side of each, and the loss is counted."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from time import time

import pytest

from dspy_trace.export import aside, records, salvage
from dspy_trace.export.aside import was_put_aside
from dspy_trace.export.places import open_spool, spool_file
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from dspy_trace.runs import spooled
from dspy_trace.runs.spooled import Record
from tests.delivery import PAGE, checkpoint, environment, trace

TARGET = Target("http://127.0.0.1:9", experiment_name="mine")
PUT = 400


def spool_with(folder: Path, text: str) -> Spool:
    """Return a spool with traces of a process that has ended, of three spans each, and records of a run."""
    made = open_spool(environ=environment(folder))
    for _ in range(PUT):
        made.put([trace(TARGET, text=text)], "me")
    spooled.put(made, [Record(TARGET, "run", b"%d" % number + text.encode().ljust(300)) for number in range(PUT)], "me")
    checkpoint(spool_file(folder / "spool"))
    return made


LEAF, GOES_ON = 0x0D, 0x00
"""How pages with rows begin, and those on which long rows go on."""


def pages(file: Path, kind: int) -> list[int]:
    """Return where the pages of a kind are, but for the first."""
    data = file.read_bytes()
    return [at for at in range(PAGE, len(data), PAGE) if data[at] == kind]


def roots(file: Path, like: str) -> list[int]:
    """Return where the first pages of some indices or tables are."""
    with closing(sqlite3.connect(file)) as db:
        found = db.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE ?", (like,)).fetchall()
    return [(page - 1) * PAGE for (page,) in found]


def spoil(file: Path, places: Iterable[int]) -> None:
    """Write something else over some pages."""
    with file.open("r+b") as opened:
        for place in places:
            opened.seek(place)
            opened.write(b"\xff" * PAGE)


def some_leaves(file: Path) -> None:
    """Spoil one in ten of the pages with rows, and two that stand side by side."""
    found = pages(file, LEAF)
    spoil(file, [*found[15::10], found[31], found[32]])


def indices(file: Path) -> None:
    """Spoil the same, and what could tell which rows there were."""
    some_leaves(file)
    spoil(file, roots(file, "%_by_%"))


def targets(file: Path) -> None:
    """Spoil the same, and where rows are to go."""
    some_leaves(file)
    spoil(file, roots(file, "targets"))


def some_payloads(file: Path) -> None:
    """Spoil pages on which long rows go on."""
    spoil(file, pages(file, GOES_ON)[5::300])


def readable(file: Path, table: str) -> set[int]:
    """Return the ids of the rows that can be read when each is asked for alone."""
    found = set()
    with closing(sqlite3.connect(file)) as db:
        for number in range(1, PUT + 1):
            with suppress(sqlite3.DatabaseError):
                found |= {number for _ in db.execute(f"SELECT * FROM {table} WHERE id = ?", (number,)).fetchall()}
    return found


@pytest.mark.parametrize(
    ("damage", "text", "counted"),
    [(some_leaves, "x", 1), (indices, "x", 0), (targets, "x", 1), (some_payloads, "x" * 20_000, 3)],
)
def test_all_that_can_be_read(
    damage: Callable[[Path], None], text: str, counted: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each row that SQLite finds is kept, and of the loss is counted what can be known.

    That is all where only payloads are lost, one span a batch where all of it is, and nothing without an index.
    """
    made, file = spool_with(tmp_path, text), spool_file(tmp_path / "spool")
    damage(file)
    expected = {table: readable(file, table) for table in ("batches", "runs")}
    assert all(PUT * 0.7 < len(found) < PUT for found in expected.values()), expected
    with pytest.raises(sqlite3.DatabaseError):
        made.read("SELECT payload FROM batches")
    again = open_spool(environ=environment(tmp_path), broken=made)
    assert {table: {number for (number,) in again.read(f"SELECT id FROM {table}")} for table in expected} == expected
    assert [target for _, target, _, _ in again.targets()] == [TARGET]
    lost = {table: PUT - len(found) for table, found in expected.items()}
    assert records.accounts(again, "me") == ({"dropped: spool broken": lost["batches"] * counted} if counted else {})
    (said,) = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert f"{3 * len(expected['batches'])} spans and {len(expected['runs'])} records of runs that waited" in said
    more = f"at least {lost['batches'] * counted} spans and {lost['runs']} records of runs could not; what"
    assert (more in said) == (counted > 0)


def test_others_need_not_wait_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no time to look between bad pages, what is before the first and behind the last is still kept."""
    monkeypatch.setattr(salvage, "_SECONDS", 0.0)
    made, file = spool_with(tmp_path, "x"), spool_file(tmp_path / "spool")
    some_leaves(file)
    all_readable = {table: readable(file, table) for table in ("batches", "runs")}
    with pytest.raises(sqlite3.DatabaseError):
        made.read("SELECT payload FROM batches")
    again = open_spool(environ=environment(tmp_path), broken=made)
    for table, found in all_readable.items():
        assert {1, PUT} < {number for (number,) in again.read(f"SELECT id FROM {table}")} < found


def put_aside(file: Path) -> list[Path]:
    """Return what was put aside, newest first."""
    return sorted(file.parent.glob(f"{file.name}.broken-*"), reverse=True)


def broken_again(folder: Path, content: bytes) -> None:
    """Let a spool break, and be opened again."""
    file = spool_file(folder / "spool")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    open_spool(environ=environment(folder)).close()


def test_how_many_are_kept(tmp_path: Path) -> None:
    """The newest three; who still has another open sees by its name what has become of it, for a day."""
    file = spool_file(tmp_path / "spool")
    broken_again(tmp_path, b"0" * PAGE)
    open_elsewhere = open_spool(environ=environment(tmp_path))
    assert not was_put_aside(open_elsewhere)
    for number in range(1, 6):
        broken_again(tmp_path, b"%d" % number * PAGE)
    assert [one.read_bytes()[:1] for one in put_aside(file)] == [b"5", b"4", b"3", b"", b"", b""]
    assert was_put_aside(open_elsewhere)
    open_elsewhere.close()


def test_how_long_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For 30 days, but for the newest, which always stays; none of those empty ones for more than a day."""
    file = spool_file(tmp_path / "spool")
    for number in range(5):
        broken_again(tmp_path, b"%d" % number * PAGE)
    made = open_spool(environ=environment(tmp_path))
    for days, kept in ((0, 5), (2, 3), (29, 3), (31, 1), (1_000, 1)):
        monkeypatch.setattr(aside, "time", lambda days=days: time() + days * 86_400)
        made.trim()
        assert [one.read_bytes()[:1] for one in put_aside(file)] == [b"4", b"3", b"2", b"", b""][:kept]
    made.close()
