"""Delivering what waits for one server or database: what is sent when, and what is done when it fails."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Any

import orjson

from dspy_trace.export import records
from dspy_trace.export.choice import choose, rows_in
from dspy_trace.export.items import Batch, Dead, Followup, Settled
from dspy_trace.export.outcomes import Failing, Refused, Undelivered, Unreachable, Unwelcome
from dspy_trace.export.pace import in_turns
from dspy_trace.export.pauses import Pauses
from dspy_trace.export.search import Search
from dspy_trace.export.sinks import Row, Sink
from dspy_trace.export.spool import Spool
from dspy_trace.export.target import Target
from dspy_trace.guard import ask, attempt, shielded
from dspy_trace.runs.spooled import mlflow_id
from dspy_trace.vocab.mlflow_keys import SOURCE_RUN

logger = logging.getLogger("dspy_trace")

FIRST, LONGEST = 0.5, 30.0
"""Seconds until a failed delivery is tried again: at most, the first time and in the end."""

PATIENCE = 300.0
"""Most seconds that a server may ask us to wait."""

FOLLOWUPS = 20
"""What follows traces is sent in between, this many at a time: each costs a server as much as three traces."""

STRANGER = 3_600.0
"""Seconds after which feedback on a trace that is not there is given up."""

NAMELESS = 15.0
"""Seconds that what is said of a trace waits for its run to be made, so that it can name it; nobody waits for that."""

UNREADABLE = "what the spool holds is not readable"

Tell = Callable[[str, Undelivered], None]
"""Told why nothing is delivered to a tracking URI, whenever that is so."""


class Drain:
    """Delivers what waits for one tracking URI. Used by one thread.

    Args:
        uri: the tracking URI.
        sink: what takes it.
        spools: gives the spools to take from.
        holder: in whose name rows are held meanwhile.
        tell: told of failures, for people to read.
        progress: called when something has been delivered.
    """

    def __init__(
        self,
        uri: str,
        sink: Sink,
        spools: Callable[[], Sequence[Spool]],
        holder: str,
        *,
        tell: Tell,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.uri = uri
        self.holder = holder
        self.failed = 0
        """Failed attempts, ever."""
        self.retried = 0
        """Spans that were sent in vain and have to be sent again, ever."""
        self.asked_to_wait = False
        """Whether the server has asked for the pause that is being made."""
        self.problem: Undelivered | None = None
        self.last_success = monotonic()
        self._sink = sink
        self._spools = spools
        self._tell = tell
        self._progress = progress
        self._failures = 0
        self._not_before = 0.0
        self._pauses = Pauses(_slow)
        self._hurry = 0.0
        self._search = Search()
        self._trimmed = monotonic()
        self._clean = False
        self._closed = False

    def hurry(self, deadline: float) -> None:
        """Hold no trace back until `deadline`, and do not sit out a pause, unless the server asked for it."""
        self._hurry = deadline
        self._pauses.hurry()
        if not self.asked_to_wait:
            self._not_before = 0.0

    def step(self) -> float | None:
        """Deliver some; return the seconds until there is more to do, ``None`` if only a call can tell."""
        if self._closed:
            return None
        left = self._not_before - monotonic()
        if left > 0:
            return left
        try:
            return self._tried()
        except sqlite3.Error as error:
            logger.debug("dspy-trace: the spool cannot be read: %s", error)
            return 1.0
        finally:
            if self._closed:
                self.let_go()

    def _tried(self) -> float | None:
        try:
            return self._round()
        except Undelivered as undelivered:
            return self._failed(undelivered)

    def close(self) -> None:
        """Let no step follow the one that may be going on; that one lets go of everything when it ends."""
        self._closed = True

    def let_go(self) -> None:
        """Close the connection, and let others take what is held."""
        for spool in self._spools():
            shielded("closing the spool", spool.release, self.holder)
        self._sink.close()

    def _round(self) -> float | None:
        """Send at most one request of spans and a few of what follows for each experiment."""
        due: list[float] = []
        for spool in self._spools():
            for number, target, _, _ in spool.targets(self.uri):
                try:
                    later = self._pauses.left(target) or self._serve(spool, number, target)
                except Unwelcome as unwelcome:
                    later = self._pauses.begin(target, unwelcome)
                if later is not None:
                    due.append(later)
            if not due and (look := self._look(spool)) is not None:
                due.append(look)
            self._trim(spool)
        for error in self._pauses.to_be_said(busy=0.0 in due):
            self._note(error)
        return min(due, default=None)

    def _serve(self, spool: Spool, number: int, target: Target) -> float | None:
        """Do so for one experiment; return the seconds until it is due again, ``None`` if nothing is there for it."""
        ready, later = choose(spool.heads(number, target, self.holder), time(), monotonic() < self._hurry)
        if ready:
            self._deliver(spool, number, target, ready)
        for followup in spool.followups(number, target, self.holder, FOLLOWUPS):
            self._follow(spool, number, followup)
            later = 0.0
        if not ready and later is None:
            self._pauses.end(target)
        return 0.0 if ready else later

    def _look(self, spool: Spool) -> float | None:
        """Return when to look again for what is not ours to deliver yet, ``None`` if there is nothing."""
        return records.look_again(spool, self.uri, LONGEST / 3)

    def _trim(self, spool: Spool) -> None:
        if monotonic() - self._trimmed > 60:
            self._trimmed = monotonic()
            spool.trim()

    def _deliver(self, spool: Spool, number: int, target: Target, heads: Sequence[Batch]) -> None:
        from dspy_trace.export.mlflow_info import said_of

        taken = spool.take(heads, self.holder)
        if not taken:
            return
        rows: dict[tuple[str, str], tuple[Row, Batch]] = {}
        settled = Settled(taken)
        for batch in in_turns(taken, every=8):
            found = ask(rows_in, batch.payload)
            if found is None:
                settled.dead.append(Dead(batch.trace_id, "spans", batch.payload, UNREADABLE, batch.spans, batch.owner))
            else:
                rows.update({key: (row, batch) for key, row in found.items()})
        try:
            refused = self._search.send(lambda part: self._sink.spans(target, part), [row for row, _ in rows.values()])
        except Undelivered:
            self.retried += sum(batch.spans for batch in taken)
            raise
        for row, words in refused:
            batch = rows[row["trace_id"], row["span_id"]][1]
            settled.dead.append(Dead(batch.trace_id, "spans", orjson.dumps([row]), words, 1, batch.owner))
        settled.infos = [told for batch in in_turns(taken, 8) if (told := said_of(batch, self._sink.experiment))]
        spool.settle(number, settled)
        self._succeeded(spool, target)
        if refused:
            words = f"{len(refused)} span{'s' * (len(refused) > 1)} ({refused[0][1]})"
            self._tell(self.uri, Undelivered(words, "dead", "They are kept: see `dspy-trace dead-letters`."))

    def _follow(self, spool: Spool, number: int, followup: Followup) -> None:
        told: dict[str, Any] | None = ask(orjson.loads, followup.payload)
        if isinstance(told, dict) and not self._names_run(spool, followup, told):
            spool.postpone(followup, FIRST / 2, failed=False)
            return
        try:
            self._send_followup(followup, told)
        except (Refused, Failing) as error:
            if isinstance(error, Failing) and followup.tries < 3:
                spool.postpone(followup, LONGEST)
            else:
                spool.refuse(number, followup, error.words)
        except Unwelcome as error:
            if error.cause != "missing":
                raise
            # Its trace may be on its way, through another process.
            if time() - followup.created > STRANGER:
                spool.refuse(number, followup, error.words)
            else:
                spool.postpone(followup, min(FIRST * 2**followup.tries, LONGEST))
        else:
            spool.followed(followup)
            self._succeeded(spool, followup.target)

    def _names_run(self, spool: Spool, followup: Followup, told: dict[str, Any]) -> bool:
        """Let what is said of a trace name the run of ours that it is of; return whether no more is to be hoped for.

        The worker, which makes the run, links the two in any case.
        """
        run = told.pop("run", None)
        found = ask(mlflow_id, spool, run) if run is not None else None
        if found is not None:
            told["trace_metadata"][SOURCE_RUN] = found
        in_hurry = monotonic() < self._hurry or self._closed
        return run is None or found is not None or in_hurry or time() - followup.created > NAMELESS

    def _send_followup(self, followup: Followup, told: Any) -> None:
        from dspy_trace.export.mlflow_info import assessment

        if not isinstance(told, dict):
            raise Refused(UNREADABLE)
        if followup.kind == "info":
            self._sink.info(followup.target, told)
            return
        if "assessment_name" not in told:
            told, error = attempt(assessment, f"tr-{followup.trace_id.removeprefix('tr-')}", told)
            if error is not None:
                raise Refused(UNREADABLE)
        self._sink.feedback(followup.target, told)

    def _succeeded(self, spool: Spool, target: Target) -> None:
        self._pauses.end(target)
        if (self.problem is not None or not self._clean) and not self._pauses.are_for(self.problem):
            if self.problem is not None:
                logger.info("dspy-trace: %s takes traces again", self.uri)
            self._clean, self.problem = True, None
            records.healed(spool, self.uri)
            self._pauses.say_again()
        self._failures = 0
        self._not_before = 0.0
        self.last_success = monotonic()
        self._progress()

    def _failed(self, error: Undelivered) -> float:
        """Note a failure; return the seconds until the next try."""
        self._failures += 1
        self.asked_to_wait = False
        if isinstance(error, Unreachable) and error.retry_after is not None:
            self.asked_to_wait = True
            delay = min(error.retry_after, PATIENCE) + random.uniform(0, FIRST)
        elif isinstance(error, Unwelcome):
            delay = _slow(self._failures)
        else:
            delay = random.uniform(0, _most(self._failures))
        self._not_before = monotonic() + delay
        self._note(error)
        return delay

    def _note(self, error: Undelivered) -> None:
        self.failed += 1
        self.problem = error
        for spool in self._spools():
            records.report(spool, self.uri, error.cause, f"{error.words}. {error.remedy}")
        # A server that restarts is nobody's concern.
        if isinstance(error, Unwelcome) or self._failures >= 2:
            self._tell(self.uri, error)
        self._progress()


def _most(failures: int) -> float:
    """Return the longest pause after so many failures."""
    return min(FIRST * 2.0 ** min(failures, 10), LONGEST)


def _slow(failures: int) -> float:
    """Return the seconds until what somebody has to mend is tried again."""
    most = _most(failures)
    return random.uniform(most / 2, most) * 2
