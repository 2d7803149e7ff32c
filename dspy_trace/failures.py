"""What is told of an exception that ended a call."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from dspy_trace.guard import ask
from dspy_trace.vocab import Attributes, keys


def told(error: BaseException, text: Callable[[str], str] | None, *, with_stack: bool) -> tuple[Attributes, str]:
    """Return the attributes of the exception event and the description of the status.

    Args:
        error: the exception.
        text: makes captured text fit to be told; ``None`` where content is not wanted: then only the type is.
        with_stack: include the traceback; the span that saw the exception first has it.
    """
    kind = type(error)
    module = ask(getattr, kind, "__module__")
    # As OpenTelemetry's SDK has it.
    name = f"{module}.{kind.__qualname__}" if module and module != "builtins" else kind.__qualname__
    event: Attributes = {keys.EXCEPTION_TYPE: name}
    if text is None:
        return event, kind.__qualname__
    message = text(ask(str, error, default=""))
    event[keys.EXCEPTION_MESSAGE] = message
    if with_stack:
        event[keys.EXCEPTION_STACKTRACE] = text("".join(ask(traceback.format_exception, error, default=[])))
    return event, f"{kind.__qualname__}: {message}"
