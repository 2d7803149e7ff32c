"""What tracing costs beside the peers: the same program, on the same machine, in turns.

    uv run --group test python -m benchmarks.peers
    uv run --group test python -m benchmarks.peers --rounds 7 --calls 500

Each peer has an environment of its own, made under ``build/peers`` on first use. All of them deliver to one MLflow
server on this machine: MLflow's own integration by its client, ours by a thread of the program's, the others by the
stock OTLP exporter. Processor time is of the whole process, from its first call to its end, when all is delivered.

OpenTelemetry's own instrumentation sees ``dspy.LM`` only, and no LM that is scripted: it has nothing to record here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "peers"

NEEDS: dict[str, list[str]] = {
    "untraced": [],
    "dspy-trace": [str(ROOT)],
    "mlflow": ["mlflow"],
    "openinference": ["openinference-instrumentation-dspy", "opentelemetry-exporter-otlp-proto-http"],
    "opentelemetry": ["opentelemetry-instrumentation-genai-dspy==1.3b0", "opentelemetry-exporter-otlp-proto-http"],
}
"""What is installed beside DSPy, by kind."""

COLUMNS = {
    "spans": "spans a call",
    "call": "added a call, us",
    "cpu": "processor until delivered, ms a call",
    "set up": "set-up, s",
    "memory": "memory, MB",
    "exit": "exit, s",
}


def environment_of(kind: str) -> Path:
    """Return the Python of an environment with one peer in it."""
    folder = PLACE / kind
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").exists():
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        import dspy

        wanted = [f"dspy=={dspy.__version__}", *NEEDS[kind]]
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *wanted], check=True)
        (folder / "ready").touch()
    return python


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run an MLflow server with a database of its own; give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder)]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port), *store]
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1_200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def run(kind: str, calls: int, address: str, experiment: str, folder: Path) -> dict[str, float]:
    """Run one program to its end; return what it cost."""
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"x-mlflow-experiment-id={experiment}",
        "DSPY_TRACE_SPOOL_DIR": str(folder / "spool"),
        "DSPY_TRACE_EXIT_WAIT": "120",
        "DSPY_CACHEDIR": str(folder / "cache"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONDONTWRITEBYTECODE": "",  # as installed: compiled
    }
    if kind in ("dspy-trace", "mlflow", "untraced"):
        # It would be another place to deliver to.
        environ = {name: value for name, value in environ.items() if not name.startswith("OTEL_EXPORTER")}
    before = os.times()
    command = [str(environment_of(kind)), "-m", "benchmarks.peer", kind, str(calls)]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    ended, after = time.monotonic(), os.times()
    if done.returncode:
        sys.exit(f"{kind} failed:\n{done.stderr}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    told["exit"] = ended - told.pop("done")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    told["cpu"] = (used - told.pop("before")) / calls
    return told


def delivered(address: str, experiment: str) -> tuple[int, float]:
    """Return how many traces a server has of an experiment, and how many spans the last has."""
    from mlflow import MlflowClient

    client, found, token = MlflowClient(address), [], None
    while True:
        page: Any = client.search_traces(locations=[experiment], max_results=500, page_token=token, include_spans=False)
        found += page
        token = page.token
        if not token:
            break
    if not found:
        return 0, 0
    return len(found), len(client.get_trace(found[0].info.trace_id).data.spans)


def measured(rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Return the medians of each kind over rounds in which all take turns."""
    from mlflow import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="dspy-trace-peers-"))
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in NEEDS}
    try:
        with server(folder) as address:
            client = MlflowClient(address)
            experiments = {kind: client.create_experiment(kind) for kind in NEEDS}
            for turn in range(rounds + 1):
                for kind in NEEDS:
                    told = run(kind, calls if turn else 5, address, experiments[kind], folder)
                    if turn:
                        found[kind].append(told)
                    print(f"round {turn} of {rounds}: {kind}", file=sys.stderr)
            kept = {kind: delivered(address, experiments[kind]) for kind in NEEDS}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base = found["untraced"]
    report = {}
    for kind, ran in found.items():
        told = {name: statistics.median(one[name] for one in ran) for name in ran[0]}
        for name in ("call", "cpu"):
            told[name] = statistics.median(one[name] - bare[name] for one, bare in zip(ran, base, strict=True))
        told["traces"], told["spans"] = kept[kind]
        told["missing"] = rounds * (calls + 1) + 6 - told["traces"] if kind != "untraced" else 0
        report[kind] = told
    return report


def table(report: dict[str, dict[str, float]]) -> str:
    """Return the report as Markdown; of times a call the factor by which ours is cheaper stands behind."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", f"|---{'|---' * len(COLUMNS)}|"]
    ours = report["dspy-trace"]
    for kind, told in report.items():
        if kind == "untraced":
            continue
        cells = []
        for name in COLUMNS:
            scale = {"call": 1e6, "cpu": 1e3}.get(name, 1.0)
            text = f"{told[name] * scale:.{0 if name in ('spans', 'call', 'memory') else 2}f}"
            if name in ("call", "cpu") and kind != "dspy-trace" and ours[name] > 0:
                text += f" ({told[name] / ours[name]:.1f} x)"
            cells.append(text)
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300, help="calls a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = measured(options.rounds, options.calls)
    print(json.dumps(report, indent=1) if options.json else table(report))
    for kind, told in report.items():
        if told["missing"]:
            print(f"{kind}: {told['missing']:.0f} traces are not in MLflow", file=sys.stderr)


if __name__ == "__main__":
    main()
