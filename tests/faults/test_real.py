"""Outage, restart and poison in front of real servers of MLflow's, and a database that goes while it is written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import sleep

import orjson
import pytest

from dspy_trace.export import drain, records
from dspy_trace.export.items import Batch
from dspy_trace.export.target import Target
from tests.delivery import adds_up, batch, delivering, environment, eventually, trace
from tests.faults.runs import Audit, Key, Program, Row
from tests.faults.stores import Postgres, postgres
from tests.parts.faulty_proxy import FaultyProxy
from tests.parts.mlflow_server import MISSING, MlflowServer, Reader, is_installed, serving
from tests.parts.project import share, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not is_installed(), reason=MISSING),
]


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """Give a server of PostgreSQL's."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def on_postgres(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Give a server of MLflow's whose store is PostgreSQL."""
    with serving(tmp_path_factory.mktemp("server"), database.uri) as server:
        yield server


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def store(request: pytest.FixtureRequest) -> str:
    """Name each store in turn."""
    return str(request.param)


@pytest.fixture
def server(store: str, request: pytest.FixtureRequest) -> MlflowServer:
    """Give a server of MLflow's on the store."""
    found: MlflowServer = request.getfixturevalue("mlflow_server" if store == "SQLite" else "on_postgres")
    return found


def stored(reader: Reader, uri: str, experiment: str) -> set[Key]:
    """Return what a person finds in an experiment; each span is there once."""
    found = [
        (str(one["id"]).removeprefix("tr-"), str(span["id"]))
        for one in reader.traces(uri, experiment)
        for span in one["spans"]
    ]
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize("fault", ["outage", "restarts"])
def test_a_server_that_goes_and_comes(
    fault: str, store: str, server: MlflowServer, mlflow_reader: Reader, home: Path, audit: Audit, whole: bool
) -> None:
    """It is away for a while, or again and again: what people read in the end is all there, once."""
    proxy = FaultyProxy(server.uri)

    def during() -> None:
        sleep(1.5)
        for _ in range(1 if fault == "outage" else 5):
            proxy.close()
            sleep((60.0 if whole else 3.0) if fault == "outage" else 0.3)
            proxy.open()
            sleep(0.3)

    program = Program(home, proxy.url, MLFLOW_EXPERIMENT_NAME=f"faults {fault}")
    ran = program.run(during, seconds=62.0 if whole else 5.5, rate=75.0, threads=2)
    lost = audit.settle(
        f"MLflow on {store}: {fault}", program, ran, lambda: stored(mlflow_reader, server.uri, f"faults {fault}")
    )
    proxy.close()
    assert not lost


POISON = {
    "session": {"attributes": {"session.id": "x" * 300}},
    "name": {"attributes": {"mlflow.traceTag.mlflow.traceName": "x" * 5_000}, "root": True},
    "time": {"start": 2**63 + 5, "end": 2**63 + 6},
    "usage": {"attributes": {"mlflow.chat.tokenUsage": {"input_tokens": "5"}}},
    "cost": {"attributes": {"mlflow.llm.cost": "xx"}},
    "id": {"span_id": ""},
}
"""What MLflow chokes on, and our translation lets through to nobody."""


def test_poison(store: str, server: MlflowServer, home: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A span poisoned in each known way, among a thousand that are good: each costs itself alone."""
    monkeypatch.setattr(drain, "FIRST", 0.1)
    target = Target(server.uri, experiment_name="faults poison")
    put = [trace(target, spans=5) for _ in range(200)]
    poisoned: set[Key] = set()
    for number, how in enumerate(POISON.values()):
        put[number * 30 + 7], key = _poisoned(put[number * 30 + 7], how)
        poisoned.add(key)
    with delivering(environment(home)) as delivery:
        delivery.put(put)
        eventually(lambda: not delivery.waits(), 200.0 * share())
        letters = [row for one in records.dead_letters(delivery.file()) for row in orjson.loads(one.payload)]
        counters = delivery.counters
        assert adds_up(delivery, 1_000)
    audit.board.rows.append(Row(f"MLflow on {store}: poison", 1_000, counters.delivered, 0, None, None))
    assert {(row["trace_id"], row["span_id"]) for row in letters} == poisoned
    assert (counters.delivered, counters.dead) == (1_000 - len(POISON), len(POISON))


def _poisoned(good: Batch, how: dict[str, object]) -> tuple[Batch, Key]:
    rows = orjson.loads(good.payload)
    row = rows[-1 if "root" in how else 1]
    row["attributes"].update(how.get("attributes", {}))
    row.update({name: value for name, value in how.items() if name in ("start", "end", "span_id")})
    return batch(good.target, good.trace_id, rows), (row["trace_id"], row["span_id"])


def test_a_database_that_goes_and_comes(database: Postgres, home: Path, audit: Audit, whole: bool) -> None:
    """PostgreSQL, written by the worker process, is ended and started again while spans keep coming."""

    def during() -> None:
        sleep(2.0)
        database.stop()
        sleep(60.0 if whole else 4.0)
        database.start()

    environ = {"DSPY_TRACE_WORKER": "on", "DSPY_TRACE_WORKER_IDLE": "2", "DSPY_TRACE_EXIT_WAIT": "0"}
    program = Program(home, database.uri, MLFLOW_EXPERIMENT_NAME="by the worker", **environ)
    ran = program.run(during, seconds=64.0 if whole else 8.0, rate=50.0, threads=2)

    def found() -> set[Key]:
        return {
            (str(trace_id).removeprefix("tr-"), str(span_id))
            for trace_id, span_id in database.read(
                "SELECT s.trace_id, s.span_id FROM spans AS s JOIN experiments AS e USING (experiment_id)"
                " WHERE e.name = 'by the worker'"
            )
        }

    assert not audit.settle("PostgreSQL restarted under the worker", program, ran, found)
    until(lambda: not program.workers(), 60.0 * share())
