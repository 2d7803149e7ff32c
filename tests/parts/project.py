"""Somebody's project: a folder with a program in it, which is run as a user runs it, in a process of its own.

    def test_it(project, mlflow_reader):
        project.run("import dspy_trace, desk; dspy_trace.autolog(); desk.ask()")
        project.arrived()
        (trace,) = mlflow_reader.traces(project.database)

Each project has a spool of its own, and whatever is left of its worker processes is ended with the test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from dspy_trace.export.places import spool_file
from tests.parts import mlflow_server
from tests.parts.scripted_lm import ScriptedLM

PROBE = """
import atexit, json, resource, sys
def report():
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        with open("/proc/self/status") as status:  # on Linux, ru_maxrss is at least what the parent process had
            memory = int(status.read().partition("VmHWM:")[2].split()[0])
    except OSError:
        memory = used.ru_maxrss // 1024
    with open(r"{file}", "w") as file:
        json.dump(["mlflow" in sys.modules, memory, used.ru_utime + used.ru_stime], file)
atexit.register(report)  # first, so that it comes last
del atexit, report
"""

WITHOUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    status: int
    out: str
    err: str
    seconds: float
    mlflow: bool
    """Whether it has imported mlflow."""
    kilobytes: int
    """Most memory that it had."""
    cpu: float
    """Seconds of processor time."""

    @property
    def warnings(self) -> list[str]:
        """Lines of stderr that are ours, but for those that only say what is being waited for, and what stays."""
        ours = [line for line in self.err.splitlines() if line.startswith("dspy-trace:")]
        return [line for line in ours if not any(words in line for words in _SAID)]


_SAID = ("delivering traces to", "store is being opened", "wait in the spool")


class Project:
    """A folder, a spool, and an environment in which only those are set.

    Args:
        home: folder for all of it.
        lm: base URL of the LM that the program ``desk`` asks.
    """

    def __init__(self, home: Path, lm: str) -> None:
        self.home = home
        self.spool = home / "spool"
        self.folder = self.new_folder("project")
        self._lm = lm

    def new_folder(self, name: str) -> Path:
        """Make another folder to run programs in."""
        folder = self.home / name
        folder.mkdir()
        shutil.copy(Path(__file__).with_name("desk.py"), folder)
        return folder

    @property
    def database(self) -> str:
        """The tracking URI of MLflow's default in the folder."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a program."""
        ours = {
            "DSPY_TRACE_SPOOL_DIR": str(self.spool),
            # This machine may be a container; and on one that is not, no program waits for a database.
            "DSPY_TRACE_EXIT_WAIT": "0",
            "DSPY_CACHEDIR": str(self.home / "cache"),
            "DESK_LM": self._lm,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "dspy,httpx,openai",
        }
        return mlflow_server.environment(**{**ours, **more})

    def without(self, *packages: str) -> dict[str, str]:
        """Return what to add to an environment in which some packages cannot be imported, as if not installed."""
        folder = self.home / "without"
        for package in packages:
            # Where `opentelemetry-instrument` has a `sitecustomize` of its own, and this one is not run.
            (folder / package).mkdir(parents=True, exist_ok=True)
            (folder / package / "__init__.py").write_text(f"raise ModuleNotFoundError('{package}', name='{package}')")
        (folder / "sitecustomize.py").write_text(WITHOUT.format(packages=packages))
        return {"PYTHONPATH": str(folder)}

    def run(
        self,
        script: str,
        *,
        folder: Path | None = None,
        through: Sequence[str] = (),
        check: bool = True,
        **environ: str,
    ) -> Done:
        """Run a script and return what became of it.

        Args:
            script: Python.
            folder: working folder; the project's by default.
            through: command that runs it.
            check: fail the test if the script fails.
            **environ: environment variables.
        """
        folder = folder or self.folder
        report = self.home / "report.json"
        report.unlink(missing_ok=True)
        (folder / "app.py").write_text(PROBE.format(file=report) + script)
        begun = monotonic()
        done = subprocess.run(
            [*through, sys.executable, "app.py"],
            cwd=folder,
            env=self.environment(**environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        seconds = monotonic() - begun
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        mlflow, kilobytes, cpu = json.loads(report.read_text()) if report.exists() else (False, 0, 0.0)
        return Done(done.returncode, done.stdout, done.stderr, seconds, mlflow, kilobytes, cpu)

    def waits(self) -> dict[str, int]:
        """Return how many rows of each kind wait in the spool."""
        path = spool_file(self.spool)
        if not path.exists():
            return {}
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            counts = {
                name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in ("batches", "followups", "runs", "dead")
            }
        return {name: number for name, number in counts.items() if number}

    def in_spool(self) -> int:
        """Return how many spans have come as far as the spool, delivered by now or not."""
        path = spool_file(self.spool)
        if not path.exists():
            return 0
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            told = "SELECT spans FROM batches UNION ALL SELECT n FROM accounts WHERE name = 'delivered'"
            return int(db.execute(f"SELECT coalesce(sum(spans), 0) FROM ({told})").fetchone()[0])

    def arrived(self) -> float:
        """Return, after how many seconds, once nothing waits any more; fail after a minute of a machine's own."""
        assert spool_file(self.spool).exists(), "nothing has been written to the spool"
        return until(lambda: not self.waits(), 60.0 * share(), self.log)

    def log(self) -> str:
        """Return what the workers have written."""
        return "".join(path.read_text() for path in sorted(self.spool.glob("*-worker.log")))

    def workers(self) -> list[int]:
        """Return the ids of the worker processes that serve this spool."""
        return [
            pid for pid, command in commands() if "dspy_trace.export.worker" in command and str(self.spool) in command
        ]

    def end_workers(self) -> None:
        """End them, each by its id."""
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def project(tmp_path: Path, scripted_lm: ScriptedLM) -> Iterator[Project]:
    """Give a project with a spool of its own and a scripted LM."""
    made = Project(tmp_path, scripted_lm.url)
    yield made
    made.end_workers()


def commands() -> list[tuple[int, list[str]]]:
    """Return the processes of this machine: id and command line."""
    if Path("/proc/self/cmdline").exists():
        found: list[tuple[int, list[str]]] = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with suppress(OSError):
                    found.append((int(folder.name), (folder / "cmdline").read_text(errors="replace").split("\0")))
        return found
    listed = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), rest.split()) for pid, _, rest in (line.strip().partition(" ") for line in listed.splitlines())]


def share() -> float:
    """Return how many programs want each processor of this machine, at least 1: by so much they take longer."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def until(check: Any, timeout: float, log: Any = lambda: "") -> float:
    """Return, after how many seconds, once `check` returns something true; fail after `timeout` seconds."""
    begun = monotonic()
    while not check():
        assert monotonic() - begun < timeout, f"not within {timeout:g} s. {log()}"
        sleep(0.05)
    return monotonic() - begun


def tree(trace: dict[str, Any], *keys: str) -> str:
    """Return a trace that was read from MLflow as :func:`dspy_trace.testing.tree` does, with some of each span."""
    ordered = sorted(trace["spans"], key=lambda span: span["start"])
    lines = [""]

    def add(parent: str | None, depth: int) -> None:
        for span in ordered:
            if span["parent"] == parent:
                lines.append("  " * depth + " ".join([span["name"], *(str(span[key]) for key in keys)]))
                add(span["id"], depth + 1)

    add(None, 0)
    return "\n".join(lines) + "\n"
