"""Where we look at DSPy, and how its objects are read.

:mod:`dspy_trace.points.table` lists the methods; the other modules hold readers, which turn what DSPy passes around
into facts. Nothing here knows what a span is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dspy_trace.facts import Fact, ModuleCall

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class Reader(Protocol):
    """Reads one kind of call."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact | None:
        """Return the fact that is beginning, or ``None`` where there is nothing to tell.

        `within` is the nearest module call around this one.
        """
        ...

    def end(self, fact: Any, instance: Any, result: Any, error: BaseException | None) -> None:
        """Add what is known now that the call is over; `result` is ``None`` if it raised."""
        ...


class Notes:
    """Reads something that happens during a call and adds to that call's fact.

    Each method returns an event of the call, or ``None``. What a subclass does not define costs nothing.
    """

    def before(self, fact: Any, instance: Any, args: Args, kwargs: Kwargs) -> Fact | None:
        """Add to `fact` what the arguments tell."""

    def returned(self, fact: Any, instance: Any, result: Any) -> Fact | None:
        """Add to `fact` what the result tells."""

    def failed(self, fact: Any, instance: Any, error: BaseException) -> Fact | None:
        """Add to `fact` what the exception tells."""


@dataclass(frozen=True, slots=True)
class Place:
    """A method or function of DSPy's.

    Attributes:
        module: import name of the module that defines it; patched when the program imports that module.
        target: ``Class.method``, or the name of a function.
        overrides: also patch every subclass that overrides the method, existing or defined later.
        redecorated: DSPy's own ``__init_subclass__`` decorates the *inherited* method, and must not find ours there.
        before: first DSPy version, as ``(major, minor)``, that has no use for this row.
    """

    module: str
    target: str
    overrides: bool = False
    redecorated: bool = False
    before: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Call(Place):
    """A method whose calls are observed: at a level of detail, and wherever runs are logged if they need it.

    Attributes:
        sends: makes requests that take the trace's context along, where that is wanted.
    """

    reader: Reader | None = None
    detail: str = "minimal"
    runs: bool = False
    sends: bool = False


@dataclass(frozen=True, slots=True)
class Note(Place):
    """A method that tells something about the nearest call of the kind `within`."""

    within: type[Fact] = Fact
    notes: Notes | None = None


@dataclass(frozen=True, slots=True)
class Held(Place):
    """A function that instances of a class hold in an attribute, and that their ``forward`` calls."""

    notes: Notes | None = None


@dataclass(frozen=True, slots=True)
class Spread(Place):
    """A method that runs a function over items on threads of DSPy's: ``execute(function, data)``."""


@dataclass(frozen=True, slots=True)
class Handover(Place):
    """A method that hands its argument to the object's ``worker_thread`` and waits: ``__call__(item)``."""


@dataclass(frozen=True, slots=True)
class Send(Place):
    """A method that sends an HTTP request, ``send(request)``, for a call of one of the kinds `within`.

    Attributes:
        within: calls whose requests take the trace's context along.
        headed: returns the request with more headers.
    """

    within: tuple[type[Fact], ...] = ()
    headed: Callable[[Any, Mapping[str, str]], Any] | None = None
