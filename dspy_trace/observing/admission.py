"""Which calls are observed, and beneath which others.

This is all that a wrapper needs::

    context = place.current()
    if is_idle(context):
        return wrapped(*args, **kwargs)
    with observe(context, reader, instance, args, kwargs) as call:
        return call.returned(wrapped(*args, **kwargs))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context

from dspy_trace import facts
from dspy_trace.guard import shielded
from dspy_trace.observing import context as place
from dspy_trace.observing import units
from dspy_trace.observing.call import Call
from dspy_trace.observing.neighbours import claimed
from dspy_trace.observing.observer import active
from dspy_trace.observing.unobserved import UNOBSERVED, Unobserved
from dspy_trace.points import Args, Kwargs, Reader
from dspy_trace.values.untold import notice

if TYPE_CHECKING:
    from dspy_trace.observing.wrappers import Door


def is_idle(context: Context, sends: bool = False) -> bool:
    """Return whether nothing is observed in `context`, whatever is called: no SDK is set up, or nobody is told.

    All that a call costs then, but for one that `sends` requests where these take the trace's context along.
    """
    above: Call | None = context.get(place.CALL)  # type: ignore[assignment]  # only we write this key
    if above is not None:
        return above.tells_nothing and not place.waiting and not (sends and above.observer.settings.propagate)
    observer = active()
    return observer is None or observer.tracer() is None


def observe(
    context: Context, reader: Reader, instance: Any, args: Args, kwargs: Kwargs, door: Door | None = None
) -> Call | Unobserved:
    """Begin to observe a call in `context`, if it is to be observed."""
    call = shielded("beginning a call", _begin, context, reader, instance, args, kwargs, door)
    return call if call is not None else UNOBSERVED


def _begin(
    context: Context, reader: Reader, instance: Any, args: Args, kwargs: Kwargs, door: Door | None
) -> Call | None:
    above: Call | None = context.get(place.CALL)  # type: ignore[assignment]  # only we write this key
    if place.waiting and (above is None or not above.is_open):
        context = place.of_waiting(args) or context
        above = context.get(place.CALL)  # type: ignore[assignment]  # as above
    observer = active() if above is None else above.observer
    if observer is None:
        return None
    tracer = observer.tracer() if above is None else above.tracer
    if tracer is None or (not place.SUPPRESSIONS.isdisjoint(context) and place.is_suppressed(context)):
        return None
    module: Call | None = None
    if above is not None:
        if above.tells_nothing:
            return _request(above, reader, instance, context) if door is not None and door.sends else None
        if door is not None and above.instance is instance and door.is_behind(above.door):
            return None
        module = above.module
    fact = reader.begin(instance, args, kwargs, module.fact if module is not None else None)
    if fact is None or (observer.picky and not observer.wants(fact)):
        return None
    if type(fact) is facts.LMCall and above is not None and type(above.fact) is facts.LMCall:
        above.fact.relays = True
    call = Call(observer, tracer, reader, instance, fact, above, module)
    call.door = door
    other = claimed(context, fact)
    if other is not None:
        call.give_way(other)
    if type(fact) in units.KINDS:
        units.began(call)
    call.start(context)
    given = _GIVEN.get(type(fact))
    if given is not None and not call.tells_nothing and not (observer.captures and call.span.is_recording()):
        shielded("taking note of secrets", notice, getattr(fact, given))
    return call


_GIVEN: Final[dict[type[facts.Fact], str]] = {
    facts.ModuleCall: "inputs",
    facts.ToolCall: "arguments",
    facts.CodeExecution: "variables",
}
"""What the program passes to a call by names of its own: where it is captured, its secrets are known by that."""

_ASKED = facts.LMCall("", "", "")
"""Of a call that nobody is told of, this is all that is known: it may send requests."""


def _request(above: Call, reader: Reader, instance: Any, context: Context) -> Call:
    """Return a call beneath one that tells nothing: what it sends takes the context of that one along."""
    call = Call(above.observer, above.tracer, reader, instance, _ASKED, above, None)
    call.start_silent(context)
    return call
