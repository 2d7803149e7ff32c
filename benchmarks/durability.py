"""What each durability costs a program: seconds of its thread for a span, by the clock and by the processor.

A span of ours with two kilobytes of content ends, again and again; nothing is sent anywhere, so that what is measured
is the way into the spool. Each durability takes its turn in a process of its own; medians of the rounds are printed::

    uv run python -m benchmarks.durability
    uv run python -m benchmarks.durability --rounds 9 --spans 5000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter, thread_time

MODES = ("none", "async", "sync")

PROMISES = {
    "none": "lives in memory until it is delivered",
    "async": "in the spool within 0.2 s",
    "sync": "in the spool when the call returns",
}


def measure(spans: int) -> dict[str, float]:
    """Return microseconds a span takes beyond the SDK's own work, in the durability that the environment names."""
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from dspy_trace.export.outlet import outlet
    from dspy_trace.vocab import mlflow_keys

    out, provider, bare = outlet(), TracerProvider(shutdown_on_exit=False), TracerProvider(shutdown_on_exit=False)
    out.join(provider)
    bare.add_span_processor(SpanProcessor())
    beside = {mlflow_keys.INPUTS: "x" * 1_000, mlflow_keys.OUTPUTS: "x" * 1_000}

    def run(tracer: object, ours: bool) -> tuple[float, float]:
        clock, cpu = perf_counter(), thread_time()
        for _ in range(spans):
            span = tracer.start_span("span")  # type: ignore[attr-defined]
            if ours:
                out.processor.keep(span.get_span_context(), beside)
            span.end()
        return perf_counter() - clock, thread_time() - cpu

    run(provider.get_tracer("ours"), True)
    without, withus = run(bare.get_tracer("bare"), False), run(provider.get_tracer("ours"), True)
    told = {name: (b - a) / spans * 1e6 for name, a, b in zip(("clock", "cpu"), without, withus, strict=True)}
    out.processor.write_out()
    return {**told, "dropped": float(out.processor.counts.dropped)}


def in_a_process(mode: str, spans: int) -> dict[str, float]:
    """Measure one durability in a process and with a spool of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "DSPY_TRACE_SPOOL_DIR": folder,
            "DSPY_TRACE_DURABILITY": mode,
            "DSPY_TRACE_EXIT_WAIT": "0",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        }
        command = [sys.executable, "-m", "benchmarks.durability", "--measure", "--spans", str(spans)]
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=2_000, help="spans a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.spans)))
        return
    rounds = [{mode: in_a_process(mode, options.spans) for mode in MODES} for _ in range(options.rounds)]
    told = {
        mode: {name: round(statistics.median(one[mode][name] for one in rounds), 1) for name in ("clock", "cpu")}
        for mode in MODES
    }
    if options.json:
        print(json.dumps(told))
        return
    for mode in MODES:
        print(f"{mode:6} {told[mode]['clock']:8.1f} us a span, {told[mode]['cpu']:8.1f} us CPU   {PROMISES[mode]}")


if __name__ == "__main__":
    main()
