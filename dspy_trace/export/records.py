"""What a spool tells of itself: what waits, what was counted, what went wrong, what was refused."""

from __future__ import annotations

from dataclasses import dataclass
from time import time

from dspy_trace.export.items import Waiting
from dspy_trace.export.owners import has_ended
from dspy_trace.export.spool import Spool, count, number_of
from dspy_trace.export.target import Target


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a target cannot be delivered to, as the last attempt found it.

    Attributes:
        uri: tracking URI of the target.
        cause: a word for the kind. Example: ``unreachable``.
        message: what happened and what to do.
        since: first time, in seconds since 1970.
        last: last time.
        times: how often.
    """

    uri: str
    cause: str
    message: str
    since: float
    last: float
    times: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a server has refused for good: spans, information on a trace, or feedback."""

    id: int
    uri: str
    trace_id: str
    kind: str
    created: float
    spans: int
    reason: str
    payload: bytes


def waiting(spool: Spool, *, owner: str | None = None, uris: frozenset[str] | None = None) -> Waiting:
    """Return what waits: all, or what one process has put there, or what goes to some tracking URIs."""
    where, values = _where(owner, uris)
    spans, batches, size, oldest = spool.read(
        f"SELECT total(b.spans), count(*), total(b.bytes), min(b.created) FROM batches AS b {where}", *values
    )[0]
    followups, oldest_followup = spool.read(f"SELECT count(*), min(b.created) FROM followups AS b {where}", *values)[0]
    dead = spool.read(f"SELECT total(b.spans) FROM dead AS b {where}", *values)[0][0]
    runs, oldest_run = spool.read(f"SELECT count(*), min(b.created) FROM runs AS b {where}", *values)[0]
    created = min((moment for moment in (oldest, oldest_followup, oldest_run) if moment is not None), default=None)
    age = 0.0 if created is None else max(time() - created, 0.0)
    return Waiting(int(spans), int(batches), int(size), int(followups), age, int(dead), int(runs))


TRACES = ("batches", "followups")
RUNS = ("runs",)
ALL = (*TRACES, *RUNS)
"""Tables of what waits: what is said of traces, and what of runs."""


def anything(
    spool: Spool,
    *,
    owner: str | None = None,
    uris: frozenset[str] | None = None,
    tables: tuple[str, ...] = ALL,
) -> bool:
    """Return whether anything waits, quickly."""
    where, values = _where(owner, uris)
    return any(spool.read(f"SELECT 1 FROM {table} AS b {where} LIMIT 1", *values) for table in tables)


def _where(owner: str | None, uris: frozenset[str] | None) -> tuple[str, list[str]]:
    wanted, values = [], []
    if owner is not None:
        wanted.append("b.owner = ?")
        values.append(owner)
    if uris is not None:
        marks = ", ".join("?" * len(uris))
        wanted.append(f"b.target IN (SELECT id FROM targets WHERE uri IN ({marks}))")
        values += sorted(uris)
    return ("WHERE " + " AND ".join(wanted) if wanted else ""), values


def accounts(spool: Spool, owner: str | None = None) -> dict[str, int]:
    """Return spans by what has become of them: of one process, or of all that have used the spool."""
    if owner is None:
        return dict(spool.read("SELECT name, sum(n) FROM accounts GROUP BY name"))
    return dict(spool.read("SELECT name, n FROM accounts WHERE owner = ?", owner))


def tidy(spool: Spool) -> None:
    """Add the accounts of processes that have ended to those of the past."""
    owners = [owner for (owner,) in spool.read("SELECT DISTINCT owner FROM accounts WHERE owner != ''")]
    ended = [owner for owner in owners if has_ended(owner)]
    if not ended:
        return
    with spool.writing() as db:
        for owner in ended:
            db.execute(
                "INSERT INTO accounts SELECT '', name, n FROM accounts WHERE owner = ?"
                " ON CONFLICT (owner, name) DO UPDATE SET n = accounts.n + excluded.n",
                (owner,),
            )
            db.execute("DELETE FROM accounts WHERE owner = ?", (owner,))


def adopt(spool: Spool) -> bool:
    """Let anybody take what is held by processes that have ended; return whether there was any."""
    held = spool.read("SELECT holder FROM batches WHERE until > 0 UNION SELECT holder FROM followups WHERE until > 0")
    ended = [holder for (holder,) in held if has_ended(holder)]
    for holder in ended:
        spool.release(holder)
    return bool(ended)


