"""Calls of a loaded program: under its own settings, linked to its model, one or many."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from dspy_trace.guard import ask, attempt
from dspy_trace_flavor.rows import Row
from dspy_trace_flavor.untyped import untyped


class Runner:
    """Runs a program.

    Args:
        program: the program.
        settings: DSPy's settings that it was saved with, laid over those of the process during its calls alone.
        model_id: MLflow's id of the model, for its traces.
    """

    def __init__(self, program: Any, settings: Mapping[str, Any], model_id: str | None = None) -> None:
        self.program = program
        self.settings = dict(settings)
        self.model_id = model_id
        self.is_async = _only_async(type(program))

    @contextmanager
    def context(self, lm_kwargs: Mapping[str, Any] | None = None, **more: Any) -> Generator[None]:
        """Have the model's settings in force in this thread or task, and its LM with some parameters changed."""
        dspy = untyped("dspy")

        changed = {**self.settings, **more}
        lm = changed.get("lm") or dspy.settings.lm
        if lm_kwargs and lm is not None:
            changed["lm"] = lm.copy(**lm_kwargs)
        with dspy.context(**changed):
            _tell_mlflow(self.model_id)
            yield

    def call(self, row: Row) -> Any:
        """Run one row, whatever runs in this thread."""
        if not self.is_async:
            return self.program(**row)
        if ask(asyncio.get_running_loop) is None:
            return asyncio.run(self.program.acall(**row))
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(carried(asyncio.run), self.program.acall(**row)).result()

    def batch(self, rows: list[Row], num_threads: int | None) -> list[tuple[Any, Exception | None]]:
        """Run rows on threads, under the settings and in the trace of this one; return what each gave or raised."""
        # Not by dspy.Parallel: it clears tqdm's list of progress bars, and of two at once one fails over it.
        with ThreadPoolExecutor(num_threads or untyped("dspy").settings.num_threads) as pool:
            done = [pool.submit(carried(attempt), self.call, row) for row in rows]
            return [one.result() for one in done]

    async def acall(self, row: Row) -> Any:
        """Run one row without blocking the event loop."""
        if self.is_async or type(self.program).__module__.startswith("dspy."):
            return await self.program.acall(**row)
        return await on_thread(self.program, row)


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs in the context and under the settings of this thread, on whichever it is called."""
    dspy = untyped("dspy")

    context, settings = copy_context(), dict(dspy.settings.config)

    def run(*args: Any, **kwargs: Any) -> Any:
        # Before DSPy 3, settings are the thread's and not in the context.
        with dspy.context(**settings):
            return function(*args, **kwargs)

    return partial(context.run, run)


async def on_thread(program: Callable[..., Any], row: Row) -> Any:
    """Run one row on a thread, without blocking the event loop.

    Not by ``dspy.asyncify``: it limits the threads of the whole process, and a call that waits for its turn is woken
    without a word to its own event loop. Of more streams at once than that limit, each in a loop of its own, some
    would wait for ever.
    """
    anyio, to_thread = untyped("anyio"), untyped("anyio.to_thread")

    alone = anyio.CapacityLimiter(1)
    return await to_thread.run_sync(carried(partial(program, **row)), abandon_on_cancel=True, limiter=alone)


def _tell_mlflow(model_id: str | None) -> None:
    """Link the trace that MLflow itself makes around the call, if it does; nobody else can."""
    mlflow = sys.modules.get("mlflow")
    if model_id is None or mlflow is None or ask(mlflow.get_active_model_id) is not None:
        return
    if getattr(ask(mlflow.get_current_active_span), "trace_id", None) is not None:
        ask(partial(mlflow.update_current_trace, model_id=model_id))


def _only_async(cls: type) -> bool:
    """Return whether the nearest class that defines a way to run has the asynchronous one only."""
    for base in cls.__mro__:
        if "forward" in base.__dict__:
            return False
        if "aforward" in base.__dict__:
            return True
    return False
