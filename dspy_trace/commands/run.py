"""Running a program under tracing, with no code: `dspy-trace run`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import click

from dspy_trace import settings as names
from dspy_trace.commands.output import explained

LAUNCHER = "opentelemetry-instrument"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--tracking-uri", metavar="URI", help="Where to: sets MLFLOW_TRACKING_URI.")
@click.option("--experiment", metavar="NAME|ID", help="Sets MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], tracking_uri: str | None, experiment: str | None) -> None:
    """Run a program under tracing: dspy-trace run -- python app.py

    That is `opentelemetry-instrument` with OTEL_TRACES_EXPORTER=mlflow (and otlp, where OTEL_EXPORTER_OTLP_ENDPOINT is
    set) and no metrics and logs, unless those variables say otherwise. The exit code is the program's.
    """
    from dspy_trace.export.target import target

    environ = dict(os.environ)
    if tracking_uri is not None:
        environ[names.TRACKING_URI] = tracking_uri
    if experiment is not None:
        for name in (names.EXPERIMENT_ID, names.EXPERIMENT_NAME):
            environ.pop(name, None)
        environ[names.EXPERIMENT_ID if experiment.isdecimal() else names.EXPERIMENT_NAME] = experiment
    otlp = any(environ.get(name) for name in names.OTLP_ENDPOINTS)
    environ.setdefault(names.TRACES_EXPORTER, "mlflow,otlp" if otlp else "mlflow")
    environ.setdefault(names.METRICS_EXPORTER, "none")
    environ.setdefault(names.LOGS_EXPORTER, "none")
    if "mlflow" in environ[names.TRACES_EXPORTER]:
        with explained():
            target(None, None, environ)
    _become([_launcher(), *_program(command)], environ)


def _launcher() -> str:
    """Return OpenTelemetry's own command, of this environment first."""
    here = os.path.dirname(sys.executable)
    found = shutil.which(LAUNCHER, path=os.pathsep.join([here, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise click.ClickException(f"{LAUNCHER} is not installed: pip install opentelemetry-instrumentation")
    return found


def _program(command: tuple[str, ...]) -> list[str]:
    """Return the command as it can be run: a Python file, and `python` itself, by this Python.

    Another one has not what traces it.
    """
    first = command[0]
    if first in ("python", "python3"):
        return [sys.executable, *command[1:]]
    if first.endswith(".py") and not os.access(first, os.X_OK):
        if not os.path.exists(first):
            raise click.ClickException(f"there is no file {first}")
        return [sys.executable, *command]
    if shutil.which(first) is None:
        raise click.ClickException(f"there is no program {first}")
    return list(command)


def _become(command: list[str], environ: dict[str, str]) -> None:
    """Be the command from now on: its signals, its exit code."""
    if os.name == "posix":
        os.execve(command[0], command, environ)
    sys.exit(subprocess.run(command, env=environ, check=False).returncode)
