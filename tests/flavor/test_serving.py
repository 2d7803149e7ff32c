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
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dspy_trace.demo import lm_server
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
from dspy_trace.demo import lm_server, program
if os.environ.get("SERVING"):
    dspy_trace.autolog()

class Answerer(dspy.Module):
    def __init__(self):
        super().__init__()
        self.reply = dspy.Predict("question -> answer")

    def forward(self, question: str):
        if not question.startswith("Really"):
            return self.reply(question=question)
        server = lm_server.LMServer(os.environ["REAL_LM"], lm_server.MODEL, pid=0)
        with dspy.context(lm=program.lm_for(server)):
            return self.reply(question=question)
"""

REALLY = "Really, what is the capital of France?"
"""A question that the program asks the real LM."""


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
def served(
    project: Project, ids: dict[str, str], new_database: Path, request: pytest.FixtureRequest
) -> Iterator[dict[str, Served]]:
    """Serve them, where pickles are forbidden."""
    environ = {"SERVING": "1", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    if lm_server.available():
        environ["REAL_LM"] = request.getfixturevalue("real_lm").base_url
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
    ids: dict[str, str],
    scripted_lm: ScriptedLM,
    mlflow_reader: Reader,
    new_database: Path,
) -> None:
    """Every client gets its own answer in whatever form it asks; wrong requests get 400; every request is a trace.

    A real LM, where it is installed, answers in each form, too.
    """
    rows, chat = served["rows"], served["chat"]
    # DSPy imports parts of itself with its first call, which does not bear sixteen at once.
    assert rows.ask(inputs={"question": "first"})[0] == 200
    assert chat.ask(messages=[{"role": "user", "content": "first"}])[0] == 200
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(partial(converse, rows, chat), [f"question{number}" for number in range(CLIENTS)]))
    assert {request.headers["authorization"] for request in scripted_lm.requests} == {"Bearer served-key"}
    status, refused = rows.ask(inputs={"wrong": "x"})
    assert (status, "missing inputs ['question']" in refused["message"]) == (400, True)
    if lm_server.available():
        assert all(isinstance(answer, str) and answer for answer in answers(rows, chat, REALLY))
    project.arrived()
    found = mlflow_reader.traces(f"sqlite:///{new_database}")
    times = CLIENTS + lm_server.available()
    assert Counter((trace["name"], trace["metadata"]["mlflow.modelId"]) for trace in found) == {
        ("POST /invocations", ids["rows"]): 2 * times + 1,
        ("POST /invocations", ids["chat"]): times + 1,
        ("POST /v1/chat/completions", ids["chat"]): times,
    }
    assert {trace["state"] for trace in found} == {"OK"}


def converse(rows: Served, chat: Served, question: str) -> None:
    """Ask in each form; fail unless each answer is the one to its question."""
    asked = (question, f"{question}x0", f"{question}x1", question, question)
    assert answers(rows, chat, question) == [f"answer of {one}" for one in asked]


def answers(rows: Served, chat: Served, question: str) -> list[str]:
    """Ask for one row, two rows, in a chat and in a streamed one; return the five answers."""
    message = {"role": "user", "content": question}
    replies = [
        rows.ask(inputs={"question": question}),
        rows.ask(dataframe_records=[{"question": f"{question}x{index}"} for index in range(2)]),
        chat.ask(messages=[message], stream=False),
    ]
    for status, given in replies:
        assert status == 200, given.get("stack_trace", given)[-3000:]
    one, two, whole = (given for _, given in replies)
    assert whole["object"] == "chat.completion"
    chunks = chat.stream("/v1/chat/completions", messages=[message], stream=True)
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert len(deltas) > 3 or question == REALLY
    predictions = [one["predictions"], *two["predictions"]]
    return [*(row["answer"] for row in predictions), whole["choices"][0]["message"]["content"], "".join(deltas)]
