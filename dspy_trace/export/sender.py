"""Delivery of one process: puts batches into the spool, and has what waits there sent."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic

from dspy_trace.export import exit as ending
from dspy_trace.export import records
from dspy_trace.export.drain import Drain
from dspy_trace.export.items import Batch, Counters, Waiting
from dspy_trace.export.launch import Launcher
from dspy_trace.export.outcomes import Undelivered, said
from dspy_trace.export.owners import new_owner
from dspy_trace.export.runner import Runner, Steps, started
from dspy_trace.export.sinks import HttpSink
from dspy_trace.export.spool import Spool
from dspy_trace.export.stores import Stores
from dspy_trace.export.target import Credential, Target
from dspy_trace.guard import shielded

logger = logging.getLogger("dspy_trace")


GRACE = 0.2
"""Seconds that a thread of ours gets for what it is doing when there is no time left."""


class Delivery:
    """Takes batches at any time, and has them delivered. One per process.

    Args:
        durability: ``async`` and ``sync`` keep what waits in the spool; ``none`` in memory, but for what goes to a
            database, since only a file reaches the worker process.
        credentials: gives what opens a target; called on any thread.
        environ: the environment.
    """

    def __init__(
        self,
        *,
        durability: str = "async",
        credentials: Callable[[Target], Credential | None] = lambda target: None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._durability = durability
        self._credentials = credentials
        self._environ = environ
        self._told: set[tuple[str, str]] = set()
        self._begin()
        # While the program lives: none can be started once it has begun to end.
        self._spare = started(Runner())
        _deliveries.add(self)

    def _begin(self) -> None:
        self.owner = new_owner()
        self.drains: dict[str, Drain] = {}
        self.launcher: Launcher | None = None
        self.progress = threading.Event()
        self._lock = threading.RLock()
        self._stores = Stores(self.owner, self._say, self._environ)
        self._runners: list[Runner] = []
        self._spare = None

    def put(self, batches: Sequence[Batch]) -> None:
        """Take batches. Never raises and never waits for a network; writes to the disk."""
        shielded("writing to the spool", self._put, batches)

    def feedback(self, target: Target, trace_id: str, payload: bytes) -> None:
        """Take feedback on a trace, by MLflow's id of it in 32 hexadecimal digits; it is delivered after the trace.

        The payload is JSON of what :func:`dspy_trace.export.mlflow_info.assessment` takes or returns.
        """
        shielded("writing to the spool", self._feedback, target, trace_id, payload)

    def _put(self, batches: Sequence[Batch]) -> None:
        sealed = {batch.target for batch in batches if self._credentials(batch.target) is not None}
        for durable in (True, False):
            some = [batch for batch in batches if self._is_durable(batch.target) is durable]
            if some:
                write = partial(Spool.put, batches=some, owner=self.owner, sealed=sealed)
                self._stores.write(durable, write, sum(batch.spans for batch in some))
        for target in {batch.target for batch in batches}:
            self._serve(target)

    def _feedback(self, target: Target, trace_id: str, payload: bytes) -> None:
        sealed = self._credentials(target) is not None
        put = partial(Spool.put_followup, target=target, trace_id=trace_id.removeprefix("tr-"), kind="feedback")
        self._stores.write(self._is_durable(target), partial(put, payload=payload, owner=self.owner, sealed=sealed))
        self._serve(target)

    def _is_durable(self, target: Target) -> bool:
        return self._durability != "none" or target.kind == "database"

    def file(self) -> Spool:
        """Return the spool of this user and environment, opened on first use."""
        return self._stores.file()

    def memory(self) -> Spool:
        """Return the spool in memory, made on first use."""
        return self._stores.memory()

    def spools(self) -> list[Spool]:
        """Return the spools that are in use."""
        return self._stores.all()

    def _serve(self, target: Target) -> None:
        """Have what waits for a target delivered."""
        with self._lock:
            if target.kind == "database":
                self._launch(target)
            elif target.uri not in self.drains:
                sink = HttpSink(target.uri, self._credentials)
                drain = Drain(target.uri, sink, self.spools, self.owner, tell=self._say, progress=self.progress.set)
                self.drains[target.uri] = drain
                self._employ(drain)
            self._wake()

    def write_runs(self, targets: Collection[Target], write: Callable[[Spool, Collection[Target]], None]) -> None:
        """Have something said of runs at some targets written to the spool, and have the worker see to it."""
        sealed = {one for one in targets if self._credentials(one) is not None}
        self._stores.write(True, lambda spool: write(spool, sealed))
        with self._lock:
            for target in targets:
                self._launch(target)
            self._wake()

    def _launch(self, target: Target) -> None:
        if self.launcher is None:
            self._employ(launcher := Launcher(self._stores.rescued, self._credentials, self._say, self._environ))
            self.launcher = launcher
        self.launcher.serve(target)

    def _wake(self) -> None:
        for runner in self._runners:
            runner.wake()

    def _employ(self, work: Steps) -> None:
        """Give work to a thread of its own; when the program is ending and none can be started, to one that runs."""
        runner, self._spare = self._spare, None
        if runner is None or not runner.is_alive():
            runner = started(Runner())
        if runner is not None:
            self._runners.append(runner)
        elif self._runners:
            runner = self._runners[0]
        else:
            return
        runner.work.append(work)

    def _say(self, uri: str, error: Undelivered) -> None:
        """Log why nothing is delivered, once for each cause."""
        with self._lock:
            if (uri, error.cause) in self._told:
                return
            self._told.add((uri, error.cause))
        logger.warning("dspy-trace: %s", said(uri, error))

    def waits(self, uris: frozenset[str] | None = None, tables: tuple[str, ...] = records.ALL) -> bool:
        """Return whether anything of this process waits, for some tracking URIs or any."""
        return any(records.anything(spool, owner=self.owner, uris=uris, tables=tables) for spool in self.spools())

    def waiting(self, uris: frozenset[str] | None = None) -> Waiting:
        """Return what of this process waits, for some tracking URIs or any."""
        return sum((records.waiting(spool, owner=self.owner, uris=uris) for spool in self.spools()), Waiting())

    @property
    def counters(self) -> Counters:
        """What has become of what was put."""
        names, waiting = self._stores.accounts()
        dropped = {name.partition(": ")[2]: n for name, n in names.items() if name.startswith("dropped: ") and n}
        retried = sum(drain.retried for drain in tuple(self.drains.values()))
        figures = names["delivered"], waiting.spans, names["dead"], dropped, retried
        return Counters(*figures, waiting.bytes, waiting.oldest_age)

    def hurry(self, deadline: float) -> None:
        """Deliver at once what is being held back or put off."""
        with self._lock:
            for work in (*self.drains.values(), self.launcher):
                if work is not None:
                    work.hurry(deadline)
            self._wake()

    def flush(self, timeout: float = 30.0) -> bool:
        """Deliver; return whether nothing of this process waits any more. Takes at most `timeout` seconds."""
        off = self.launcher is not None and self.launcher.off
        uris, tables = (frozenset(self.drains), records.TRACES) if off else (None, records.ALL)
        ending.wait(self, timeout, lambda: self.waits(uris, tables))
        return not self.waits()

    def deliver_all(self, timeout: float = 30.0) -> bool:
        """Deliver what any process has left, as far as its credential is at hand; return whether nothing waits."""
        file = self.file()
        for _, target, sealed, _ in file.targets():
            opened, uris = not sealed or self._credentials(target) is not None, frozenset((target.uri,))
            if opened and records.anything(file, uris=uris):
                self._serve(target)
            if opened and records.anything(file, uris=uris, tables=records.RUNS):
                self._launch(target)
        return ending.wait(self, timeout, lambda: records.anything(file))

    def shutdown(self, timeout: float = 5.0, worker: bool = False) -> bool:
        """Deliver, then end our threads; a later ``put`` starts them again.

        Args:
            timeout: seconds to take, at most.
            worker: let the worker process end as well, once nothing waits that it can deliver.

        Returns:
            whether nothing of this process waits any more.
        """
        deadline = monotonic() + timeout
        done = self.flush(timeout)
        with self._lock:
            runners, self._runners, self._spare = [*self._runners, self._spare], [], None
            drains, self.drains = self.drains, {}
            launcher, self.launcher = self.launcher, None
        for runner in runners:
            if runner is not None:
                runner.end()
        for drain in drains.values():
            drain.close()
        deadline = max(deadline, monotonic() + GRACE)
        for runner in runners:
            if runner is not None:
                runner.join(max(deadline - monotonic(), 0.0))
        for drain in drains.values():
            drain.let_go()
        if launcher is not None:
            launcher.close(worker)
        self._stores.close()
        return done

    def at_exit(self) -> None:
        """Do what the end of the program calls for; see :mod:`dspy_trace.export.exit`."""
        shielded("delivering at exit", ending.at_exit, self, self._environ)

    def forked(self) -> None:
        """Begin anew in a child process: threads, connections and rows are the parent's."""
        self._begin()


_deliveries: weakref.WeakSet[Delivery] = weakref.WeakSet()


def _in_child() -> None:
    for delivery in list(_deliveries):
        delivery.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
