"""Real servers of models: rows, batches, conversations and streams, from sixteen clients at once; traces arrive.

Rows are served by ``mlflow models serve``, conversations by ``dspy-trace model serve``, which is the same and streams.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.parts import mlflow_server
from tests.parts.mlflow_server import Reader
from tests.parts.project import Project, until
from tests.parts.scripted_lm import ScriptedLM

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CLIENTS = 16

SAVE = """
import os, sys
import dspy, mlflow
import dspy_trace_flavor as flavor
import served
mlflow.set_tracking_uri(sys.argv[1] if len(sys.argv) > 1 else os.environ["STORE"])
dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=os.environ["DESK_LM"], cache=False))
for name, task in (("rows", None), ("chat", "llm/v1/chat")):
    info = flavor.log_model(served.Answerer(), name=name, task=task, code_paths=["served.py"])
    print(info.model_id)
    mlflow.artifacts.download_artifacts(info.model_uri, dst_path=name)
"""

SERVED = """
import os
import dspy, dspy_trace
if os.environ.get("SERVING"):
    dspy_trace.autolog()

class Answerer(dspy.Module):
    def __init__(self):
        super().__init__()
        self.reply = dspy.Predict("question -> answer")

    def forward(self, question: str):
        return self.reply(question=question)
"""


class Served:
    """A server of one model."""

    def __init__(self, project: Project, name: str, **environ: str) -> None:
        self.url = f"http://127.0.0.1:{mlflow_server.free_port()}"
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", name, "--env-manager", "local", "-h"]
        command += ["127.0.0.1", "-p", port]
        if name == "chat":
            command = [sys.executable, "-m", "dspy_trace.cli", "model", "serve", name, "--port", port]
        folder = project.folder
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self.log = project.home / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=project.environment(PATH=path, OPENAI_API_KEY="served-key", **environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, **body: Any) -> tuple[int, Any]:
        """Post to ``/invocations``; return status and JSON."""
        request = urllib.request.Request(
            f"{self.url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """Post to a path; return the server-sent events, without the last, which says that it is the last."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            *events, last = answer.read().decode().strip().split("\n\n")
        assert last == "data: [DONE]"
        return [json.loads(event.removeprefix("data: ")) for event in events]

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def close(self) -> None:
        os.killpg(self.process.pid, 15)
        self.process.wait(timeout=20)


@pytest.fixture
def ids(project: Project, new_database: Path) -> dict[str, str]:
    """Log both models; return MLflow's ids of them."""
    (project.folder / "served.py").write_text(SERVED)
    done = project.run(SAVE, OPENAI_API_KEY="saving-key-1", STORE=f"sqlite:///{new_database}", PYTHONPATH=".")
    return dict(zip(("rows", "chat"), done.out.split(), strict=True))


@pytest.fixture
def served(project: Project, ids: dict[str, str], new_database: Path) -> Iterator[dict[str, Served]]:
    """Serve them, where pickles are forbidden."""
    environ = {"SERVING": "1", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{new_database}"
    servers = {name: Served(project, name, **environ) for name in ids}
    try:
        for server in servers.values():
            until(server.is_up, 120)
        yield servers
    finally:
        for server in servers.values():
            server.close()


def test_serving(
    project: Project,
    served: dict[str, Served],
    scripted_lm: ScriptedLM,
    mlflow_reader: Reader,
    new_database: Path,
) -> None:
    """Every client gets its own answer in whatever form it asks; wrong requests get 400; every request is a trace."""
    rows, chat = served["rows"], served["chat"]

    def client(number: int) -> None:
        question = f"question{number}"
        expected = {"answer": f"answer of {question}"}
        assert rows.ask(inputs={"question": question}) == (200, {"predictions": expected})
        batch = [{"question": f"{question}x{index}"} for index in range(2)]
        status, given = rows.ask(dataframe_records=batch)
        assert status == 200, given.get("stack_trace", given)[-3000:]
        assert (status, given) == (200, {"predictions": [{"answer": f"answer of {row['question']}"} for row in batch]})
        status, given = chat.ask(messages=[{"role": "user", "content": question}], stream=False)
        assert status == 200, given.get("stack_trace", given)[-3000:]
        assert given["choices"][0]["message"]["content"] == f"answer of {question}"
        assert given["object"] == "chat.completion"
        chunks = chat.stream("/v1/chat/completions", messages=[{"role": "user", "content": question}], stream=True)
        deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(deltas) == f"answer of {question}"
        assert len(deltas) > 3

    # DSPy imports parts of itself with its first call, which does not bear sixteen at once.
    assert rows.ask(inputs={"question": "first"})[0] == 200
    assert chat.ask(messages=[{"role": "user", "content": "first"}])[0] == 200
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    assert {request.headers["authorization"] for request in scripted_lm.requests} == {"Bearer served-key"}
    status, refused = rows.ask(inputs={"wrong": "x"})
    assert (status, "missing inputs ['question']" in refused["message"]) == (400, True)
    project.arrived()
    found = mlflow_reader.traces(f"sqlite:///{new_database}")
    assert len(found) == CLIENTS * 4 + 2
