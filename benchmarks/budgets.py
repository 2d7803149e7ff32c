"""What a program may notice of being traced besides the time of a call: its start, its event loop, its memory, size.

Each is measured in processes of its own, beside the same without tracing, and printed beside its budget. Traces go to
a server that is not there, as in an outage::

    uv run --group test python -m benchmarks.budgets
    uv run --group test python -m benchmarks.budgets --rounds 9 --calls 100000
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

IMPORTS = """
import time, {before}
begun = time.perf_counter()
{measured}
print(time.perf_counter() - begun)
"""

CALLS = """
import sys, time, dspy
from benchmarks import peer, program
if {traced}:
    import dspy_trace; dspy_trace.autolog()
call = program.make()
"""

LOOP = (
    CALLS
    + """
import asyncio
qa, lm = program.QA(), program.scripted(program.DummyLM([]))
lags = []
async def watch():
    await asyncio.sleep(1)  # what is done once is not a call's
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - begun - 0.001)
async def main():
    watcher = asyncio.ensure_future(watch())
    begun = time.perf_counter()
    for number in range({calls}):
        with dspy.context(lm=lm, disable_history=True):
            await qa.generate.acall(question=program.QUESTION)
        await asyncio.sleep(max(begun + number / 200 - time.perf_counter(), 0))
    watcher.cancel()
asyncio.run(main())
print(sorted(lags)[int(len(lags) * 0.999)])
"""
)

MEMORY = (
    CALLS
    + """
for _ in range({calls} // 10):
    call()
early = peer.megabytes()
for _ in range({calls} - {calls} // 10):
    call()
print(peer.megabytes() - early)
"""
)

SIZE = (
    CALLS
    + """
class Long(dspy.Module):
    def forward(self, text):
        return dspy.Prediction(size=len(text))
module, text, times = Long(), "x" * {size}, []
for _ in range(200):
    begun = time.thread_time()
    module(text=text)
    times.append(time.thread_time() - begun)
print(sorted(times)[100])
"""
)

SPANS = (
    CALLS
    + """
class Loop(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = Step()
    def forward(self, number):
        for _ in range(number):
            self.step(x=1)
class Step(dspy.Module):
    def forward(self, x):
        return x
loop = Loop()
loop(number={spans})
begun = time.thread_time()
loop(number={spans})
print((time.thread_time() - begun) / {spans})
"""
)


def ran(code: str, folder: str, launcher: Sequence[str] = (), **environ: str) -> float:
    """Return the number that a program prints, in a process with a spool of its own and no server to send to."""
    told = {
        **os.environ,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "DSPY_TRACE_SPOOL_DIR": tempfile.mkdtemp(dir=folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # An installed package is compiled; whoever forbids that, as some containers do, would measure the compiler.
        "PYTHONDONTWRITEBYTECODE": "",
        **environ,
    }
    words = [*launcher, sys.executable, "-c", code]
    done = subprocess.run(words, env=told, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return float(done.stdout.split()[-1])


def started(folder: str, ours: bool) -> float:
    """Return the seconds that a program without DSPy takes under ``opentelemetry-instrument``, with us or without."""
    others = {point.name for point in entry_points(group="opentelemetry_instrumentor")} - {"dspy_trace"}
    disabled = ",".join(others if ours else {*others, "dspy_trace"})
    launcher = [os.path.join(os.path.dirname(sys.executable), "opentelemetry-instrument")]
    for signal in ("traces", "metrics", "logs"):
        launcher += [f"--{signal}_exporter", "none"]
    code = "import time; print(time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID))"
    return ran(code, folder, launcher, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=disabled)


def least(measure: Callable[[], float], rounds: int) -> float:
    """Return the least of some measurements: what else the machine does only adds to them."""
    return min(measure() for _ in range(rounds))


def starts(folder: str, rounds: int) -> list[tuple[str, str, str]]:
    """Measure what is paid once, at the start of a program."""
    sdk = "dspy, wrapt, opentelemetry.sdk.trace"
    package = least(lambda: ran(IMPORTS.format(before="typing", measured="import dspy_trace"), folder), rounds)
    line = IMPORTS.format(before=sdk, measured="import dspy_trace; dspy_trace.autolog()")
    autolog = least(lambda: ran(line, folder), rounds)
    bare = least(lambda: started(folder, ours=False), rounds)
    with_us = least(lambda: started(folder, ours=True), rounds)
    return [
        ("import dspy_trace, beyond typing", f"{package * 1e3:.1f} ms", "5 ms"),
        ("autolog(), beyond DSPy, the SDK and wrapt", f"{autolog * 1e3:.0f} ms", "100 ms"),
        ("zero code, a program without DSPy", f"{(with_us - bare) * 1e3:.0f} ms", "30 ms"),
    ]


def goes_on(folder: str, rounds: int, calls: int) -> list[tuple[str, str, str]]:
    """Measure what is paid all the time."""
    lags = []
    for _ in range(rounds):
        untraced, traced = (ran(LOOP.format(traced=traced, calls=1_000), folder) for traced in (False, True))
        lags.append(traced - untraced)
    grown = ran(MEMORY.format(traced=True, calls=calls), folder) - ran(MEMORY.format(traced=False, calls=calls), folder)
    return [
        ("event loop at 200 calls/s, 99.9th percentile", f"{statistics.median(lags) * 1e3:.1f} ms", "3 ms"),
        (f"memory from call {calls // 10:,} to {calls:,}", f"{grown:.1f} MB", "no growth"),
    ]


def grows(folder: str, rounds: int) -> list[tuple[str, str, str]]:
    """Measure what grows with sizes."""

    def added(template: str, **sizes: int) -> float:
        both = [least(lambda: ran(template.format(traced=t, **sizes), folder), rounds) for t in (False, True)]  # noqa: B023  # called at once
        return (both[1] - both[0]) * 1e6

    sizes = {name: added(SIZE, size=size) for name, size in (("1 KB", 1_000), ("100 KB", 10**5), ("10 MB", 10**7))}
    spans = {f"{number:,}": added(SPANS, spans=number) for number in (10, 1_000, 10_000)}
    return [
        ("a call with an input of " + ", ".join(sizes), ", ".join(f"{v:.0f} us" for v in sizes.values()), "flat"),
        ("a span of a trace of " + ", ".join(spans), ", ".join(f"{v:.0f} us" for v in spans.values()), "flat"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000, help="calls of which the memory is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = [("added by tracing", "measured", "budget"), ("---", "---", "---")]
        rows += starts(folder, options.rounds)
        rows += goes_on(folder, options.rounds, options.calls)
        rows += grows(folder, options.rounds)
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
