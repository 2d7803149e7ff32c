"""A program as MLflow's python function: ``predict`` and ``predict_stream``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from dspy_trace.secrets import scrub_text
from dspy_trace_flavor import fields
from dspy_trace_flavor.errors import BadInput
from dspy_trace_flavor.rows import output, rows_of
from dspy_trace_flavor.running import Runner
from dspy_trace_flavor.streams import stream

ON_ERROR = ("raise", "return")


class ProgramModel:
    """What MLflow serves.

    Args:
        runner: runs the program.
        metadata: MLflow's description of the model.
    """

    def __init__(self, runner: Runner, metadata: Any = None) -> None:
        self.runner = runner
        self.metadata = metadata
        self.taken = fields.inputs(runner.program)

    @property
    def program(self) -> Any:
        """The loaded program."""
        return self.runner.program

    def get_raw_model(self) -> Any:
        """Return the program, for ``PyFuncModel.get_raw_model()``."""
        return self.program

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Return what the program gives: a dict for one row, a list of them for many, in their order.

        Args:
            model_input: text, dict, list of either, DataFrame, Series or array.
            params: ``on_error``: ``raise`` (default) or ``return``, which gives a failed row's error in its place;
                ``num_threads`` for many rows.
        """
        with explained():
            rows, single = rows_of(model_input, self.taken)
            on_error, threads = _parameters(params)
        with self.runner.context():
            if single and on_error == "raise":
                return output(self.runner.call(rows[0]))
            done = self.runner.batch(rows, min(threads, len(rows)))
        failed = next((error for _, error in done if error is not None), None)
        if failed is not None and on_error == "raise":
            raise failed
        told = [output(value) if error is None else error_of(error) for value, error in done]
        return told[0] if single else told

    async def apredict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Return what :meth:`predict` does, without blocking the event loop."""
        with explained():
            rows, single = rows_of(model_input, self.taken)
            on_error, threads = _parameters(params)
        places = asyncio.Semaphore(threads)

        async def run(row: dict[str, Any]) -> Any:
            async with places:
                return await self.runner.acall(row)

        with self.runner.context():
            done = await asyncio.gather(*map(run, rows), return_exceptions=True)
        for value in done:
            if isinstance(value, BaseException) and (on_error == "raise" or not isinstance(value, Exception)):
                raise value
        told = [error_of(value) if isinstance(value, Exception) else output(value) for value in done]
        return told[0] if single else told

    def predict_stream(self, model_input: Any, params: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield ``{"predict_name", "signature_field_name", "chunk"}`` for each piece of an output as it arrives.

        Outputs that DSPy cannot stream, and those of cached answers, arrive whole at the end.

        Args:
            model_input: one row.
            params: ``include_final_prediction``: end with ``{"prediction": {...}}``.
        """
        with explained():
            rows, _ = rows_of(model_input, self.taken)
            if len(rows) != 1:
                raise BadInput(f"a stream takes one row, not {len(rows)}")
        final = bool((params or {}).get("include_final_prediction"))
        return _told(stream(self.runner, rows[0]), final)


def _told(items: Iterator[dict[str, Any]], final: bool) -> Iterator[dict[str, Any]]:
    for item in items:
        if final or "prediction" not in item:
            yield item


def _parameters(params: Mapping[str, Any] | None) -> tuple[str, int]:
    given = params or {}
    on_error, threads = given.get("on_error") or "raise", given.get("num_threads") or 8
    if on_error not in ON_ERROR:
        raise BadInput(f"on_error must be one of {ON_ERROR}, not {on_error!r}")
    if not isinstance(threads, int) or threads < 1:
        raise BadInput(f"num_threads must be a positive number, not {threads!r}")
    return on_error, threads


def error_of(error: Exception) -> dict[str, Any]:
    """Return what is told of an error in the place of a row: its class, and its message without secrets."""
    return {"error": {"type": type(error).__qualname__, "message": scrub_text(str(error))}}


class explained:
    """Raise what is wrong with an input as MLflow's own exception, which its server answers with status 400."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadInput):
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(str(error)) from error
