"""What must not leave: the secrets that this process knows of, and what looks like one.

Whatever leaves goes through here: captured content, exception texts, log lines, and every batch once more before it is
written to the spool. Values are taken note of where they are handed to an LM, a client, a tracking store or the
environment; they are kept in memory alone.

>>> looks_secret("X-Api-Key"), looks_secret("max_tokens")
(True, False)
>>> scrub({"api_key": "abc", "note": "see https://me:pass@host/?token=xyz"})
{'api_key': '[secret]', 'note': 'see https://[secret]@host/?token=[secret]'}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import orjson

from dspy_trace.secrets.forms import SHORTEST, Finder, from_cookies, from_header
from dspy_trace.secrets.names import is_schema, looks_secret, looks_secret_in_environment, looks_secret_in_url
from dspy_trace.secrets.patterns import (
    REPLACEMENT,
    are_in_json,
    outline,
    without_patterns,
    without_patterns_in_content,
    without_patterns_in_urls,
)

__all__ = [
    "REPLACEMENT",
    "SHORTEST",
    "known",
    "learn",
    "looks_secret",
    "scrub",
    "scrub_json",
    "scrub_text",
]

LONGEST: Final = 4_096
"""Characters of a secret that is searched for, at most."""

_MOST: Final = 128
"""Secrets of the environment, and as many others, that are searched for; of more, those that were seen last."""

_VARIABLE: Final = "environment variable "
_DEEPEST: Final = 12
_WIDEST: Final = 1_000

_MOST_PASSING: Final = 16
"""The same of those that a program works with, such as the password that it gives to a tool."""

_lock = Lock()
_known: dict[str, str] = {}
_inherited: dict[str, str] = {}
_passing: dict[str, str] = {}
_environment: dict[Any, Any] = {}
_finder: Finder | None = Finder(())


def known() -> dict[str, str]:
    """Return the values that are known to be secret, each with where it was seen.

    Example: ``{"sk-proj-...": "api_key of LM", "hunter22": "environment variable DB_PASSWORD"}``. For checks of what is
    about to be written; never to be logged or stored.
    """
    with _lock:
        return {**_passing, **_inherited, **_known}


def is_known(value: str) -> bool:
    """Return whether a value is searched for."""
    return value in _known or value in _inherited or value in _passing


def scrub_text(text: str) -> str:
    """Return text without any known secret and without what looks like one, such as an exception's or a log line.

    A cut secret is not recognised: scrub first, cut then.
    """
    hidden = finder().without(text, outlined := outline(text))
    return without_patterns(hidden, outlined if hidden is text else None)


def scrub_json(text: str) -> str:
    """Return JSON text, valid as before, without known secrets and those that URLs and JSON in a text give away.

    Its own names are not judged: :mod:`~dspy_trace.values.jsonable` does that before.
    """
    if not is_suspicious(text):
        return text
    try:
        return orjson.dumps(scrub_content(orjson.loads(text))).decode()
    except orjson.JSONDecodeError:
        return scrub_text(text)


def is_suspicious(text: str) -> bool:
    """Return whether JSON text seems to hold a secret, at a fraction of the cost of taking it out."""
    outlined = outline(text)
    return finder().is_in_json(text, outlined) or are_in_json(text, outlined)


def scrub_content(value: Any) -> Any:
    """Return plain data, as it comes out of JSON, in the same way: without known secrets, in keys as well."""
    kind = type(value)
    if kind is str:
        hidden = finder().without(value, outlined := outline(value))
        return without_patterns_in_content(hidden, outlined if hidden is value else None)
    if kind is dict:
        return {scrub_content(name): scrub_content(item) for name, item in value.items()}
    return [scrub_content(item) for item in value] if kind is list else value


def scrub_end(text: str, end: int) -> str:
    """Return text that is about to be cut at `end`, so that no part of a secret remains that is cut in two there."""
    start = max(end - LONGEST, 0)
    piece = text[start : end + LONGEST]
    hidden = without_patterns_in_urls(finder().without(piece, outline(piece)))
    return text if hidden == piece else text[:start] + hidden


def scrub(value: Any) -> Any:
    """Return plain data (dicts, lists, tuples, texts) without secrets, by name, by value and by looks; a copy.

    What is of another type is returned as it is.
    """
    return _scrubbed(value, 0)


def _scrubbed(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return scrub_text(value)
    if kind not in (dict, list, tuple):
        return value
    if depth > 100:
        return REPLACEMENT
    if kind is dict:
        return {
            scrub_text(name) if type(name) is str else name: hide(name, item)
            if type(name) is str and looks_secret(name)
            else _scrubbed(item, depth + 1)
            for name, item in value.items()
        }
    return kind(_scrubbed(item, depth + 1) for item in value)


_SCHEMA_VALUES: Final = frozenset(("default", "const", "enum", "example", "examples"))


def conceals(name: str, entries: Any) -> bool:
    """Return whether the value called `name` among `entries` is taken for a secret.

    A piece of a completion, which providers call a token as well, stands beside its probability.
    """
    if not looks_secret(name):
        return False
    return name != "token" or not any(type(key) is str and key == "logprob" for key in getattr(entries, "mapping", ()))


def hide(name: str, value: Any) -> Any:
    """Return what is told of `value`, which a secret-looking name belongs to.

    That there is none, and what a JSON schema says of such a value, is no secret.
    """
    kind = type(value)
    if value is None or kind is bool or (kind in (str, dict, list, tuple) and not value):
        return value
    if kind is dict and is_schema(value):
        return {key: REPLACEMENT if key in _SCHEMA_VALUES else item for key, item in value.items()}
    _learn_passing(name, value)
    return REPLACEMENT


def hide_rest(entries: Iterable[tuple[Any, Any]]) -> None:
    """Take note of the secrets among entries that are too many, or too long, to be told."""
    for name, value in islice(entries, 256):
        if type(name) is str and conceals(name, entries):
            hide(name, value)


def _learn_passing(name: str, value: Any) -> None:
    """Take note of what a program works with, if it is no word: a prompt may hold it as well."""
    found = [value]
    for item in found:
        kind = type(item)
        if kind is str:
            if 12 <= len(item) <= LONGEST and not item.isalpha() and not any(map(str.isspace, item)):
                _add(_passing, _MOST_PASSING, item, f"{name} of a call")
        elif kind in (dict, list, tuple) and len(found) < _MOST_PASSING:
            found += list(item.values() if kind is dict else item)[:_MOST_PASSING]


def _add(pool: dict[str, str], most: int, secret: str, where: str) -> None:
    global _finder  # noqa: PLW0603  # made anew from what is known, when it is needed next
    with _lock:
        if not is_known(secret):
            while len(pool) >= most:
                del pool[next(iter(pool))]
            pool[secret] = where
            _finder = None


def learn(value: Any, where: str) -> None:
    """Take note of a secret: it is searched for in everything from now on, if it is a text of 8 to 4,096 characters.

    Args:
        value: a secret, an ``Authorization`` header or a provider's credentials as JSON text; anything else is ignored.
        where: where it was seen, for :func:`known`. Example: ``api_key of LM``.
    """
    if type(value) is not str or len(value) < SHORTEST:
        return
    if value[:1] == "{" and len(value) <= 65_536:
        with suppress(ValueError, RecursionError):  # no JSON, but a secret that begins like it
            learn_from(json.loads(value), where)
    for secret in from_header(value):
        if SHORTEST <= len(secret) <= LONGEST and secret != REPLACEMENT:
            _add(_inherited if where.startswith(_VARIABLE) else _known, _MOST, secret, where)


def learn_from(values: Any, where: str) -> None:
    """Take note of the secrets in plain data, at any depth: by their names, and in URLs."""
    found: list[tuple[Any, str, bool, int]] = [(values, "", False, 0)]
    # It grows while it is walked over.
    for value, name, secret, depth in found:
        kind = type(value)
        if kind is str:
            if secret:
                for part in (value, *from_cookies(value)) if "ookie" in name else (value,):
                    learn(part, f"{name} of {where}")
            elif "://" in value:
                learn_url(value, f"{name} of {where}")
        elif depth < _DEEPEST and len(found) < _WIDEST:
            if issubclass(kind, dict):
                entries = list(dict.items(value))[:_WIDEST]
                found += [(item, key, looks_secret(key), depth + 1) for key, item in entries if type(key) is str]
            elif kind in (list, tuple):
                pair = kind is tuple and len(value) == 2 and type(value[0]) is str and not secret
                if pair and looks_secret(value[0]):
                    found.append((value[1], value[0], True, depth + 1))  # a header among others
                else:
                    found += [(item, name, secret, depth + 1) for item in value[:_WIDEST]]


def learn_url(url: Any, where: str) -> None:
    """Take note of the credentials in a URL: of its user-info, and of its parameters."""
    if type(url) is not str or len(url) > 65_536 or "://" not in url:
        return
    rest = url.partition("://")[2]
    authority = rest.partition("?")[0].rpartition("@")[0]
    name, _, password = authority.partition(":")
    for secret in (password, unquote(password)) if password else (name,) if len(name) >= 16 else ():
        learn(secret, where)
    query = rest.partition("?")[2].partition("#")[0]
    for key, value in parse_qsl(query) if query else ():
        if looks_secret_in_url(key):
            learn(value, where)


def learn_environment(environ: Mapping[str, str] = os.environ) -> None:
    """Take note of the secrets among the environment variables: by their names, and in URLs. Quick if none is new."""
    global _environment  # noqa: PLW0603  # as it was last
    # What stands behind ``os.environ`` is private; where it is gone, the slow way does.
    raw = getattr(environ, "_data", environ)
    if raw == _environment:
        return
    _environment = dict(raw)
    for name, value in list(environ.items()):
        if looks_secret_in_environment(name, value):
            learn(value, f"{_VARIABLE}{name}")
        elif "://" in value:
            learn_url(value, f"{_VARIABLE}{name}")


def finder() -> Finder:
    """Return what finds the secrets that are known now; another one once more are."""
    global _finder  # noqa: PLW0603  # as above
    found = _finder
    if found is None:
        with _lock:
            found = _finder = Finder((*_known, *_inherited, *_passing))
    return found


def _forked() -> None:
    global _lock  # noqa: PLW0603  # another thread may have held it in the parent
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
