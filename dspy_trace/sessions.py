"""Sessions: who and what the calls of a block belong to."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from opentelemetry.context import Context, set_value

from dspy_trace.facts import Session
from dspy_trace.observing import context as place
from dspy_trace.observing.last import EARS, last_trace
from dspy_trace.secrets import scrub

_CONVERSATIONS = "opentelemetry.util.genai._conversation_context"
"""Where ``opentelemetry-util-genai`` has its key: a private name, and never imported by us."""


def of(context: Context) -> Session | None:
    """Return what calls in `context` belong to: the session, and the conversation that util-genai was told of there.

    Whichever of the two was said last, further inside, is the conversation.
    """
    session = context.get(place.SESSION)
    if session is None and _CONVERSATIONS not in sys.modules:
        return None
    session = session if isinstance(session, Session) else None
    key = _conversation_key()
    conversation = context.get(key) if key is not None else None
    if not isinstance(conversation, str) or (session is not None and session.session_id == conversation):
        return session
    return replace(session or Session(), conversation_id=conversation)


def _conversation_key() -> str | None:
    key = getattr(sys.modules.get(_CONVERSATIONS), "CONVERSATION_ID_KEY", None)
    return key if isinstance(key, str) else None


@contextmanager
def session(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Generator[None]:
    """Say what the calls of a ``with`` block belong to, in every thread, task and stream that they start.

    A session within another adds to it: what it does not say is the outer one's, tags and metadata are merged. In the
    block, :func:`dspy_trace.last_trace_id` knows of what ends in those threads, tasks and streams as well.

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
    current = place.current()
    outer = current.get(place.SESSION)
    outer = outer if isinstance(outer, Session) else Session()
    made = Session(
        session_id=session_id if session_id is not None else outer.session_id,
        user_id=user_id if user_id is not None else outer.user_id,
        tags={**outer.tags, **scrub({str(name): str(value) for name, value in (tags or {}).items()})},
        metadata={**outer.metadata, **scrub(dict(metadata or {}))},
    )
    context = set_value(EARS, last_trace.listen(), set_value(place.SESSION, made, current))
    if session_id is not None and (key := _conversation_key()) is not None:
        context = set_value(key, session_id, context)
    token = place.attach(context)
    try:
        yield
    finally:
        place.leave(token, context)
