"""A real Phoenix: it takes OTLP over HTTP, and tells what it has understood of it.

Its version is fixed. It listens on this machine alone, but for its port for gRPC, which cannot be kept from the others.
"""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.parts.environments import installed
from tests.parts.mlflow_server import environment, free_port, listening

REQUIREMENT = "arize-phoenix==20.26.1"

PROJECTS = """
{ projects { edges { node { name
    sessions(first: 9) { edges { node { sessionId userId tokenUsage { prompt completion }
        traces(first: 9) { edges { node { traceId costSummary { total { cost } } rootSpan { name }
            spans(first: 99) { edges { node {
                name spanId parentId spanKind statusCode startTime endTime userId metadata numDocuments
                tokenCountPrompt tokenCountCompletion tokenPromptDetails { cacheRead } costSummary { total { cost } }
                cumulativeTokenCountTotal attributes input { value mimeType } output { value mimeType }
                events { name message }
            } } } } } } } } } } } } }
"""


class Phoenix:
    """A Phoenix that runs.

    Attributes:
        traces: where it takes OTLP.
    """

    def __init__(self, address: str) -> None:
        self.traces = f"{address}/v1/traces"
        self._address = address
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def page(self, trace_id: str) -> str:
        """Return where the page of a trace is."""
        return f"{self._address}/redirects/traces/{trace_id}"

    def sessions(self, project: str) -> list[dict[str, Any]]:
        """Return the sessions of a project, each with its traces and their spans."""
        body = json.dumps({"query": PROJECTS}).encode()
        asked = urllib.request.Request(f"{self._address}/graphql", body, {"Content-Type": "application/json"})
        with self._direct.open(asked, timeout=30) as answer:
            told = json.load(answer)
        assert not told.get("errors"), told["errors"]
        return [
            one for found in _flat(told["data"])["projects"] if found["name"] == project for one in found["sessions"]
        ]


def _flat(value: Any) -> Any:
    """Return an answer with plain lists in place of GraphQL's edges and nodes."""
    if isinstance(value, dict):
        edges = value.get("edges")
        return [_flat(one["node"]) for one in edges] if edges is not None else {k: _flat(v) for k, v in value.items()}
    return [_flat(one) for one in value] if isinstance(value, list) else value


def tree(trace: dict[str, Any]) -> str:
    """Return a trace as text: kind and name of each span, siblings by start; a failure is marked ``!``."""
    children: defaultdict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for span in sorted(trace["spans"], key=lambda span: str(span["startTime"])):
        children[span["parentId"]].append(span)
    lines = [""]

    def add(parent: str | None, depth: int) -> None:
        for span in children[parent]:
            failed = " !" if span["statusCode"] == "ERROR" else ""
            lines.append(f"{'  ' * depth}{span['spanKind']} {span['name']}{failed}")
            add(span["spanId"], depth + 1)

    add(None, 0)
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """Give a Phoenix, one for all tests, which keep apart by projects of their own."""
    python = installed(REQUIREMENT) / "python"
    folder = tmp_path_factory.mktemp("phoenix")
    port = free_port()
    settings = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_ENABLE_MCP_SERVER": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    }
    address = f"http://127.0.0.1:{port}"
    with listening([str(python), "-m", "phoenix.server.main", "serve"], address, folder, environment(**settings)):
        yield Phoenix(address)
