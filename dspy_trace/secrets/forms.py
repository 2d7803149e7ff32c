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

from dspy_trace.secrets.patterns import REPLACEMENT, outline

SHORTEST: Final = 8
"""Characters of a value that is searched for, at least: a shorter one is found in any text."""

_TELLING: Final = 3
"""Characters of a form's outline that tell it from ordinary text well enough to look for these first."""


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

    def without(self, text: str, outlined: str) -> str:
        """Return plain text, whose outline is given, with the values replaced, longest first."""
        for needle in self._plain.found(text, outlined):
            text = text.replace(needle, REPLACEMENT)
        return text

    def is_in_json(self, text: str, outlined: str) -> bool:
        """Return whether JSON text seems to hold one of the values; an escape in it may look like the beginning."""
        return bool(self._json.found(text, outlined))


class _Needles:
    """Forms to be searched for: by their outlines first, of which some have the same; those without one as they are."""

    __slots__ = ("_by_outline", "_outlines", "_plain")

    def __init__(self, forms: Iterable[str]) -> None:
        self._by_outline: dict[str, list[str]] = {}
        self._plain: list[str] = []
        for form in forms:
            outlined = outline(form)
            if len(outlined) >= _TELLING:
                self._by_outline.setdefault(outlined, []).append(form)
            else:
                self._plain.append(form)
        self._outlines = list(self._by_outline)

    def found(self, text: str, outlined: str) -> Sequence[str]:
        """Return those that are in `text`, longest first."""
        found = [form for form in self._plain if form in text]
        # As short as it is: this is what nearly every call of it costs.
        told = [one for one in self._outlines if one in outlined]
        if told:
            found += [form for one in told for form in self._by_outline[one] if form in text]
        return sorted(found, key=lambda form: (-len(form), form)) if found else found


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
