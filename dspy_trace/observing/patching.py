"""The rows of the table, put on DSPy's classes: on the one that defines a method and on those that override it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from dspy_trace.observing import context as place
from dspy_trace.observing.wrapping import HeldFunction, Observed, Patch, Wrapper, plain
from dspy_trace.points import Call, Held, Place

Make = Callable[[Place, Patch, Callable[[Any], bool]], Wrapper]
"""Makes the wrapper of a row: ``make(point, patch, is_nearest)``."""


class Row:
    """One row of the table in force, with the classes that it is on."""

    def __init__(self, point: Place, make: Make) -> None:
        self.point = point
        self._make = make
        cls, _, method = point.target.rpartition(".")
        self.cls: str = cls
        self.method: str = method
        self._owners: dict[int, weakref.ref[Any]] = {}

    def apply(self, owner: Any) -> Patch:
        """Put the row on `owner`, a class that defines the method, or the module of a function."""
        key = id(owner)
        if isinstance(self.point, Held):
            patch = Patch(owner, self.method)
            return patch.put(HeldFunction(self.method, self._make(self.point, patch, lambda instance: True)))
        self._owners[key] = weakref.ref(owner, lambda _: self._owners.pop(key, None))
        return Patch(owner, self.method).wrap(lambda patch: self._make(self.point, patch, self._nearest(key)))

    def _nearest(self, key: int) -> Callable[[Any], bool]:
        """Return the test that makes one observation of one call: is this the patched class nearest to the instance?

        Where another is nearer, that one observes, and this is a ``super()`` call.
        """
        method, owners, may_be_gone = self.method, self._owners, isinstance(self.point, Call)

        def is_nearest(instance: Any) -> bool:
            for base in type(instance).__mro__:
                if method in base.__dict__:
                    base_key = id(base)
                    if base_key == key:
                        return True
                    if base_key in owners:
                        # If something else stands there now, it either calls ours, which has observed, or replaced it.
                        covered = type(base.__dict__[method]) is not Observed
                        return covered and may_be_gone and not place.is_innermost(instance)
            # No instance of the class: a static or a class method, or a call with something else as ``self``.
            return False

        return is_nearest if self.cls else lambda instance: True


class Patches:
    """All patches of one instrumentation."""

    def __init__(self, points: list[Place], make: Make) -> None:
        self._rows = [Row(point, make) for point in points]
        self._fixed: list[Patch] = []
        # Those on the program's own classes live as long as the classes do.
        self._on_subclasses: weakref.WeakSet[Patch] = weakref.WeakSet()
        self.missing: list[str] = []

    def modules(self) -> list[str]:
        """Return the names of the modules that have rows."""
        return list(dict.fromkeys(row.point.module for row in self._rows))

    def module_loaded(self, module: ModuleType) -> None:
        """Put the rows of `module` in force. A name that this DSPy lacks is noted in ``missing`` and skipped."""
        hooked: dict[Any, list[Row]] = {}
        for row in self._rows:
            if row.point.module == module.__name__:
                owner: Any = getattr(module, row.cls, None) if row.cls else module
                # What instances hold is in none of their classes.
                if owner is None or (row.method in vars(owner)) is isinstance(row.point, Held):
                    self.missing.append(f"{row.point.module}.{row.point.target}")
                    continue
                self._fixed.append(row.apply(owner))
                if row.point.overrides:
                    hooked.setdefault(owner, []).append(row)
        for owner, rows in hooked.items():
            for subclass in _subclasses(owner):
                self._adopt(subclass, rows)
            self._hook(owner, rows)

    def live(self) -> list[Patch]:
        """Return the patches of methods that are in force."""
        found = sorted([*self._fixed, *self._on_subclasses], key=lambda patch: patch.serial)
        return [patch for patch in found if patch.live and patch.name != "__init_subclass__"]

    def _adopt(self, cls: type, rows: list[Row]) -> None:
        for row in rows:
            if row.method in vars(cls):
                self._on_subclasses.add(row.apply(cls))

    def _hook(self, owner: Any, rows: list[Row]) -> None:
        """Make every later subclass of `owner` known to us as it is defined."""
        patch = Patch(owner, "__init_subclass__")
        original = vars(owner).get("__init_subclass__")

        def init_subclass(cls: type, /, **kwargs: Any) -> None:
            if patch.live:
                _undecorate(cls, rows)
            if original is not None:
                original.__get__(None, cls)(**kwargs)
            else:
                super(owner, cls).__init_subclass__(**kwargs)  # type: ignore[misc]  # cls is a subclass of owner
            if patch.live:
                self._adopt(cls, rows)

        self._fixed.append(patch.put(classmethod(init_subclass)))

    def undo(self) -> None:
        """Restore everything, what was put on last first."""
        for patch in sorted([*self._fixed, *self._on_subclasses], key=lambda patch: -patch.serial):
            patch.undo()
        self._fixed.clear()
        self._on_subclasses.clear()


def _undecorate(cls: type, rows: list[Row]) -> None:
    """Let DSPy's ``__init_subclass__``, which decorates inherited methods, find the plain ones."""
    for row in rows:
        if row.point.redecorated and row.method not in vars(cls):
            inherited = next(vars(base)[row.method] for base in cls.__mro__ if row.method in vars(base))
            setattr(cls, row.method, plain(inherited))


def _subclasses(cls: type) -> Iterator[type]:
    """Yield every existing subclass once."""
    seen = {cls}
    queue = [cls]
    for found in queue:
        subclasses: list[type] = type.__subclasses__(found)
        for subclass in subclasses:
            if subclass not in seen:
                seen.add(subclass)
                queue.append(subclass)
                yield subclass
