"""Sessions: who and what the calls of a block belong to."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import attach, get_current, set_value

from dspy_trace import context as place
from dspy_trace.facts import Session
from dspy_trace.secrets import scrub


@contextmanager
def session(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Generator[None]:
    """Say what the calls of a ``with`` block belong to, in every thread, task and stream that they start.

    A session within another adds to it: what it does not say is the outer one's, tags and metadata are merged.

    Args:
        session_id: groups traces, such as the turns of a conversation.
        user_id: for whom the calls are made.
        tags: tags of the trace, text by name.
        metadata: metadata of the trace, any JSON value by name.

    Raises:
        TypeError: an id is no string, or tags or metadata are no mapping.
    """
    for name, text in (("session_id", session_id), ("user_id", user_id)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a string, not {type(text).__name__}")
    for name, entries in (("tags", tags), ("metadata", metadata)):
        if entries is not None and not isinstance(entries, Mapping):
            raise TypeError(f"{name} must be a mapping, not {type(entries).__name__}")
    current = get_current()
    outer = current.get(place.SESSION)
    outer = outer if isinstance(outer, Session) else Session()
    made = Session(
        session_id if session_id is not None else outer.session_id,
        user_id if user_id is not None else outer.user_id,
        {**outer.tags, **scrub({str(name): str(value) for name, value in (tags or {}).items()})},
        {**outer.metadata, **scrub(dict(metadata or {}))},
    )
    context = set_value(place.SESSION, made, current)
    token = attach(context)
    try:
        yield
    finally:
        place.leave(token, context)


@contextmanager
def of_model(model_id: str | None) -> Generator[None]:
    """Say which of MLflow's models the calls of a ``with`` block belong to; ``None`` leaves it as it is."""
    if model_id is None:
        yield
        return
    context = set_value(place.MODEL, model_id, get_current())
    token = attach(context)
    try:
        yield
    finally:
        place.leave(token, context)
