"""Which names stand for secrets."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

_MOST_NAMES: Final = 4_096
_LONGEST: Final = 256


def _set(told: str) -> frozenset[str]:
    return frozenset(told.split())


_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")

_TELLING: Final = _set(
    "password passwd passphrase passcode pwd secret secrets credential credentials apikey accesskey secretkey "
    "privatekey authtoken accesstoken clientsecret connectionstring authorization cookie cookies jwt bearer"
)
"""Words that make a name a secret's, wherever in it they stand."""

_OF_KEYS: Final = _set(
    "api access secret private auth subscription account shared signing encryption master license service client "
    "functions admin storage session"
)
"""Words that make a key a secret one; a cache's or a table's is none."""

_OF_TEXT: Final = _set(
    "max min next prev previous page continuation sync first last eos bos pad unk mask sep cls stop start end begin "
    "special per to each total prompt completion input output cached reasoning new current"
)
"""Words that make a token a piece of text, or of a long list."""

_OF_TOKENS: Final = _set("api access auth refresh session secret bearer")

_ABOUT: Final = _set(
    "count counts length len limit size type types name names provider file path dir folder format policy usage expiry "
    "expires expiration age field fields hint version enabled required"
)
"""Last words of names that only say something about a secret."""

_HARMLESS_AWS: Final = _set("ca region profile endpoint execution lambda sdk cli pager page config max retry")

judged: dict[str, bool] = {}
"""What :func:`looks_secret` said of names, for those who cannot afford to ask."""


def looks_secret(name: str) -> bool:
    """Return whether a value called `name` is taken for a secret, in whatever style the name is written.

    Example: ``api_key``, ``X-Api-Key``, ``clientSecret``, ``aws_session_token``; not ``max_tokens`` or ``cache_key``.
    """
    known = judged.get(name)
    if known is None:
        if len(name) > _LONGEST:
            return False
        if len(judged) >= _MOST_NAMES:
            judged.clear()
        known = judged[name] = _tells(words(name))
    return known


def words(name: str) -> list[str]:
    """Return the words of a name in snake, kebab or camel case, in lower case."""
    return [word.lower() for word in _WORD.findall(name)]


def _tells(parts: list[str]) -> bool:
    while parts and parts[-1].isdecimal():
        parts = parts[:-1]
    if not parts or parts[-1] in _ABOUT:
        return False
    if not _TELLING.isdisjoint(parts) or parts[-1] == "auth":
        return True
    if any(word in ("key", "keys") and before in _OF_KEYS for before, word in pairwise(parts)):
        return True
    before = parts[-2] if len(parts) > 1 else ""
    if parts[-1] == "token":
        return before not in _OF_TEXT
    if parts[-1] == "tokens":
        return before in _OF_TOKENS
    if parts[0] == "aws":
        return len(parts) > 1 and _HARMLESS_AWS.isdisjoint(parts)
    return parts in (["connection", "string"], ["conn", "str"])


_IN_URLS: Final = frozenset(("key", "sig", "code", "sas", "pass"))


def looks_secret_in_url(name: str) -> bool:
    """Return whether a parameter of a URL called `name` is taken for a secret: ``key`` and ``sig`` are as well."""
    return name.lower() in _IN_URLS or looks_secret(name)


def looks_secret_in_environment(name: str, value: str) -> bool:
    """Return whether an environment variable is taken for a secret: one called ``..._KEY`` or ``..._PASS`` is, too.

    The path of a file that holds one, as ``GOOGLE_APPLICATION_CREDENTIALS`` is, is none, nor is the working folder.
    """
    if name == "PWD":
        return False
    parts = words(name)
    if "credentials" in parts and value.startswith(("/", "~", ".")):
        return False
    return looks_secret(name) or (len(parts) > 1 and parts[-1] in ("key", "pass", "pat"))


_SCHEMA_TYPES: Final = _set("string number integer boolean array object")


def is_schema(value: dict[Any, Any]) -> bool:
    """Return whether `value` is a JSON schema: what is said there of a secret is none."""
    told = {key: item for key, item in value.items() if type(key) is str}
    kind = told.get("type")
    return (type(kind) is str and kind in _SCHEMA_TYPES) or type(told.get("anyOf")) is list or "$ref" in told
