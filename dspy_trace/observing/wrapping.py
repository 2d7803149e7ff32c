"""Patching with wrapt, and undoing it exactly.

A :class:`Patch` puts one wrapper on one attribute. :meth:`Patch.undo` leaves the attribute as it was found:

* nothing on top of ours: the identical original object is back (or the attribute is gone, if it was inherited);
* wrapt wrappers on top: they stay and keep working, ours is taken out from beneath them;
* a plain closure on top: nothing can be taken out, so ours stays as a pass-through of one test. A later patch of the
  same attribute goes on top of the closure, where it can be taken off again; the one beneath sleeps on.
"""

from __future__ import annotations

import copy
import functools
import itertools
import sys
import weakref
from collections.abc import Callable
from types import FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, cast

import wrapt

from dspy_trace.guard import unseen

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""What wrapt calls: ``wrapper(wrapped, instance, args, kwargs)``."""


if TYPE_CHECKING:
    BoundFunctionWrapper = wrapt.BoundFunctionWrapper[..., Any]
    FunctionWrapper = wrapt.FunctionWrapper[..., Any]
else:
    # Generic in wrapt's stubs only.
    BoundFunctionWrapper, FunctionWrapper = wrapt.BoundFunctionWrapper, wrapt.FunctionWrapper


def _method(function: Any, instance: Any) -> Any:
    """Return `function` as a method of `instance`: the one that is there, with whatever is on it, if it is the same."""
    method = getattr(instance, function.__name__, None)
    return method if getattr(method, "__func__", None) is function else MethodType(function, instance)


class _MethodType(type(BoundFunctionWrapper)):  # type: ignore[misc]  # another in wrapt's C than in its Python
    """Makes methods as ``types.MethodType`` does: ``weakref.WeakMethod`` asks the type of a method for that."""

    def __call__(cls, function: Any, instance: Any) -> Any:
        return _method(function, instance)


class _Bound(BoundFunctionWrapper, metaclass=_MethodType):
    """Our wrapper on one instance: copies, pickles and prints as the plain bound method does."""

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if isinstance(self.__wrapped__, MethodType | FunctionType):
            return getattr, (self._holder(), self.__wrapped__.__name__)
        return cast, (object, self.__wrapped__)

    def _holder(self) -> Any:
        """Return what the method was taken from: the instance, or the class."""
        return self._self_owner if self._self_instance is None else self._self_instance

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._self_instance is None:
            return self
        if isinstance(self.__wrapped__, MethodType):
            return _method(self.__wrapped__.__func__, copy.deepcopy(self._self_instance, memo))
        return copy.deepcopy(self.__wrapped__, memo)


class Observed(FunctionWrapper):
    """Our wrapper on a class or module. A class that is pickled by value takes the plain function along."""

    # What wrapt itself makes goes past the metaclass.
    __bound_function_wrapper__ = functools.partial(type.__call__, _Bound)  # type: ignore[assignment]  # makes the same

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        name: str = getattr(self.__wrapped__, "__qualname__", ".")
        if "." not in name and getattr(sys.modules.get(self.__module__), name, None) is self:
            return name
        # ``cast`` gives what it is given, and is there where we are not.
        return cast, (object, self.__wrapped__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class HeldFunction:
    """Stands on a class for a function that its instances hold in an attribute.

    Their ``forward`` is given our wrapper of it; whoever else asks is given the function itself. Instances are left as
    they are.
    """

    __slots__ = ("_name", "_wrapper")

    def __init__(self, name: str, wrapper: Wrapper) -> None:
        self._name = name
        self._wrapper = wrapper

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        state = vars(instance) if instance is not None else {}
        if self._name not in state:
            holder = type(instance).__name__ if instance is not None else owner.__name__
            raise AttributeError(f"{holder!r} object has no attribute {self._name!r}")
        held = state[self._name]
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # public enough
        if caller.f_code.co_name == "__getattribute__" and caller.f_back is not None:
            caller = caller.f_back
        if caller.f_code.co_name != "forward" or not _runs_for(caller, instance):
            return held

        def given(*args: Any, **kwargs: Any) -> Any:
            try:
                return self._wrapper(held, instance, args, kwargs)
            except BaseException as error:
                unseen(error)
                raise

        return given

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._name] = value

    def __delete__(self, instance: Any) -> None:
        if self._name not in vars(instance):
            raise AttributeError(self._name)
        del vars(instance)[self._name]


def _runs_for(frame: FrameType, instance: Any) -> bool:
    """Return whether a method of `instance` runs in a frame, and not one of another object that asks it."""
    return any(frame.f_locals.get(name) is instance for name in frame.f_code.co_varnames[:1])


def plain(value: Any) -> Any:
    """Return `value` without our wrappers."""
    while type(value) is Observed:
        value = value.__wrapped__
    return value


_MISSING = object()
_serial = itertools.count()
_covered: dict[tuple[int, str], tuple[weakref.ref[Any], int]] = {}
"""Attributes with one of ours that could not be taken out, and the ``id()`` of what covers it."""


class Patch:
    """One attribute of an owner, with something of ours on it. ``live`` is false once undone.

    The owner is held weakly: a program may define classes by the thousand.
    """

    __slots__ = ("__weakref__", "_original", "_ours", "_owner", "live", "name", "serial")

    def __init__(self, owner: Any, name: str) -> None:
        self._owner = weakref.ref(owner)
        self.name = name
        self.live = True
        self.serial = next(_serial)
        self._original: Any = vars(owner).get(name, _MISSING)
        self._ours: Any = None

    @property
    def owner(self) -> Any:
        """The class or module, or ``None`` once it is gone."""
        return self._owner()

    def wrap(self, make: Callable[[Patch], Wrapper]) -> Patch:
        """Put the wrapper that `make` returns on the attribute."""
        target = self._original if self._original is not _MISSING else getattr(self.owner, self.name)
        return self.put(Observed(target, make(self)))

    def put(self, ours: Any) -> Patch:
        """Put `ours` on the attribute."""
        self._ours = ours
        setattr(self.owner, self.name, ours)
        return self

    def undo(self) -> None:
        """Restore the attribute, as far as what others have put on top allows."""
        self.live = False
        owner = self.owner
        if owner is None:
            return
        current = vars(owner).get(self.name, _MISSING)
        if self._is_ours(current):
            if self._original is _MISSING:
                delattr(owner, self.name)
            else:
                setattr(owner, self.name, self._original)
        elif current is not _MISSING and not self._is_gone(current) and not self._splice(current):
            _covered[id(owner), self.name] = (self._owner, id(current))

    def can_be_undone(self) -> bool:
        """Return whether nothing stands on top of ours that it could not be taken out from beneath."""
        found = vars(self.owner).get(self.name, _MISSING) if self.owner is not None else self._ours
        while not self._is_ours(found):
            if not isinstance(found, wrapt.BaseObjectProxy):
                return self._is_gone(found)
            found = found.__wrapped__
        return True

    def _is_ours(self, value: Any) -> bool:
        """Return whether `value` is ours, as it stands in the class or as ``getattr`` takes it from there."""
        return value is self._ours or (type(value) is _Bound and value._self_parent is self._ours)

    def _is_gone(self, current: Any) -> bool:
        """Return whether somebody has put back what was beneath ours, or part of that."""
        if _is_copy(current, self._original):
            return True
        beneath = self._original
        while beneath is not None:
            # ``getattr`` takes a wrapt wrapper from the class in a bound form.
            if beneath is current or beneath is getattr(current, "_self_parent", None):
                return True
            beneath = getattr(beneath, "__wrapped__", None)
        return False

    def _splice(self, outer: Any) -> bool:
        while isinstance(outer, wrapt.BaseObjectProxy):
            inner = outer.__wrapped__
            if self._is_ours(inner) and type(self._ours) is Observed:
                outer.__wrapped__ = self._ours.__wrapped__
                return True
            outer = inner
        return False


def _is_copy(function: Any, original: Any) -> bool:
    """Return whether `function` was made anew of the same code, as unpickling a class by value does."""
    plain_ones = isinstance(function, FunctionType) and isinstance(original, FunctionType)
    return plain_ones and not hasattr(function, "__wrapped__") and function.__code__ == original.__code__


def leftovers() -> list[str]:
    """Return the attributes that still carry a sleeping wrapper of ours, such as ``dspy.Predict.__call__``."""
    found = []
    for (_, name), (ref, cover) in list(_covered.items()):
        owner = ref()
        if owner is not None and id(vars(owner).get(name)) == cover:
            found.append(f"{getattr(owner, '__qualname__', None) or owner.__name__}.{name}")
    return sorted(found)
