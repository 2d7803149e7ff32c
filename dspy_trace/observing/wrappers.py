"""The wrappers: what stands between a caller and a method of DSPy's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from dspy_trace import facts
from dspy_trace.guard import ask, shielded, unseen
from dspy_trace.observing import context as place
from dspy_trace.observing import units
from dspy_trace.observing.admission import is_idle, observe
from dspy_trace.observing.call import Call
from dspy_trace.observing.propagation import carried
from dspy_trace.observing.wrapping import Patch, Wrapper
from dspy_trace.points import Args, Handover, Held, Kwargs, Note, Notes, Place, Send
from dspy_trace.points import Call as CallPoint
from dspy_trace.points.evaluate import ExampleReader, examples
from dspy_trace.points.optimizers import Finding

IsNearest = Callable[[Any], bool]

T = TypeVar("T")


class Door:
    """The way into an object that a call takes: ``__call__`` or ``acall``, as one class defines it.

    A class may define one of the two by the other, as DSPy's ``DummyLM`` did: both are one call. What goes in by it may
    send requests.
    """

    __slots__ = ("name", "overrides", "sends")

    def __init__(self, name: str, overrides: bool, sends: bool) -> None:
        self.name = name
        self.overrides = overrides
        self.sends = sends

    def is_behind(self, other: Door | None) -> bool:
        """Return whether a call through this door, directly beneath one of the same object, belongs to that one.

        Only if a subclass defined that one: DSPy's own run a ``forward``, whose ``self(...)`` is a call of its own.
        """
        return other is not None and other.overrides and other.name != self.name


def make(point: Place, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    """Return the wrapper for a row of the table."""
    if isinstance(point, CallPoint):
        return _observes(point, patch, is_nearest)
    if isinstance(point, Held):
        return _rewards(point, patch)
    if isinstance(point, Note):
        return _notes(point, patch, is_nearest)
    if isinstance(point, Send):
        return _sends(point, patch, is_nearest)
    return _hands_over(patch) if isinstance(point, Handover) else _spreads(patch)


def _is_async(patch: Patch) -> bool:
    function = inspect.unwrap(vars(patch.owner)[patch.name])
    return inspect.iscoroutinefunction(function)


def _observes(point: CallPoint, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    reader, sends = point.reader, point.sends
    assert reader is not None
    base, _, name = point.target.rpartition(".")
    overrides = f"{patch.owner.__module__}.{patch.owner.__qualname__}" != f"{point.module}.{base}"
    door = Door(name, overrides, sends)

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        try:
            context = place.current()
            if not patch.live or is_idle(context, sends) or not is_nearest(instance):
                return wrapped(*args, **kwargs)
            with observe(context, reader, instance, args, kwargs, door) as call:
                return call.returned(wrapped(*args, **kwargs))
        except BaseException as error:
            unseen(error)
            raise

    async def awaiting(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        try:
            context = place.current()
            if not patch.live or is_idle(context, sends) or not is_nearest(instance):
                return await wrapped(*args, **kwargs)
            with observe(context, reader, instance, args, kwargs, door) as call:
                return call.returned(await wrapped(*args, **kwargs))
        except BaseException as error:
            unseen(error)
            raise

    return awaiting if _is_async(patch) else wrapper


def _note(call: Call, tell: Callable[..., facts.Fact | None], *told: Any) -> None:
    event = shielded("noting a call", tell, call.fact, *told)
    if event is None:
        return
    if isinstance(event, Finding):
        units.found(call, event)
    else:
        shielded("recording an event", call.happened, event)


def _around(kind: type[facts.Fact]) -> Call | None:
    """Return the nearest call of `kind`, if it is told; but for modules, only if it is the innermost of all."""
    call: Call | None = place.current().get(place.CALL)  # type: ignore[assignment]  # only we write this key
    if call is None or call.tells_nothing:
        return None
    if type(call.fact) is kind:
        return call
    return call.module if kind is facts.ModuleCall else None


class _NoteTaker:
    """Tells notes what happens during a call."""

    __slots__ = ("_failures", "_is_nearest", "_kind", "_notes", "_patch", "_results", "_starts", "idle")

    def __init__(self, point: Note, patch: Patch, is_nearest: IsNearest) -> None:
        assert point.notes is not None
        self._notes, self._kind, self._patch, self._is_nearest = point.notes, point.within, patch, is_nearest
        cls = type(point.notes)
        self._starts = cls.before is not Notes.before
        self._results = cls.returned is not Notes.returned
        self._failures = cls.failed is not Notes.failed
        self.idle = not self._starts and not self._results
        """Whether there is nothing to do unless the call fails."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs) -> Call | None:
        """Return the call that the notes are about, having told them how this begins."""
        call = _around(self._kind)
        if call is None or not self._patch.live or not self._is_nearest(instance):
            return None
        if self._starts:
            _note(call, self._notes.before, instance, args, kwargs)
        return call

    def end(self, call: Call, instance: Any, result: T) -> T:
        """Tell the notes what came of it."""
        if self._results:
            _note(call, self._notes.returned, instance, result)
        return result

    def fail(self, call: Call | None, instance: Any, error: BaseException) -> None:
        """Tell the notes that it failed."""
        if self._failures and self.idle:
            call = self.begin(instance, (), {})
        if self._failures and call is not None:
            _note(call, self._notes.failed, instance, error)


