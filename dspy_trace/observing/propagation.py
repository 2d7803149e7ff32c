"""The context of a trace on its way to an LM's server, so that what happens there joins the trace."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import propagate

from dspy_trace.observing import context as place
from dspy_trace.observing.call import Call

_KEPT_HOME = frozenset({"baggage"})
"""What the application tells its own services is not for a provider's eyes."""


def carried(call: Call) -> Mapping[str, str]:
    """Return the headers that the application's propagators make of the current context, while `call` is traced."""
    if not call.is_open or not call.span.get_span_context().is_valid:
        return {}
    headers: dict[str, str] = {}
    propagate.inject(headers, place.current())
    return {name: value for name, value in headers.items() if name.lower() not in _KEPT_HOME}