def look_again(spool: Spool, uri: str, late: float) -> float | None:
    """Return in how many seconds there may be more for a tracking URI, `late` at most, and ``None`` if nothing waits.

    There is only feedback that came before its trace, or what another process holds.
    """
    if not anything(spool, uris=frozenset((uri,))):
        return None
    if adopt(spool):
        return 0.0
    return 1.0 if spool.read("SELECT 1 FROM followups LIMIT 1") else late


def close_accounts(source: Spool, into: Spool, owner: str) -> None:
    """Carry the accounts and dead letters of a process into another spool."""
    told = accounts(source, owner)
    dead = source.read(
        "SELECT uri, experiment_id, experiment_name, sealed, trace_id, kind, d.owner, created, spans, reason, payload"
        " FROM dead AS d JOIN targets AS t ON t.id = d.target WHERE d.owner = ?",
        owner,
    )
    with into.writing() as db:
        for name, n in told.items():
            count(db, owner, name, n)
        for uri, ident, name, sealed, *rest in dead:
            number = number_of(db, Target(uri, ident or None, name or None), bool(sealed))
            db.execute(_DEAD, (number, *rest))
    with source.writing() as db:
        for table in ("accounts", "dead"):
            db.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,))


_DEAD = """INSERT INTO dead (target, trace_id, kind, owner, created, spans, reason, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""


def report(spool: Spool, uri: str, cause: str, message: str) -> None:
    """Note why a target cannot be delivered to."""
    now = time()
    with spool.writing() as db:
        db.execute(
            "INSERT INTO problems VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (uri, cause)"
            " DO UPDATE SET message = excluded.message, last = excluded.last, n = n + 1",
            (uri, cause, message, now, now),
        )


def healed(spool: Spool, uri: str) -> None:
    """Forget what was wrong with a target, since something has been delivered there."""
    with spool.writing() as db:
        db.execute("DELETE FROM problems WHERE uri = ?", (uri,))


def problems(spool: Spool) -> list[Problem]:
    """Return what is wrong now."""
    found = spool.read("SELECT uri, cause, message, since, last, n FROM problems ORDER BY last DESC")
    return [Problem(*row) for row in found]


def dead_letters(spool: Spool) -> list[DeadLetter]:
    """Return what was refused, oldest first."""
    found = spool.read(
        "SELECT d.id, t.uri, d.trace_id, d.kind, d.created, d.spans, d.reason, d.payload"
        " FROM dead AS d JOIN targets AS t ON t.id = d.target ORDER BY d.id"
    )
    return [DeadLetter(*row) for row in found]


def replay(spool: Spool, letter: DeadLetter) -> None:
    """Let what was refused be sent once more."""
    now = time()
    with spool.writing() as db:
        found = db.execute("SELECT target, owner FROM dead WHERE id = ?", (letter.id,)).fetchone()
        if found is None:
            return
        target, owner = found
        db.execute("DELETE FROM dead WHERE id = ?", (letter.id,))
        db.execute("UPDATE accounts SET n = n - ? WHERE owner = ? AND name = 'dead'", (letter.spans, owner))
        if letter.kind == "spans":
            values = (target, letter.trace_id, owner, now, letter.spans, len(letter.payload), letter.payload)
            db.execute(
                "INSERT INTO batches (target, trace_id, owner, holder, until, created, spans, bytes, complete, payload)"
                " VALUES (?, ?, ?, '', 0, ?, ?, ?, 1, ?)",
                values,
            )
        elif letter.kind == "run":
            db.execute(
                "INSERT INTO runs (target, run, owner, created, bytes, payload) VALUES (?, ?, ?, ?, ?, ?)",
                (target, letter.trace_id, owner, now, len(letter.payload), letter.payload),
            )
        else:
            db.execute(
                "INSERT INTO followups (target, trace_id, kind, owner, holder, until, created, payload)"
                " VALUES (?, ?, ?, ?, '', 0, ?, ?)",
                (target, letter.trace_id, letter.kind, owner, now, letter.payload),
            )


def drop_dead(spool: Spool, letter: DeadLetter) -> None:
    """Forget what was refused; it counts as dropped from then on."""
    with spool.writing() as db:
        found = db.execute("SELECT owner FROM dead WHERE id = ?", (letter.id,)).fetchone()
        if found is None:
            return
        db.execute("DELETE FROM dead WHERE id = ?", (letter.id,))
        db.execute("UPDATE accounts SET n = n - ? WHERE owner = ? AND name = 'dead'", (letter.spans, found[0]))
        db.execute(
            "INSERT INTO accounts VALUES (?, 'dropped: dead letter', ?) ON CONFLICT (owner, name)"
            " DO UPDATE SET n = n + excluded.n",
            (found[0], letter.spans),
        )
