"""Finding many values in a text, in all the forms that they may have there, at a cost that hardly grows with them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

import orjson

from dspy_trace.secret_patterns import REPLACEMENT

SHORTEST: Final = 8
"""Characters of a value that is searched for, at least: a shorter one is found in any text."""

_FEW: Final = 8
"""Values that are searched for one by one at less than it costs to prepare the text."""

_MARKED: Final = 6
"""Digits and capitals that a value needs to be told from ordinary text by them alone."""

_COMMON: Final = bytes(byte for byte in range(256) if not (48 <= byte <= 57 or 65 <= byte <= 90))
"""All but digits and capitals: what remains of ordinary text without these is little, and searched quickly."""


def from_header(value: str) -> Iterable[str]:
    """Return what is secret in the value of a header, as in ``Bearer abc``, or in any other value."""
    yield value
    scheme, _, rest = value.partition(" ")
    if rest and scheme.lower() in ("bearer", "basic", "token", "apikey", "digest"):
        yield rest
        if scheme.lower() == "basic":
            try:
                told = base64.b64decode(rest, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return
            yield told
            yield told.partition(":")[2]


def from_cookies(value: str) -> Iterable[str]:
    """Return the values in a header of cookies, as in ``id=abc; Path=/``."""
    return [part.partition("=")[2].strip() for part in value.split(";")]


class Finder:
    """Finds some values in texts.

    Args:
        values: at least 8 characters long each.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._plain = _Needles(forms)
        self._json = _Needles({_escaped(form) for form in forms})

    def without(self, text: str) -> str:
        """Return plain text with the values replaced, longest first."""
        for needle in self._plain.found(text):
            text = text.replace(needle, REPLACEMENT)
        return text

    def is_in_json(self, text: str) -> bool:
        """Return whether JSON text seems to hold one of the values; an escape in it may look like the beginning."""
        return bool(self._json.found(text))


class _Needles:
    """Forms to be searched for: those that have enough digits and capitals by these, the rest one by one."""

    __slots__ = ("_marked", "_plain")

    def __init__(self, forms: Iterable[str]) -> None:
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        marked = [(form, _marks(form)) for form in longest_first]
        marked = [(form, marks) for form, marks in marked if len(marks) >= _MARKED]
        self._marked = marked if len(marked) > _FEW else []
        by_marks = {form for form, _ in self._marked}
        self._plain = [form for form in longest_first if form not in by_marks]

    def found(self, text: str) -> Sequence[str]:
        """Return those that are in `text`, longest first."""
        found = [form for form in self._plain if form in text]
        if self._marked:
            marks = _marks(text)
            if len(marks) >= _MARKED:
                found += [form for form, own in self._marked if own in marks and form in text]
                found.sort(key=len, reverse=True)
        return found


def _marks(text: str) -> bytes:
    return text.encode("utf-8", "replace").translate(None, _COMMON)


@lru_cache(maxsize=256)
def _forms(value: str) -> set[str]:
    """Return the forms that a value may have in a text: as it is, in JSON, in JSON in JSON, in a ``repr``, in a URL."""
    forms = {value, repr(value)[1:-1], _escaped(value), json.dumps(value)[1:-1]}
    forms |= {
        quote(value, errors="replace"),
        quote(value, safe="", errors="replace"),
        quote_plus(value, errors="replace"),
    }
    return forms | {_escaped(form) for form in forms}


def _escaped(text: str) -> str:
    """Return a text as it stands in JSON, without its quotes."""
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()[1:-1]
