"""Streaming: which outputs of a program DSPy can stream, and the stream of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from typing import Any

from dspy_trace.guard import ask
from dspy_trace_flavor import fields
from dspy_trace_flavor.rows import Row, output
from dspy_trace_flavor.running import Runner, on_thread
from dspy_trace_flavor.untyped import untyped

_END = object()


def streamed(program: Any) -> dict[str, tuple[str, Any]]:
    """Return for each output that can be streamed the name of the predictor that makes it, and the predictor."""
    dspy = untyped("dspy")

    if not hasattr(dspy, "streamify"):
        return {}
    given = fields.outputs(program)
    predictors = program.named_predictors()
    wanted = (
        {field.name for field in given}
        if given
        else set(predictors[-1][1].signature.output_fields if predictors else ())
    )
    found: dict[str, tuple[str, Any]] = {}
    for name, predictor in predictors:
        for field, info in predictor.signature.output_fields.items():
            if field in wanted and _streams(info.annotation):
                found[field] = (name, predictor)
    return found


def _streams(annotation: Any) -> bool:
    return annotation is str or ask(getattr(annotation, "is_streamable", bool), default=False) is True


def stream(runner: Runner, row: Row, lm_kwargs: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the pieces of each output as they arrive, then what could not be streamed, then ``{"prediction": ...}``."""
    dspy = untyped("dspy")

    chosen = streamed(runner.program)
    # A generator shares its consumer's context, whose settings are not ours to change.
    context = copy_context()
    entered = runner.context(lm_kwargs)
    context.run(entered.__enter__)
    items = context.run(_begin, runner, row, chosen)
    seen: set[str] = set()
    prediction: Any = None
    try:
        while (item := _next(context, items)) is not _END:
            if isinstance(item, dspy.streaming.StreamResponse):
                seen.add(item.signature_field_name)
                told = {"predict_name": item.predict_name, "signature_field_name": item.signature_field_name}
                yield {**told, "chunk": item.chunk}
            elif isinstance(item, dspy.Prediction):
                prediction = item
    finally:
        context.run(items.close)
        context.run(entered.__exit__, None, None, None)
    told = output(prediction) if prediction is not None else {}
    makers = {field: name for name, one in runner.program.named_predictors() for field in one.signature.output_fields}
    for name, value in told.items():
        if name not in seen:
            yield {"predict_name": makers.get(name, ""), "signature_field_name": name, "chunk": value}
    yield {"prediction": told}


def _next(context: Any, items: Any) -> Any:
    return context.run(next, items, _END)


def _begin(runner: Runner, row: Row, chosen: dict[str, tuple[str, Any]]) -> Any:
    dspy = untyped("dspy")

    known = inspect.signature(dspy.streaming.StreamListener.__init__).parameters
    more = {"allow_reuse": True} if "allow_reuse" in known else {}
    listeners = [
        dspy.streaming.StreamListener(signature_field_name=field, predict=predictor, predict_name=name, **more)
        for field, (name, predictor) in chosen.items()
    ]
    program = runner.program if runner.is_async else _OnThread(runner.program)
    begin = dspy.streamify(program, stream_listeners=listeners, async_streaming=False, is_async_program=True)
    return begin(**row)


class _OnThread:
    """What DSPy's ``streamify`` takes for an asynchronous program."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self.named_predictors = program.named_predictors

    async def acall(self, **row: Any) -> Any:
        return await on_thread(self._program, row)
