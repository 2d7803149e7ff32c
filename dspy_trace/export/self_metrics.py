"""The accounts of delivery as OpenTelemetry metrics, for those who watch many programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from dspy_trace._version import __version__
from dspy_trace.guard import shielded
from dspy_trace.observing.observer import SCOPE

if TYPE_CHECKING:
    from dspy_trace.export.items import Counters
    from dspy_trace.export.outlet import Outlet
    from dspy_trace.export.processor import Counts

Account = Callable[["Counts", "Counters", dict[str, int]], list[Observation]]
"""Takes what the processor has counted, what the spool has, and what was dropped before it, by reason."""

COUNTERS: dict[str, tuple[str, Account]] = {
    "dspy_trace.spans.observed": ("Spans that ended", lambda c, s, d: [Observation(c.observed)]),
    "dspy_trace.spans.delivered": ("Spans that MLflow has acknowledged", lambda c, s, d: [Observation(s.delivered)]),
    "dspy_trace.spans.filtered": ("Spans of traces without a DSPy call", lambda c, s, d: [Observation(c.filtered)]),
    "dspy_trace.spans.retried": ("Spans that were sent in vain, over HTTP", lambda c, s, d: [Observation(s.retried)]),
    "dspy_trace.spans.dropped": (
        "Spans given up, by reason",
        lambda c, s, d: [
            Observation(n, {"reason": why}) for why, n in {**s.dropped, "queue full": c.dropped, **d}.items() if n
        ],
    ),
}
LEVELS: dict[str, tuple[str, str, Account]] = {
    "dspy_trace.spans.waiting": (
        "{span}",
        "Spans that wait, in memory or in the spool",
        lambda c, s, d: [Observation(c.queued, {"where": "memory"}), Observation(s.waiting, {"where": "spool"})],
    ),
    "dspy_trace.spans.dead": (
        "{span}",
        "Spans that MLflow has refused for good",
        lambda c, s, d: [Observation(s.dead)],
    ),
    "dspy_trace.spool.size": ("By", "Payload that waits in the spool", lambda c, s, d: [Observation(s.bytes)]),
    "dspy_trace.spool.age": ("s", "Age of the oldest that waits", lambda c, s, d: [Observation(s.age)]),
}


def tell_metrics(out: Outlet, provider: MeterProvider | None = None) -> None:
    """Let the meter provider, the global one by default, read the accounts of this process whenever it collects."""
    meter = get_meter(SCOPE, __version__, provider)

    def reader(account: Account) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterable[Observation]:
            def told() -> list[Observation]:
                counts, (counters, dropped) = out.processor.counted(out.accounts)
                return account(counts, counters, dropped)

            return shielded("counting", told) or []

        return read

    for name, (text, account) in COUNTERS.items():
        meter.create_observable_counter(name, [reader(account)], "{span}", text)
    for name, (unit, text, account) in LEVELS.items():
        meter.create_observable_up_down_counter(name, [reader(account)], unit, text)
