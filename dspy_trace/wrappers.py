"""The wrappers: what stands between a caller and a method of DSPy's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from opentelemetry.context import get_current

from dspy_trace import context as place
from dspy_trace import facts
from dspy_trace.guard import shielded
from dspy_trace.observing import Call, observe
from dspy_trace.points import Args, Kwargs, Note, Notes, Place
from dspy_trace.points import Call as CallPoint
from dspy_trace.points.evaluate import ExampleReader, examples
from dspy_trace.wrapping import Patch, Wrapper

IsNearest = Callable[[Any], bool]


def make(point: Place, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    """Return the wrapper for a row of the table."""
    if isinstance(point, CallPoint):
        return _observes(point, patch, is_nearest)
    if isinstance(point, Note):
        return _notes(point, patch, is_nearest)
    return _spreads(patch)


def _is_async(patch: Patch) -> bool:
    function = inspect.unwrap(vars(patch.owner)[patch.name])
    return inspect.iscoroutinefunction(function)


def _observes(point: CallPoint, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    reader = point.reader
    assert reader is not None

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        if not patch.live or not is_nearest(instance):
            return wrapped(*args, **kwargs)
        with observe(reader, instance, args, kwargs) as call:
            return call.returned(wrapped(*args, **kwargs))

    async def awaiting(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        if not patch.live or not is_nearest(instance):
            return await wrapped(*args, **kwargs)
        with observe(reader, instance, args, kwargs) as call:
            return call.returned(await wrapped(*args, **kwargs))

    return awaiting if _is_async(patch) else wrapper


class _Noting:
    """Lets notes see the arguments and the outcome of what happens during a call."""

    __slots__ = ("_call", "_instance", "_notes", "result")

    def __init__(self, call: Call, notes: Notes, instance: Any, args: Args, kwargs: Kwargs) -> None:
        self._call = call
        self._notes = notes
        self._instance = instance
        self.result: Any = None
        self._tell(shielded("noting a call", notes.before, call.fact, instance, args, kwargs))

    def _tell(self, event: facts.Fact | None) -> None:
        if event is not None:
            shielded("recording an event", self._call.happened, event)

    def __enter__(self) -> _Noting:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._tell(shielded("noting a call", self._notes.after, self._call.fact, self._instance, self.result, error))


def _around(kind: type[facts.Fact]) -> Call | None:
    """Return the nearest call of `kind`; but for modules, only if it is the innermost of all."""
    call: Call | None = get_current().get(place.CALL)  # type: ignore[assignment]  # only we write this key
    if call is None or kind is facts.ModuleCall:
        return None if call is None else call.module
    return call if type(call.fact) is kind else None


def _notes(point: Note, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    notes, kind = point.notes, point.within
    assert notes is not None

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        call = _around(kind) if patch.live and is_nearest(instance) else None
        if call is None:
            return wrapped(*args, **kwargs)
        with _Noting(call, notes, instance, args, kwargs) as noting:
            noting.result = wrapped(*args, **kwargs)
            return noting.result

    async def awaiting(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        call = _around(kind) if patch.live and is_nearest(instance) else None
        if call is None:
            return await wrapped(*args, **kwargs)
        with _Noting(call, notes, instance, args, kwargs) as noting:
            noting.result = await wrapped(*args, **kwargs)
            return noting.result

    return awaiting if _is_async(patch) else wrapper


def _spreads(patch: Patch) -> Wrapper:
    """Give items that DSPy runs on its own threads the context of the code that submitted them.

    Only OpenTelemetry's context goes along: the program's own context variables stay as DSPy treats them.
    """

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        if not patch.live or len(args) != 2:
            return wrapped(*args, **kwargs)
        function, items = args
        context = get_current()
        reader = shielded("reading items", _examples, context, items)

        def run(item: Any) -> Any:
            token = place.attach(context)
            try:
                if reader is None:
                    return function(item)
                with observe(reader, None, (item,), {}) as call:
                    return call.returned(function(item))
            finally:
                place.leave(token, context)

        return wrapped(run, items, **kwargs)

    return wrapper


def _examples(context: Any, items: Any) -> ExampleReader | None:
    call: Call | None = context.get(place.CALL)
    if call is None:
        return None
    return examples(call.fact, items)
