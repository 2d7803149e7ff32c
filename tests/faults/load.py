"""The program that the faults happen to: it makes traces at a pace, and writes down each span that has ended.

It is run by :mod:`tests.faults.runs` in a process of its own: ``python -m tests.faults.load '{"threads": 4, ...}'``.
No DSPy, so that it starts quickly: spans are marked as ours the way the observer does.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from functools import partial
from time import monotonic, perf_counter, sleep, thread_time
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from dspy_trace import stats
from dspy_trace.export.outlet import outlet
from dspy_trace.vocab import mlflow_keys


@dataclass
class Spec:
    """What the program does.

    Attributes:
        home: folder for its reports and the list of its spans.
        seconds: for how long it makes traces; 0 makes `spans` of them.
        spans: number of spans to make in all, instead.
        rate: spans a second in all; 0 is as fast as it can.
        threads: threads that make them.
        each: spans of a trace.
        text: characters of content on each.
        foreign: one in so many traces holds no span of ours.
        pages: most pages of the spool, as on a full disk.
        dns: whether names can be resolved.
        overflow: hand nothing on until the queue has overflowed, however fast this machine writes.
        children: start so many processes by a method, that do the same.
    """

    home: str
    seconds: float = 0.0
    spans: int = 0
    rate: float = 400.0
    threads: int = 4
    each: int = 5
    text: int = 200
    foreign: int = 10
    pages: int = 0
    dns: bool = True
    overflow: bool = False
    children: tuple[str, int] | None = None


class Stalls:
    """How long our code keeps the program's threads: by the clock, and by their processor time.

    Less what the interpreter's garbage collector takes, which runs on whatever thread asks for memory next.
    """

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.cpu: list[float] = []
        self._collector = threading.local()
        gc.callbacks.append(self._collecting)

    def _collecting(self, phase: str, info: object) -> None:
        spent = getattr(self._collector, "spent", (0.0, 0.0))
        sign = -1 if phase == "start" else 1
        self._collector.spent = spent[0] + sign * thread_time(), spent[1] + sign * perf_counter()

    def _now(self) -> tuple[float, float]:
        cpu, clock = getattr(self._collector, "spent", (0.0, 0.0))
        return thread_time() - cpu, perf_counter() - clock

    def timed(self, function: Any) -> Any:
        """Return `function`, measured."""

        def measured(*arguments: Any, **named: Any) -> Any:
            cpu, begun = self._now()
            try:
                return function(*arguments, **named)
            finally:
                cpu_now, now = self._now()
                self.clock.append(now - begun)
                self.cpu.append(cpu_now - cpu)

        return measured

    def told(self) -> dict[str, float]:
        """Return the 99.9th percentile and the longest, in milliseconds."""
        found = {}
        for name, values in (("clock", sorted(self.clock)), ("cpu", sorted(self.cpu))):
            found[f"{name} 99.9"] = values[int(len(values) * 0.999)] * 1e3 if values else 0.0
            found[f"{name} longest"] = values[-1] * 1e3 if values else 0.0
        return found


class Load:
    """One process of the program."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.stalls = Stalls()
        self.processor = outlet().processor
        provider = TracerProvider(shutdown_on_exit=False)
        outlet().join(provider)
        for name in ("on_start", "on_end", "keep"):
            setattr(self.processor, name, self.stalls.timed(getattr(self.processor, name)))
        self.processor.write_out = partial(self.write_out, self.processor.write_out)  # type: ignore[method-assign]
        self.tracer = provider.get_tracer("load")
        self.file = os.open(f"{spec.home}/ids", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.content = {mlflow_keys.INPUTS: "x" * spec.text}

    def run(self) -> None:
        """Make traces until it is time to end, and report."""
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(self.spec.threads)]
        if self.spec.overflow:
            self.processor.counted(partial(self.begin, threads))
        else:
            self.begin(threads)
        for thread in threads:
            thread.join()
        self.report()

    def begin(self, threads: list[threading.Thread]) -> None:
        """Start the threads; return once the queue has overflowed, if that is wanted."""
        for thread in threads:
            thread.start()
        while self.spec.overflow and not self.processor.counts.dropped and any(map(threading.Thread.is_alive, threads)):
            sleep(0.001)

    def work(self, number: int) -> None:
        """Make the traces of one thread."""
        spec = self.spec
        begun, made = monotonic(), 0
        pause = spec.each * spec.threads / spec.rate if spec.rate else 0.0
        while monotonic() - begun < spec.seconds if spec.seconds else made * spec.each * spec.threads < spec.spans:
            self.trace((number + made * spec.threads) % spec.foreign > 0)
            made += 1
            if (left := begun + made * pause - monotonic()) > 0:
                sleep(left)

    def trace(self, ours: bool) -> None:
        """Make one trace: the root ends last."""
        root = self.tracer.start_span("root")
        context = set_span_in_context(root)
        for number in range(self.spec.each - 1):
            self.end(self.tracer.start_span(f"step {number}", context), ours)
        self.end(root, ours)

    def end(self, span: Any, ours: bool) -> None:
        """End a span, and write down that it has ended."""
        told = span.get_span_context()
        if ours:
            self.processor.keep(told, self.content)
        span.end()
        if ours:
            os.write(self.file, f"{told.trace_id:032x} {told.span_id:016x}\n".encode())

    def write_out(self, write_out: Any) -> None:
        """Write down, among the spans, when what is queued begins to be written, and when it has been."""
        os.write(self.file, b"writing\n")
        write_out()
        os.write(self.file, b"written\n")

    def report(self) -> None:
        """Say what has been observed, and that the program is about to end."""
        early = asdict(stats())  # some of it is on its way
        self.processor.write_out()
        told = {"early": early, "stats": asdict(stats()), "stalls": self.stalls.told(), "ends": monotonic()}
        with open(f"{self.spec.home}/report.{os.getpid()}", "w") as file:
            json.dump(told, file)


def child(spec: Spec) -> None:
    """Be one of several processes."""
    Load(spec).run()


def main(spec: Spec) -> None:
    """Be the program."""
    if not spec.dns:
        socket.getaddrinfo = partial(_fails, socket.getaddrinfo)
    if spec.children is not None:
        method, number = spec.children
        context: Any = multiprocessing.get_context(method)
        Load(Spec(spec.home, spans=spec.each, threads=1)).run()  # so that there is an open spool when it forks
        processes = [context.Process(target=child, args=(spec,)) for _ in range(number)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        sys.exit(max(process.exitcode for process in processes))
    load = Load(spec)
    if spec.pages:
        load.trace(True)
        outlet().processor.write_out()
        outlet().delivery.file().read(f"PRAGMA max_page_count = {spec.pages}")
    load.run()


def _fails(resolve: Any, host: Any, *arguments: Any, **more: Any) -> Any:
    if host != "127.0.0.1":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return resolve(host, *arguments, **more)


if __name__ == "__main__":
    main(Spec(**json.loads(sys.argv[1])))
