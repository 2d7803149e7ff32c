"""How facts are spelled: span names, kinds and attributes.

A vocabulary turns a fact into names; it never imports dspy. Vocabularies add up: the first gives a span its name and
kind, all give it attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from opentelemetry.util.types import AttributeValue

from dspy_trace.facts import Fact, Session

if TYPE_CHECKING:
    from dspy_trace.vocab.spelling import Spelling

Attributes = dict[str, AttributeValue]

Capture = Callable[[Any], str]
"""Gives a captured value as bounded JSON text; ``None`` in its place means that content is not wanted."""


class Vocabulary(Protocol):
    """One way to spell facts: a spelling for each kind of call, and a name for what happens during one."""

    @property
    def spellings(self) -> Mapping[type[Fact], Spelling]: ...

    def event(self, fact: Fact, text: Callable[[str], str] | None) -> tuple[str, Attributes]: ...

    def of_session(self, session: Session) -> Attributes: ...


@runtime_checkable
class Settling(Protocol):
    """A vocabulary that has more to say than a span may have room for."""

    def settle(self, attributes: Attributes, most: int, taken: int) -> None:
        """Make `attributes`, those of all vocabularies, `most` at most with those `taken` that the span has already."""
        ...
