"""A real OTLP collector between the program and a recorder: what a user's spans go through on their way.

Fixtures, each a test's own: `recorder`, an endpoint that keeps spans; `collector`, rotel in front of one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.parts.recorder import Recorder

_START_TIMEOUT = 30.0


@dataclass(frozen=True)
class Collector:
    """A collector that runs, and the recorder that it passes everything on to."""

    grpc_endpoint: str
    """Base URL for OTLP over gRPC."""

    http_endpoint: str
    """Base URL for OTLP over HTTP."""

    recorder: Recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Give an OTLP/HTTP endpoint that keeps the spans of this test."""
    with Recorder() as running:
        yield running


@pytest.fixture
def collector(recorder: Recorder) -> Iterator[Collector]:
    """Give a collector that passes the spans of this test on to `recorder`; skip where there is none."""
    if _binary() is None:
        pytest.skip("the collector is not installed (package rotel, dependency group test)")
    with run_collector(recorder) as running:
        yield running


@contextlib.contextmanager
def run_collector(recorder: Recorder) -> Generator[Collector]:
    """Run rotel on free ports of 127.0.0.1 until the block ends.

    Raises:
        RuntimeError: it did not come up; the message has the last that it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="dspy-trace-collector-") as folder:
        grpc, http, process = _start(recorder, Path(folder))
        try:
            yield Collector(f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", recorder)
        finally:
            _stop(process)


def _start(recorder: Recorder, folder: Path) -> tuple[int, int, subprocess.Popen[bytes]]:
    log = folder / "log"
    for _attempt in range(3):  # a port that was free may be taken before rotel opens it
        grpc, http = _free_port(), _free_port()
        with log.open("wb") as out:
            process = subprocess.Popen(
                _command(recorder, folder, grpc, http),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={k: v for k, v in os.environ.items() if not k.startswith(("ROTEL_", "OTEL_"))},
            )
        if _ready(process, grpc, http):
            return grpc, http, process
        _stop(process)
    raise RuntimeError(f"rotel did not start: {log.read_text(errors='replace')[-2000:]}")


def _command(recorder: Recorder, folder: Path, grpc: int, http: int) -> list[str]:
    return [
        str(_binary()),
        "start",
        # Its default batching drops resource attributes where it splits a batch.
        "--disable-batching",
        *("--pid-file", str(folder / "pid"), "--log-file", str(folder / "agent.log")),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"),
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-endpoint", recorder.endpoint),
    ]


def _binary() -> Path | None:
    spec = importlib.util.find_spec("rotel")
    path = Path(spec.origin).parent / "rotel-agent" if spec and spec.origin else None
    return path if path and path.exists() else None


def _ready(process: subprocess.Popen[bytes], grpc: int, http: int) -> bool:
    """Poll until both ports take what they are for; False if the process or the time is over first."""
    deadline = monotonic() + _START_TIMEOUT
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    empty = urllib.request.Request(
        f"http://127.0.0.1:{http}/v1/traces", data=b"", headers={"Content-Type": "application/x-protobuf"}
    )
    while process.poll() is None and monotonic() < deadline:
        try:
            with direct.open(empty, timeout=5), socket.create_connection(("127.0.0.1", grpc), timeout=5):
                return True
        except OSError:  # includes urllib's errors
            sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
