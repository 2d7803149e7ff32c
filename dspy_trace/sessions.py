"""Sessions: who and what the calls of a block belong to."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry.context import Context, set_value

from dspy_trace.facts import Session
from dspy_trace.observing import context as place
from dspy_trace.observing.last import EARS, last_trace
from dspy_trace.secrets import scrub

F = TypeVar("F", bound=Callable[..., Any])

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


class SessionBlock:
    """What :func:`session` returns: for a ``with`` block, or as a decorator of a function, ``async`` or not."""

    def __init__(self, told: Session) -> None:
        self._told = told
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        self._entered.append(_within(self._told))
        self._entered[-1].__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Return a function each call of which is a block of its own.

        Raises:
            TypeError: it is a generator, whose block would be over before it begins.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("session() is no decorator of generators: say `with dspy_trace.session(...):` inside")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _within(self._told):
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def awaiting(*args: Any, **kwargs: Any) -> Any:
            with _within(self._told):
                return await function(*args, **kwargs)

        return cast("F", awaiting if inspect.iscoroutinefunction(function) else call)


def session(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> SessionBlock:
    """Say what the calls of a ``with`` block belong to, in every thread, task and stream that they start.

    A session within another adds to it: what it does not say is the outer one's, tags and metadata are merged. In the
    block, :func:`dspy_trace.last_trace_id` knows of what ends in those threads, tasks and streams as well. It is also a
    decorator, each call of the function being a block.

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
    told = {str(name): str(value) for name, value in (tags or {}).items()}
    return SessionBlock(Session(session_id, None, user_id, scrub(told), scrub(dict(metadata or {}))))


@contextmanager
def _within(told: Session) -> Generator[None]:
    current = place.current()
    outer = current.get(place.SESSION)
    outer = outer if isinstance(outer, Session) else Session()
    made = Session(
        session_id=told.session_id if told.session_id is not None else outer.session_id,
        user_id=told.user_id if told.user_id is not None else outer.user_id,
        tags={**outer.tags, **told.tags},
        metadata={**outer.metadata, **told.metadata},
    )
    context = set_value(EARS, last_trace.listen(), set_value(place.SESSION, made, current))
    if told.session_id is not None and (key := _conversation_key()) is not None:
        context = set_value(key, told.session_id, context)
    token = place.attach(context)
    try:
        yield
    finally:
        place.leave(token, context)