def _notes(point: Note, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    taker = _NoteTaker(point, patch, is_nearest)
    idle = taker.idle

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        call = taker.begin(instance, args, kwargs) if not idle else None
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            taker.fail(call, instance, error)
            unseen(error)
            raise
        return taker.end(call, instance, result) if call is not None else result

    async def awaiting(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        call = taker.begin(instance, args, kwargs) if not idle else None
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            taker.fail(call, instance, error)
            unseen(error)
            raise
        return taker.end(call, instance, result) if call is not None else result

    return awaiting if _is_async(patch) else wrapper


def _rewards(point: Held, patch: Patch) -> Wrapper:
    """Tell the notes of `point` what the function gave, if the innermost module call is of the object that holds it."""
    notes = point.notes
    assert notes is not None

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            unseen(error)
            raise
        call = _around(facts.ModuleCall) if patch.live else None
        if call is not None and call.instance is instance:
            _note(call, notes.returned, instance, result)
        return result

    return wrapper


def _spreads(patch: Patch) -> Wrapper:
    """Give items that DSPy runs on its own threads the context of the code that submitted them.

    Only OpenTelemetry's context goes along: the program's own context variables stay as DSPy treats them.
    """

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        try:
            if not patch.live or len(args) != 2:
                return wrapped(*args, **kwargs)
            function, items = args
            context = place.current()
            reader = shielded("reading items", _examples, context, items, function)

            def run(item: Any) -> Any:
                token = place.attach(context)
                try:
                    if reader is None:
                        return function(item)
                    with observe(place.current(), reader, None, (item,), {}) as call:
                        return call.returned(function(item))
                except BaseException as error:
                    unseen(error)
                    raise
                finally:
                    place.leave(token, context)

            return wrapped(run, items, **kwargs)
        except BaseException as error:
            unseen(error)
            raise

    return wrapper


def _examples(context: Any, items: Any, function: Any) -> ExampleReader | None:
    call: Call | None = context.get(place.CALL)
    if call is None:
        return None
    return examples(call.fact, items, function)


def _hands_over(patch: Patch) -> Wrapper:
    """Let what a thread of DSPy's does for a caller, who waits for it, find that caller's context.

    The thread may be older than we are, so that nothing can be bound to what it runs.
    """

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        try:
            worker = ask(lambda: instance.worker_thread.ident)
            if not patch.live or not args or worker is None:
                return wrapped(*args, **kwargs)
            with place.waiting_for(worker, args[0]):
                return wrapped(*args, **kwargs)
        except BaseException as error:
            unseen(error)
            raise

    return wrapper


def _sends(point: Send, patch: Patch, is_nearest: IsNearest) -> Wrapper:
    """Let a request take the context of the call along that it is made for, where that is traced.

    What comes of the request is returned as it is, be it awaited or not.
    """
    headed = point.headed
    assert headed is not None

    def wrapper(wrapped: Any, instance: Any, args: Args, kwargs: dict[str, Any]) -> Any:
        try:
            call: Call | None = place.current().get(place.CALL)  # type: ignore[assignment]  # as above
            if (
                call is not None
                and isinstance(call.fact, point.within)
                and patch.live
                and args
                and is_nearest(instance)
            ):
                headers = shielded("telling the trace's context", carried, call)
                request = shielded("sending the trace's context", headed, args[0], headers) if headers else None
                args = args if request is None else (request, *args[1:])
            return wrapped(*args, **kwargs)
        except BaseException as error:
            unseen(error)
            raise

    return wrapper


# What runs here stands on the stack between the program and DSPy. DSPy's warnings name the first frame that is not
# DSPy's own, and that has to be the program's.
__name__ = f"dspy.{__name__}"
