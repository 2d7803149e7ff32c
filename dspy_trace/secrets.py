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
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from dspy_trace.secret_forms import SHORTEST, Finder, from_header
from dspy_trace.secret_names import looks_secret, looks_secret_in_environment, looks_secret_in_url
from dspy_trace.secret_patterns import REPLACEMENT, without_patterns, without_patterns_in_json

__all__ = [
    "LONGEST",
    "REPLACEMENT",
    "hide",
    "known",
    "learn",
    "learn_environment",
    "learn_from",
    "learn_url",
    "looks_secret",
    "scrub",
    "scrub_json",
    "scrub_text",
]

LONGEST: Final = 4_096
"""Characters of a secret that is searched for, at most."""

_MOST: Final = 128
"""Secrets that are searched for; of more, those that were seen last."""

_DEEPEST: Final = 12
_WIDEST: Final = 1_000

_lock = Lock()
_known: dict[str, str] = {}
_finder: Finder | None = Finder(())


def known() -> dict[str, str]:
    """Return the values that are known to be secret, each with where it was seen.

    Example: ``{"sk-proj-...": "api_key of LM", "hunter22": "environment variable DB_PASSWORD"}``. For checks of what is
    about to be written; never to be logged or stored.
    """
    with _lock:
        return dict(_known)


def scrub_text(text: str) -> str:
    """Return text without any known secret and without what looks like one, such as an exception's or a log line.

    A cut secret is not recognised: scrub first, cut then.
    """
    return without_patterns(_current().without(text))


def scrub_json(text: str) -> str:
    """Return JSON text, valid as before, without known secrets and without what looks like one."""
    return without_patterns_in_json(_current().without_in_json(text))


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


_SCHEMA: Final = frozenset(("type", "anyOf", "allOf", "$ref"))
_SCHEMA_VALUES: Final = frozenset(("default", "const", "enum", "example", "examples"))


def hide(name: str, value: Any) -> Any:
    """Return what is told of `value`, which a secret-looking name belongs to.

    That there is none, and what a JSON schema says of such a value, is no secret.
    """
    kind = type(value)
    if value is None or kind is bool or (kind in (str, dict, list, tuple) and not value):
        return value
    if kind is dict and type(value.get("type", "")) is str and any(key in _SCHEMA for key in value if type(key) is str):
        return {key: REPLACEMENT if key in _SCHEMA_VALUES else item for key, item in value.items()}
    return REPLACEMENT


def learn(value: Any, where: str) -> None:
    """Take note of a secret: it is searched for in everything from now on, if it is a text of 8 to 4,096 characters.

    Args:
        value: a secret, an ``Authorization`` header or a provider's credentials as JSON text; anything else is ignored.
        where: where it was seen, for :func:`known`. Example: ``api_key of LM``.
    """
    global _finder  # noqa: PLW0603  # made anew from what is known, when it is needed next
    if type(value) is not str or len(value) < SHORTEST:
        return
    if value[:1] == "{" and len(value) <= 65_536:
        with suppress(ValueError, RecursionError):  # no JSON, but a secret that begins like it
            learn_from(json.loads(value), where)
    for secret in from_header(value):
        if SHORTEST <= len(secret) <= LONGEST and secret != REPLACEMENT:
            with _lock:
                if secret not in _known:
                    while len(_known) >= _MOST:
                        del _known[next(iter(_known))]
                    _known[secret] = where
                    _finder = None


def learn_from(values: Any, where: str) -> None:
    """Take note of the secrets in plain data, at any depth: by their names, and in URLs."""
    found: list[tuple[Any, str, bool, int]] = [(values, "", False, 0)]
    # It grows while it is walked over.
    for value, name, secret, depth in found:
        kind = type(value)
        if kind is str:
            if secret:
                learn(value, f"{name} of {where}")
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
    """Take note of the secrets among the environment variables: by their names, and in URLs."""
    for name, value in list(environ.items()):
        if looks_secret_in_environment(name, value):
            learn(value, f"environment variable {name}")
        elif "://" in value:
            learn_url(value, f"environment variable {name}")


def _current() -> Finder:
    global _finder  # noqa: PLW0603  # as above
    finder = _finder
    if finder is None:
        with _lock:
            finder = _finder = Finder(tuple(_known))
    return finder


def hide_in_record(record: logging.LogRecord) -> bool:
    """Take secrets out of a line of our own log, its traceback included; a filter of ``logging``."""
    message = record.getMessage()
    hidden = scrub_text(message)
    if hidden != message:
        record.msg, record.args = hidden, ()
    if record.exc_info:
        text = record.exc_text or logging.Formatter().formatException(record.exc_info)
        hidden = scrub_text(text)
        if hidden != text:
            # Handlers make text of the exception themselves, unless there is one.
            record.exc_text, record.exc_info = hidden, None
    return True
