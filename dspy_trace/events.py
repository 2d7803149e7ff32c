"""Events through the Logs API, beside the span that they belong to: details of an LM call, and scores."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import Context

from dspy_trace import facts, failures
from dspy_trace.vocab import Vocabulary, keys, log_keys

Structured = Callable[[Any], Any]
"""Gives a captured value as bounded, plain data, which an event can hold as it is."""


class Events:
    """Makes events with one logger.

    Args:
        logger: takes them.
        vocabulary: how facts are spelled.
        capture: gives captured values; ``None`` where content is not wanted on events.
        text: gives captured text.
    """

    def __init__(
        self,
        logger: Logger,
        vocabulary: Vocabulary,
        capture: Structured | None,
        text: Callable[[str], str],
    ) -> None:
        self._logger = logger
        self._vocabulary = vocabulary
        self._lm = vocabulary.spellings[facts.LMCall]
        self._capture = capture
        self._text = text if capture is not None else None

    def begin(self, fact: facts.Fact) -> Event:
        """Take note of what is known before a call, content as it is at this moment."""
        told: dict[str, Any] = {}
        if isinstance(fact, facts.LMCall):
            told.update(self._lm.at_start(fact))
            told.update(self._lm.at_call(fact, self._capture))
        return Event(self, fact, told)

    def end(self, fact: facts.Fact, told: dict[str, Any], error: BaseException | None, context: Context | None) -> None:
        """Tell what became of the call."""
        failed = {} if error is None else {keys.ERROR_TYPE: type(error).__qualname__}
        if isinstance(fact, facts.LMCall):
            told.update(self._lm.at_end(fact, self._capture))
            self._emit(log_keys.EVENT_DETAILS, {**told, **failed}, context, SeverityNumber.DEBUG)
            if error is not None:
                raised, _ = failures.told(error, self._text, with_stack=False)
                self._emit(log_keys.EVENT_EXCEPTION, raised, context, SeverityNumber.WARN)
        elif isinstance(fact, facts.ExampleRun) and (fact.score is not None or failed):
            name, scored = self._vocabulary.event(facts.scored(fact), self._text)
            self._emit(name, {**scored, **failed}, context, SeverityNumber.INFO)

    def _emit(self, name: str, told: dict[str, Any], context: Context | None, severity: SeverityNumber) -> None:
        record = LogRecord(
            timestamp=time.time_ns(),
            context=context,
            severity_number=severity,
            severity_text=severity.name,
            attributes=told,
            event_name=name,
        )
        self._logger.emit(record)


class Event:
    """The event of one call, which is told when the call ends."""

    __slots__ = ("_events", "_fact", "_told")

    def __init__(self, events: Events, fact: facts.Fact, told: dict[str, Any]) -> None:
        self._events = events
        self._fact = fact
        self._told = told

    def end(self, error: BaseException | None, context: Context | None) -> None:
        """Tell it."""
        self._events.end(self._fact, self._told, error, context)
