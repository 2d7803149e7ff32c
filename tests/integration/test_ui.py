"""`dspy-trace ui` on a database: MLflow's own page, on this machine alone, until Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.parts.mlflow_server import MISSING, is_installed
from tests.parts.project import Project, commands, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_installed(), reason=MISSING),
    pytest.mark.timeout(240),
]

CODE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom dspy_trace.cli import main; main()"
)


def test_the_page_of_a_database(project: Project, made_database: Path) -> None:
    """A trace that is still being written is waited for; the page answers; Ctrl-C ends all of it, and well."""
    (project.folder / "mlflow.db").write_bytes(made_database.read_bytes())
    project.run("import dspy_trace, desk; dspy_trace.autolog(); desk.ask()")
    showing = subprocess.Popen(
        [sys.executable, "-c", CODE, "ui"],
        cwd=project.folder,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert showing.stdout is not None
        told = [showing.stdout.readline().split() for _ in range(2)]
        assert [line[:2] for line in told] == [["MLflow's", "page"], ["This", "trace"]], showing.stderr
        base, address = (line[-1] for line in told)
        assert address.startswith(f"{base}/#/experiments/0/traces/tr-")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(base, timeout=30) as page:
            assert b"<title>MLflow</title>" in page.read()
        showing.send_signal(signal.SIGINT)
        _, said = showing.communicate(timeout=60)
        assert (showing.returncode, said.splitlines()[-1]) == (0, "Ended.")
    finally:
        showing.kill()
    port = base.rpartition(":")[2]
    until(lambda: not [pid for pid, words in commands() if "--port" in words and port in words], 20)
    assert [path.name for path in project.folder.iterdir() if path.name.startswith("ml")] == ["mlflow.db"]
