"""One measured program under one kind of tracing, in a process and an environment of its own; run by ``peers.py``.

``python -m benchmarks.peer KIND CALLS`` makes that many calls of the measured program and prints one JSON object:
seconds of the program's thread a call, what setting up took in time and memory, the processor time of the process
before the first call, and when the last was over.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import program


def untraced() -> None:
    """Do nothing."""


def dspy_trace() -> None:
    """One line; where to is in the environment."""
    import dspy_trace as ours

    ours.autolog()


def mlflow() -> None:
    """MLflow's own integration; where to is in the environment."""
    import mlflow as theirs

    theirs.dspy.autolog()


def openinference() -> None:
    """OpenInference over OTLP, with the stock exporter."""
    from openinference.instrumentation.dspy import DSPyInstrumentor

    DSPyInstrumentor().instrument(tracer_provider=_provider())


def opentelemetry() -> None:
    """OpenTelemetry's own GenAI instrumentation over OTLP, with the stock exporter."""
    from opentelemetry.instrumentation.genai.dspy import DSPyInstrumentor

    DSPyInstrumentor().instrument(tracer_provider=_provider())


def _provider() -> object:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


KINDS: dict[str, Callable[[], None]] = {
    "untraced": untraced,
    "dspy-trace": dspy_trace,
    "mlflow": mlflow,
    "openinference": openinference,
    "opentelemetry": opentelemetry,
}


def megabytes() -> float:
    """Return the memory that this process has now, in MB; where that is not told, the most it has had."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(kind: str, calls: int) -> None:
    call = program.make()
    call()
    size, begun = megabytes(), time.monotonic()
    KINDS[kind]()
    ready = time.monotonic() - begun
    call()  # what is done once is not a call's
    before, start = time.process_time(), time.thread_time()
    for _ in range(calls):
        call()
        # Slower than any of them delivers, so that none is measured while its queue is full.
        time.sleep(0.002)
    used = (time.thread_time() - start) / calls
    told = {"call": used, "set up": ready, "memory": megabytes() - size, "before": before, "done": time.monotonic()}
    os.write(1, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
