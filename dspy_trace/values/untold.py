"""What a call is given, where nobody is told of it: the secrets in it are taken note of all the same."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from dspy_trace.guard import ask
from dspy_trace.secrets import conceals, hide
from dspy_trace.secrets.names import judged
from dspy_trace.values.fields import declared

_MOST: Final = 100
"""Values that are looked into, and parts of each, at most."""

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


def notice(value: Any) -> None:
    """Take note of the secrets in a value by their names, at any depth, as is done of one that is told.

    Others may tell of them, as an exception's text does on a span of the application's. Texts are not read.
    """
    found = [value]
    # It grows while it is walked over.
    for item in found:
        kind = type(item)
        if kind is dict or kind not in _PLAIN:
            ask(_look_into, item, kind, found)


def _look_into(value: Any, kind: type, found: list[Any]) -> None:
    if len(found) > _MOST:
        return
    if kind is not dict and issubclass(kind, list | tuple):
        items = (list if issubclass(kind, list) else tuple).__iter__(value)
        found += [item for item in islice(items, _MOST) if type(item) not in _PLAIN]
        return
    fields = value if kind is dict or issubclass(kind, dict) else declared(value, kind)
    if fields is None:
        return
    entries = dict.items(fields)
    for name, item in islice(entries, _MOST):
        if type(name) is str and judged.get(name) is not False and conceals(name, entries):
            hide(name, item)
        elif type(item) not in _PLAIN:
            found.append(item)
