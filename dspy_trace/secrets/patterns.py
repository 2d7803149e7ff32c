"""Secrets that give themselves away by where they stand in a text or by their form, known to this process or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from dspy_trace.secrets.names import looks_secret, looks_secret_in_url

REPLACEMENT: Final = "[secret]"
"""What stands in place of a secret; no longer than the shortest one that is searched for."""

_USER_INFO = re.compile(r"://[^\s/?#\"'<>\\]{1,1024}(?=@)")
_QUERY = re.compile(r"((?:[?&;]|\\u0026)([\w.-]{1,64})=)(?!\[secret\])[^\s&;#\"'<>\\,)]+")
_KEY_BODY = re.compile(r"(PRIVATE KEY-----)(?:[^\"'\\-]|\\[^\"']|-(?!----))+")
_BEARER = re.compile(r"((?:[Bb]earer|BEARER|Basic) )(?=[^\s\"'\\]{0,200}\d)[A-Za-z0-9._~+/=-]{8,}")
_LONG = re.compile(r"(?<![\w-])[\w-]{16,}")
_DASHED = ("sk-", "pk-", "rk-", "xai-", "glpat-")
_UNDERSCORED = ("gsk_", "hf_", "ghp_", "gho_", "github_pat_")
_PREFIXES = (*_DASHED, *_UNDERSCORED, "dapi", "AKIA", "AIza")
"""How keys of well-known providers begin."""

_COMMON: Final = bytes(byte for byte in range(256) if 97 <= byte <= 122 or byte == 32 or byte >= 128)
"""Lower-case letters, spaces and whatever is not ASCII."""

_NAME_BACKWARDS = re.compile(r" ?([\w.-]{1,64})")
_ASSIGNED = re.compile(r" ?[bru]?\\{0,15}[\"']?(?!\[secret\])([^\s\"'\\,;&)\]}]+)")
_PAIRED = re.compile(r" {0,4}(?:[bru]?(\\{0,15}[\"'])|(-?\d[\d.]*))")


def outline(text: str) -> str:
    """Return a text without lower-case letters, spaces and whatever is not ASCII.

    What stands side by side in the text does so here. It is a tenth of ordinary text, and searched ten times as fast.
    """
    return text.encode("utf-8", "replace").translate(None, _COMMON).decode("ascii")


def without_patterns(text: str, outlined: str | None = None) -> str:
    """Return plain text, such as an exception's, with everything replaced that looks like a secret.

    Args:
        text: the text.
        outlined: its :func:`outline`, where that is known.
    """
    outlined = outline(text) if outlined is None else outlined
    text = without_patterns_in_content(text, outlined)
    if "=" in text:
        text = _replaced(text, _assignments(text))
    if "earer " in text or ("B" in outlined and ("BEARER " in text or "Basic " in text)):
        text = _BEARER.sub(rf"\1{REPLACEMENT}", text)
    if not _may_hold_key(text, outlined):
        return text
    return _LONG.sub(lambda found: REPLACEMENT if found[0].startswith(_PREFIXES) else found[0], text)


def _may_hold_key(text: str, outlined: str) -> bool:
    """Return whether one of the prefixes is in `text`: sought by their last characters, where these are few."""
    if "AKIA" in outlined or ("AI" in outlined and "AIza" in text) or "dapi" in text:
        return True
    if (text.count("-") + text.count("_")) * 32 > len(text) + 256:
        return any(prefix in text for prefix in _PREFIXES)
    return any(text.endswith(_DASHED, 0, at + 1) for at in _positions(text, "-")) or any(
        text.endswith(_UNDERSCORED, 0, at + 1) for at in _positions(text, "_")
    )


def without_patterns_in_content(text: str, outlined: str | None = None) -> str:
    """Return a piece of content without what is a secret by where it stands: in a URL, or in JSON by its name.

    Args:
        text: the piece.
        outlined: its :func:`outline`, where that is known.
    """
    outlined = outline(text) if outlined is None else outlined
    text = without_patterns_in_urls(text)
    marks = [mark for mark in ('":', "':") if mark in outlined]
    return _replaced(text, _pairs(text, marks)) if marks else text


def are_in_json(text: str, outlined: str) -> bool:
    """Return whether :func:`without_patterns_in_content` would change one of the texts in JSON text, at less cost."""
    marks = [mark for mark in ('\\":', "':") if mark in outlined]
    return without_patterns_in_urls(text) != text or (bool(marks) and next(_pairs(text, marks), None) is not None)


def without_patterns_in_urls(text: str) -> str:
    """Return text without user-info and secret parameters of URLs, and without private keys in PEM."""
    # A character that is not there is found out at a fraction of the cost of a pattern.
    if "@" in text and "://" in text:
        text = _USER_INFO.sub(f"://{REPLACEMENT}", text)
    if "=" in text and ("?" in text or "&" in text or ";" in text):
        text = _QUERY.sub(lambda found: found[1] + REPLACEMENT if looks_secret_in_url(found[2]) else found[0], text)
    return _KEY_BODY.sub(rf"\1{REPLACEMENT}", text) if "PRIVATE KEY-----" in text else text


def _replaced(text: str, places: Iterable[tuple[int, int, str]]) -> str:
    """Return `text` with what is to stand from one position to another; of places that overlap, the first."""
    parts: list[str] = []
    done = 0
    for start, end, told in sorted(places):
        if start >= done:
            parts += text[done:start], told
            done = end
    return "".join((*parts, text[done:])) if parts else text


def _positions(text: str, mark: str, start: int = 0) -> Iterator[int]:
    at = text.find(mark, start)
    while at >= 0:
        yield at
        at = text.find(mark, at + 1)


def _assignments(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield where values stand behind a secret's name and an equals sign."""
    for at in _positions(text, "="):
        name = _NAME_BACKWARDS.match(text[max(at - 66, 0) : at][::-1])
        if name is not None and looks_secret(name[1][::-1]):
            value = _ASSIGNED.match(text, at + 1)
            if value is not None:
                yield value.start(1), value.end(), REPLACEMENT


def _pairs(text: str, marks: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Yield where values stand, in quotes or as numbers, behind a secret's name in quotes and a colon."""
    for mark in marks:
        quote = mark[-2]
        for at in _positions(text, mark):
            end = at
            while end and text[end - 1] == "\\":
                end -= 1
            name = text[text.rfind(quote, max(end - 66, 0), end) + 1 : end]
            value = _PAIRED.match(text, at + len(mark)) if looks_secret(name) else None
            if value is None:
                continue
            if value[1] is not None:
                yield value.end(), _end(text, value.end(), value[1]), REPLACEMENT
            else:
                shown = text[end : at + len(mark) - 1]
                yield value.start(2), value.end(), f"{shown}{REPLACEMENT}{shown}"


def _end(text: str, start: int, quote: str) -> int:
    """Return where the string ends that begins at `start` behind `quote`: escapes of its own do not end it."""
    mark, depth = quote[-1], len(quote) - 1
    for at in _positions(text, mark, start):
        run = at
        while run > start and text[run - 1] == "\\":
            run -= 1
        if (at - run) % 2 == 0:
            return at
        if at - run <= depth:
            return run
    return len(text)
