"""Records of a run into MLflow, through its public client. Only the worker process uses this.

Told twice, everything is still there once: a run is found again by its tag, parameters and metrics are the same ones,
tables and files are written as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any, TypeVar

import orjson

from dspy_trace.export.database import meaning
from dspy_trace.export.outcomes import Failing, Refused, Undelivered, Unwelcome
from dspy_trace.export.spool import Spool
from dspy_trace.guard import attempt
from dspy_trace.runs import models, spooled
from dspy_trace.runs.tables import table
from dspy_trace.vocab import run_keys as keys

T = TypeVar("T")

AT_ONCE = 100
"""Parameters, tags and traces that MLflow takes in one request; of metrics it takes ten times as many."""


class Writer:
    """Writes what waits of one run.

    Args:
        client: MLflow's client.
        spool: where tables grow, and where MLflow's ids are kept.
        experiment: gives the id of the experiment.
    """

    def __init__(self, client: Any, spool: Spool, experiment: Callable[[], str]) -> None:
        self.refused: list[str] = []
        """What MLflow has refused, in its own words."""
        self.patient = True
        """Whether what breaks MLflow down is to be tried again, and not to be left out."""
        self._client = client
        self._spool = spool
        self._experiment = experiment

    def write(self, run: str, payloads: Sequence[bytes]) -> bool:
        """Write records in order; return whether the run has ended with them.

        Raises:
            Undelivered: nothing can be written at present, or the run cannot be made.
        """
        records = [orjson.loads(payload) for payload in payloads]
        start = next((record["start"] for record in records if "start" in record), None)
        run_id = self._found(run, start)
        for record in records:
            for other in record.get("beside", ()):
                self._metrics(other["run_id"], other["metrics"])
        metrics = [metric for record in records for metric in record.get("metrics", ())]
        tags = {**_merged(records, "tags"), **self._tables(run_id, run, records)}
        self._batch(run_id, _merged(records, "params"), metrics, tags)
        for record in records:
            for data in record.get("data", ()):
                self._try(self._dataset, run_id, data)
        for path, text in _merged(records, "files").items():
            self._try(self._client.log_text, run_id, text, path)
        for record in records:
            if "model" in record:
                self._model(run, run_id, record["model"])
        self._traces(run_id, [trace for record in records for trace in record.get("traces", ())])
        if self.refused:
            self._tags(run_id, {keys.NOT_WRITTEN: "; ".join(self.refused)[:5_000]})
        end = next((record["end"] for record in records if "end" in record), None)
        if end is not None:
            self._try(self._client.set_terminated, run_id, end["status"], end["time"])
        return end is not None

    def _found(self, run: str, start: dict[str, Any] | None) -> str:
        """Return MLflow's id of a run, which is made if there is none."""
        known = spooled.mlflow_id(self._spool, run)
        if known is not None:
            return known
        experiment = self._experiment()
        found = self._understood(self._client.search_runs, [experiment], f"tags.`{keys.RUN}` = '{run}'", max_results=1)
        if not found and start is None:
            raise Refused("the record of its start is gone")
        made = found[0] if found else self._understood(self._made, experiment, run, start)
        spooled.note_id(self._spool, run, made.info.run_id)
        return str(made.info.run_id)

    def _made(self, experiment: str, run: str, start: dict[str, Any]) -> Any:
        tags = {**start.get("tags", {}), keys.RUN: run}
        above = start.get("parent_id")
        if start.get("parent"):
            above = spooled.mlflow_id(self._spool, start["parent"])
        if above:
            tags[keys.PARENT] = above
        return self._client.create_run(experiment, start["time"], tags, start["name"])

    def _batch(self, run_id: str, params: dict[str, str], metrics: Sequence[Any], tags: dict[str, str]) -> None:
        """Tell all at once where MLflow takes it, since each request is a transaction."""
        from mlflow.entities import Metric, Param, RunTag

        if len(params) <= AT_ONCE and len(tags) <= AT_ONCE and len(metrics) + len(params) + len(tags) <= 10 * AT_ONCE:
            told = [Metric(key, float(value), time, step) for key, value, time, step in metrics]
            args = (told, list(starmap(Param, params.items())), list(starmap(RunTag, tags.items())))
            if self._try(self._client.log_batch, run_id, *args, last=False) is None:
                return
        self._params(run_id, params)
        self._metrics(run_id, metrics)
        self._tags(run_id, tags)

    def _params(self, run_id: str, told: dict[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in told.items()]
        self._each(params, AT_ONCE, lambda some: self._client.log_batch(run_id, params=some))

    def _metrics(self, run_id: str, told: Sequence[Sequence[Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(key, float(value), time, step) for key, value, time, step in told]
        self._each(metrics, 10 * AT_ONCE, lambda some: self._client.log_batch(run_id, metrics=some))

    def _tags(self, run_id: str, told: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in told.items()]
        self._each(tags, AT_ONCE, lambda some: self._client.log_batch(run_id, tags=some))

    def _traces(self, run_id: str, told: Sequence[str]) -> None:
        link = getattr(self._client, "link_traces_to_run", None)  # since MLflow 3.5
        if link is not None:
            self._each(list(dict.fromkeys(told)), AT_ONCE, lambda some: link(some, run_id))

    def _model(self, run: str, run_id: str, told: dict[str, Any]) -> None:
        experiment = self._experiment()
        if self._try(models.log, self._client, experiment, run, run_id, told) is not None:
            self._try(models.drop, self._client, experiment, run)

    def _dataset(self, run_id: str, told: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            told["name"], told["digest"], told["source_type"], told["source"], told["schema"], told["profile"]
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(keys.CONTEXT, told["context"])])])

    def _tables(self, run_id: str, run: str, records: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Write the tables that have grown; return the tags that let the page show them."""
        grown: dict[str, dict[str, bytes]] = {}
        for record in records:
            for name, key, row in record.get("rows", ()):
                grown.setdefault(name, {})[key] = orjson.dumps(row)
        for name, rows in grown.items():
            spooled.add_rows(self._spool, run, name, rows)
            text = table(spooled.rows(self._spool, run, name))
            self._try(self._client.log_text, run_id, text, f"{name}.json")
        if not grown:
            return {}
        names = self._spool.read("SELECT DISTINCT name FROM run_rows WHERE run = ? ORDER BY name", run)
        shown = [{"path": f"{name}.json", "type": "table"} for (name,) in names]
        return {keys.TABLES: orjson.dumps(shown).decode()}

    def _each(self, items: list[T], most: int, send: Callable[[list[T]], Any]) -> None:
        """Send items; where some are refused, all the others."""
        for first in range(0, len(items), most):
            some = items[first : first + most]
            error = self._try(send, some, last=len(some) == 1)
            if error is not None and len(some) > 1:
                self._each(some, len(some) // 2, send)

    def _try(self, function: Callable[..., Any], *args: Any, last: bool = True) -> Undelivered | None:
        """Do something that is for one run alone, and note if it is refused."""
        _, error = attempt(self._understood, function, *args)
        if error is None:
            return None
        is_refused = isinstance(error, Refused) or (isinstance(error, Failing) and not self.patient)
        # What it goes to has been deleted, for good.
        is_refused = is_refused or (isinstance(error, Unwelcome) and error.cause == "missing")
        if not is_refused or not isinstance(error, Undelivered):
            raise error
        if last:
            self.refused.append(error.words[:500])
        return error

    def _understood(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        result, error = attempt(lambda: function(*args, **kwargs))
        if error is None:
            return result  # type: ignore[no-any-return]
        if isinstance(error, Undelivered):
            raise error
        raise meaning(error) from error


def _merged(records: Sequence[dict[str, Any]], kind: str) -> dict[str, str]:
    """Return what all records say of a kind; the last word counts."""
    return {key: value for record in records for key, value in record.get(kind, {}).items()}
