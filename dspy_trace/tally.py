"""Sums of what LM calls have used."""

from __future__ import annotations

from threading import Lock

from dspy_trace.facts import DecisionCall, LMCall


class Tally:
    """Sums over every LM call beneath one unit of work; adding to a tally adds to all above it.

    Safe across threads: a ``Parallel`` step adds to its program's tally from many at once.
    """

    __slots__ = ("_lock", "above", "cache_hits", "cost", "input_tokens", "lm_calls", "output_tokens")

    def __init__(self, above: Tally | None = None) -> None:
        self.above = above
        self.lm_calls = 0
        self.cache_hits = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost: float | None = None
        self._lock = Lock()

    def add(self, call: LMCall | DecisionCall) -> None:
        """Count one LM call; on a cache hit neither tokens nor cost, since nothing was paid for.

        One that only relays another, as a router's does, reports the other's usage again and is not counted.
        """
        if isinstance(call, LMCall) and call.relays:
            return
        tally: Tally | None = self
        while tally is not None:
            with tally._lock:
                tally.lm_calls += 1
                if call.cache_hit:
                    tally.cache_hits += 1
                else:
                    tally.input_tokens += call.input_tokens or 0
                    tally.output_tokens += call.output_tokens or 0
                    if call.cost is not None:
                        tally.cost = (tally.cost or 0.0) + call.cost
            tally = tally.above
