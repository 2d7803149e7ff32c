"""What tracing adds to one call, beside the same spans written by hand with the OpenTelemetry SDK.

One call is a module that holds a ``ChainOfThought``: four spans, with content, on DSPy's scripted LM, so that no
network hides anything. Untraced, by hand and ours take turns; the medians of the rounds are printed, with their ratio::

    uv run python benchmarks/overhead.py
    uv run python benchmarks/overhead.py --rounds 9 --calls 500 --json
    uv run python benchmarks/overhead.py --metrics
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from benchmarks import by_hand, program
from dspy_trace import DSPyInstrumentor

Run = Callable[[int], float]


def seconds(call: Callable[[], object], calls: int) -> float:
    """Return the mean seconds of one call, of this thread's processor time: what else the machine does is left out."""
    gc.collect()
    start = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - start) / calls


def quiet_provider(*, sampled: bool = True) -> TracerProvider:
    """Return a provider whose spans go nowhere: making them is what is measured."""
    provider = TracerProvider(shutdown_on_exit=False) if sampled else TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor())
    return provider


def untraced(calls: int) -> float:
    return seconds(program.make(), calls)


def handwritten(calls: int) -> float:
    return seconds(by_hand.make(quiet_provider().get_tracer("by hand")), calls)


def ours(
    calls: int, provider: TracerProvider | None = None, *, sdk: bool = True, meters: MeterProvider | None = None
) -> float:
    tracers = (provider or quiet_provider()) if sdk else None
    DSPyInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters, capture_content=True)
    try:
        return seconds(program.make(), calls)
    finally:
        DSPyInstrumentor().uninstrument()


VARIANTS: dict[str, Run] = {
    "untraced": untraced,
    "by hand": handwritten,
    "dspy-trace": ours,
    "dspy-trace, not sampled": lambda calls: ours(calls, quiet_provider(sampled=False)),
    "dspy-trace, no SDK": lambda calls: ours(calls, sdk=False),
}


def measured(calls: int) -> float:
    """Record metrics, too, for a reader that nobody asks."""
    return ours(calls, meters=MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))


def same_spans() -> int:
    """Check that both ways record the same spans with the same attributes; return how many a call makes."""

    def spans(run: Callable[[TracerProvider], object]) -> list[object]:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        run(provider)
        return [(span.name, span.kind, dict(span.attributes or {})) for span in exporter.get_finished_spans()]

    def observed(provider: TracerProvider) -> None:
        DSPyInstrumentor().instrument(tracer_provider=provider, capture_content=True)
        try:
            program.make()()
        finally:
            DSPyInstrumentor().uninstrument()

    hand = spans(lambda provider: by_hand.make(provider.get_tracer("by hand"))())
    us = spans(observed)
    if hand != us:
        sys.exit(f"The spans differ, so the comparison would be unfair:\n{hand}\n{us}")
    return len(us)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=60, help="calls a round")
    parser.add_argument("--metrics", action="store_true", help="measure with metrics as well")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.metrics:
        VARIANTS["dspy-trace, metrics too"] = measured
    count = same_spans()
    for run in VARIANTS.values():
        run(20)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(options.rounds):
        for name, run in VARIANTS.items():
            times[name].append(run(options.calls))
    base = times["untraced"]
    added = {name: statistics.median(t - b for t, b in zip(ran, base, strict=True)) for name, ran in times.items()}
    report = {
        "spans a call": count,
        "untraced us a call": round(statistics.median(base) * 1e6, 1),
        "added us a call": {name: round(value * 1e6, 1) for name, value in added.items() if name != "untraced"},
        "added us an observed call": {
            name: round(value / count * 1e6, 1) for name, value in added.items() if name != "untraced"
        },
        "dspy-trace / by hand": round(added["dspy-trace"] / added["by hand"], 2),
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{count} spans a call; untraced call {report['untraced us a call']} us; median of {options.rounds} rounds")
    for name, value in added.items():
        if name != "untraced":
            each = value / count * 1e6
            print(f"{name:26} +{value * 1e6:7.1f} us, {each:5.1f} a span   {value / added['by hand']:5.2f} x by hand")


if __name__ == "__main__":
    main()
