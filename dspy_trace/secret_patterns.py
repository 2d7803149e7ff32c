"""Secrets that give themselves away by where they stand in a text or by their form, known to this process or not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from dspy_trace.secret_names import looks_secret, looks_secret_in_url

REPLACEMENT: Final = "[secret]"
"""What stands in place of a secret; no longer than the shortest one that is searched for."""

_USER_INFO = re.compile(r"://[^\s/?#\"'<>\\]{1,1024}(?=@)")
_QUERY = re.compile(r"((?:[?&;]|\\u0026)([\w.-]{1,64})=)(?!\[secret\])[^\s&;#\"'<>\\,)]+")
_KEY_BODY = re.compile(r"(PRIVATE KEY-----)(?:[^\"'\\-]|\\[^\"']|-(?!----))+")
_BEARER = re.compile(r"((?:Bearer|bearer|BEARER|Basic) )(?=[^\s\"'\\]{0,200}\d)[A-Za-z0-9._~+/=-]{8,}")
_TOKEN = re.compile(r"\b(?:sk-|pk-|rk-|gsk_|xai-|hf_|ghp_|gho_|github_pat_|glpat-|dapi|AKIA|AIza)[-_A-Za-z0-9]{12,}")
_ASSIGNED = re.compile(r"(\b([\w.-]{1,64}) ?= ?[bru]?\\{0,15}[\"']?)(?!\[secret\])[^\s\"'\\,;&)\]}]+")
_NAME = re.compile(r"(\\{0,15}[\"'])([\w.-]{1,64})\1 {0,4}: {0,4}(?:[bru]?(\\{0,15}[\"'])|(-?\d[\d.]*))")
_QUOTE = re.compile(r"[\"']")


def without_patterns(text: str) -> str:
    """Return plain text, such as an exception's, with everything replaced that looks like a secret."""
    text = _anywhere(text)
    if "'" in text or '"' in text:
        text = _pairs(text, json=False)
    if "=" in text:
        text = _ASSIGNED.sub(_where(looks_secret), text)
    return _TOKEN.sub(REPLACEMENT, _BEARER.sub(rf"\1{REPLACEMENT}", text))


def without_patterns_in_json(text: str) -> str:
    """Return JSON text, valid as before, with what looks like a secret replaced in its texts and beside its names.

    In JSON that stands in a text, escaped as often as it may be, and in the ``repr`` of a dict, too.
    """
    return _pairs(_anywhere(text), json=True)


def _anywhere(text: str) -> str:
    # A character that is not there is found out at a fraction of the cost of a pattern.
    if "@" in text and "://" in text:
        text = _USER_INFO.sub(f"://{REPLACEMENT}", text)
    if "=" in text and ("?" in text or "&" in text or ";" in text):
        text = _QUERY.sub(_where(looks_secret_in_url), text)
    return _KEY_BODY.sub(rf"\1{REPLACEMENT}", text) if "PRIVATE KEY-----" in text else text


def _where(told: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    return lambda found: found[1] + REPLACEMENT if told(found[2]) else found[0]


def _pairs(text: str, json: bool) -> str:
    """Replace what stands in quotes, or is a number, behind a secret's name in quotes and a colon."""
    parts: list[str] = []
    done = 0
    for found in _NAME.finditer(text):
        if found.start() < done or not looks_secret(found[2]):
            continue
        quote = found[3]
        if quote is None:
            parts += text[done : found.start(4)], found[1], REPLACEMENT, found[1]
            done = found.end()
        else:
            parts += text[done : found.end()], REPLACEMENT
            done = _end(text, found.end(), quote, json)
    return "".join((*parts, text[done:])) if parts else text


def _end(text: str, start: int, quote: str, json: bool) -> int:
    """Return where the string ends that begins at `start` behind `quote`: escapes of its own do not end it.

    In JSON text it ends with the text that it stands in at the latest, if that has been cut.
    """
    mark, depth = quote[-1], len(quote) - 1
    for found in _QUOTE.finditer(text, start):
        at = run = found.start()
        if found[0] != mark and not (json and found[0] == '"'):
            continue
        while run > start and text[run - 1] == "\\":
            run -= 1
        if (at - run) % 2 == 0:
            return at
        if found[0] == mark and at - run <= depth:
            return run
    return len(text)
