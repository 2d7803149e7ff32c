"""Traces of a tracking server, by MLflow's REST interface. Needs no mlflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from dspy_trace.export.outcomes import Undelivered, Unwelcome, outcome
from dspy_trace.export.sinks import EXPERIMENTS, MISSING, RESTORE, TRACES, words
from dspy_trace.export.target import Credential, Target
from dspy_trace.export.wire import Wire
from dspy_trace.guard import ask, attempt
from dspy_trace.store import PAGE, Unknown, Unreadable, absent, reading
from dspy_trace.store.traces import Summary, Trace

T = TypeVar("T")

LARGEST = 2**30
"""Most bytes of an answer: a trace with long prompts has many."""

ARTIFACT = "/ajax-api/3.0/mlflow/get-trace-artifact"
"""What MLflow's page reads spans from: those of older servers, too, and those that are kept outside the database."""


class HttpStore:
    """An experiment of a tracking server.

    Args:
        target: server and experiment.
        credential: what opens it.
        environ: the environment, for certificates and proxies.
    """

    def __init__(self, target: Target, credential: Credential | None, environ: Mapping[str, str]) -> None:
        self.uri = target.uri
        self._target = target
        self._credential = credential
        self._wire = Wire(target.uri, environ, most=LARGEST)

    def newest(self, most: int, condition: str | None = None) -> list[Summary]:
        return self._search([self._experiment()], most, condition)

    def beginning(self, identifier: str, most: int) -> list[Summary]:
        ids = [one["experiment_id"] for one in self._experiments()]
        return self._search(ids, most, f"request_id LIKE '{identifier}%'")

    def trace(self, trace_id: str) -> Trace:
        path = f"{TRACES}/get?trace_id={quote(trace_id, safe='')}&allow_partial=true"
        try:
            found = self._ask("GET", path)["trace"]
        except (Undelivered, KeyError):
            found = self._older(trace_id)
        return self._understood(
            lambda: Trace(reading.summary(found["trace_info"]), reading.spans(found.get("spans") or ()))
        )

    def experiments(self) -> list[str]:
        return [one["name"] for one in self._experiments()]

    def _older(self, trace_id: str) -> Any:
        """Return a trace that the server does not give as a whole."""
        try:
            info = self._ask("GET", f"{TRACES}/{quote(trace_id, safe='')}")["trace"]["trace_info"]
            spans = self._ask("GET", f"{ARTIFACT}?request_id={quote(trace_id, safe='')}").get("spans")
        except KeyError:
            raise self._strange() from None
        except Unwelcome as error:
            if MISSING in error.words:
                raise Unknown(f"there is no trace {trace_id} in {self._target.uri}") from None
            raise self._unreadable(error) from error
        except Undelivered as error:
            raise self._unreadable(error) from error
        return {"trace_info": info, "spans": spans}

    def _search(self, experiments: Sequence[str], most: int, where: str | None = None) -> list[Summary]:
        locations = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}} for one in experiments]
        asked: dict[str, Any] = {"locations": locations, "order_by": ["timestamp_ms DESC"]}
        if where is not None:
            asked["filter"] = where
        found: list[Any] = []
        while len(found) < most and asked.get("page_token") != "":
            page = self._asked("POST", f"{TRACES}/search", {**asked, "max_results": min(most - len(found), PAGE)})
            found += page.get("traces") or ()
            asked["page_token"] = page.get("next_page_token") or ""
        return self._understood(lambda: [reading.summary(one) for one in found])

    def _experiment(self) -> str:
        target = self._target
        if target.experiment_name is None:
            path = f"{EXPERIMENTS}/get?experiment_id={quote(target.experiment_id or '0', safe='')}"
        else:
            path = f"{EXPERIMENTS}/get-by-name?experiment_name={quote(target.experiment_name, safe='')}"
        try:
            found = self._ask("GET", path).get("experiment") or {}
        except Unwelcome as error:
            if MISSING in error.words:
                raise absent(target, self.experiments()) from None
            raise self._unreadable(error) from error
        except Undelivered as error:
            raise self._unreadable(error) from error
        if found.get("lifecycle_stage") == "deleted":
            raise Unreadable(f"the experiment {target.experiment} has been deleted. {RESTORE}")
        if not isinstance(found.get("experiment_id"), str):
            raise self._strange()
        return str(found["experiment_id"])

    def _experiments(self) -> list[dict[str, Any]]:
        found: list[Any] = []
        token = None
        while token != "":
            asked = {"max_results": 1_000, **({"page_token": token} if token else {})}
            page = self._asked("POST", f"{EXPERIMENTS}/search", asked)
            found += page.get("experiments") or ()
            token = page.get("next_page_token") or ""
        return found

    def _asked(self, method: str, path: str, told: Mapping[str, Any] | None = None) -> Any:
        try:
            return self._ask(method, path, told)
        except Undelivered as error:
            raise self._unreadable(error) from error

    def _ask(self, method: str, path: str, told: Mapping[str, Any] | None = None) -> Any:
        """Return what the server answers.

        Raises:
            Undelivered: the answer is no success, or there is none.
            Unreadable: what answers is no MLflow server.
        """
        body = None if told is None else orjson.dumps(told)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        answer = self._wire.send(method, path, body, headers, self._credential)
        if not 200 <= answer.status < 300:
            raise outcome(answer.status, words(answer), answer.retry_after)
        found = ask(orjson.loads, answer.body)
        if not isinstance(found, dict):
            raise self._strange()
        return found

    def _understood(self, read: Callable[[], T]) -> T:
        found, error = attempt(read)
        if error is not None:
            raise self._strange() from error
        return found  # type: ignore[no-any-return]

    def _strange(self) -> Unreadable:
        return Unreadable(
            f"what answers at {self._target.uri} is no MLflow server, or a version that is not known here"
        )

    def _unreadable(self, error: Undelivered) -> Unreadable:
        return Unreadable(f"{self._target.uri}: {error.words.rstrip('.')}. {error.remedy}")
