"""The secrets of a program: found before it is saved, replaced by names of environment variables, given back by them.

A saved model names ``OPENAI_API_KEY`` where the program held that variable's value, whole or as a part of a longer text
such as ``Bearer ...``. A secret that is in no variable gets a name, which is said when the program is saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_trace.secrets.names import looks_secret_in_environment

SHORTEST = 8
"""Characters of the shortest value that is looked for in other texts: shorter ones are part of ordinary words."""

_LONGEST_WORD = 15

_SHAPES = re.compile(
    r"""\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|ghs|github_pat|glpat|xox[abprs]|npm|pypi|dapi|lsv2|whsec)[-_][\w\-]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b | \bAIza[\w\-]{30,} | \bya29\.[\w\-]{20,}
    | \beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]{8,}
    | -----BEGIN[ A-Z]*PRIVATE\ KEY-----[\s\S]+?-----END[ A-Z]*PRIVATE\ KEY-----
    | (?<=[Bb]earer\ )[\w\-.=+/]{12,}
    | (?<=://)[\w\-.~%+]*:[\w\-.~%!*+,;=]+(?=@)""",
    re.VERBOSE,
)
"""Texts that are secrets by their looks: keys of well-known makers, tokens, what stands before the host of a URL."""

Part = str | dict[str, str]


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret value.

    Attributes:
        where: path of the attribute that held it first.
        variable: environment variable that gives it back.
        given: whether that variable held it when the program was saved.
    """

    where: str
    variable: str
    given: bool


class Vault:
    """Every secret value that is known of.

    Args:
        environ: the environment; its variables with names of secrets are known from the start.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.secrets: dict[str, Secret] = {}
        self.used: dict[str, Secret] = {}
        """Those that have been replaced."""
        self._variables: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for name in sorted(environ):
            value = environ[name]
            if looks_secret_in_environment(name, value) and len(value) >= SHORTEST and value[0] != "/":
                self.secrets.setdefault(value, Secret(f"environment variable {name}", name, True))

    def add(self, value: str, where: str, variable: str | None = None) -> None:
        """Know of one more secret.

        Args:
            value: the secret.
            where: path of the attribute that holds it.
            variable: name of the variable to ask for, if it is in none yet and the name is free.
        """
        if not value.strip():
            return
        if value in self.secrets:
            self._variables.add(self.secrets[value].variable)
            return
        name = next((key for key in sorted(self._environ) if self._environ[key] == value), None)
        given = name is not None
        if name is None and variable is not None and variable not in self._variables:
            name = variable
        self._keep(value, Secret(where, name or self._invented(where), given))

    def _keep(self, value: str, secret: Secret) -> None:
        self.secrets.setdefault(value, secret)
        self._variables.add(secret.variable)
        self._pattern = None

    def _invented(self, where: str) -> str:
        name = re.sub(r"\W+", "_", where).strip("_").upper()[:120] or "SECRET"
        number = 1
        while (made := name if number == 1 else f"{name}_{number}") in self._variables:
            number += 1
        return made

    def look(self, text: str, where: str) -> None:
        """Know of what looks like a secret in a text."""
        for value in shaped(text):
            self.add(value, where)

    def parts(self, text: str, where: str, *, named: bool = False) -> list[Part] | None:
        """Return a text as what is to be saved of it, ``None`` if it holds no secret.

        Args:
            text: the text.
            where: path of the attribute that holds it.
            named: whether its name says that all of it is a secret.
        """
        if named:
            self.add(text, where)
        else:
            self.look(text, where)
        if named and text in self.secrets:
            return [self._use(text)]
        if self._pattern is None:
            longest = sorted(filter(is_searched, self.secrets), key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        if self._pattern.search(text) is None:
            return None
        made: list[Part] = []
        end = 0
        for found in self._pattern.finditer(text):
            made += [text[end : found.start()], self._use(found.group())]
            end = found.end()
        return [part for part in (*made, text[end:]) if part]

    def _use(self, value: str) -> dict[str, str]:
        self.used[value] = self.secrets[value]
        return {"env": self.secrets[value].variable}


def is_searched(value: str) -> bool:
    """Return whether a secret is looked for in other texts: a word such as ``postgres`` would be found everywhere."""
    return len(value) >= SHORTEST and not (value.isalpha() and len(value) <= _LONGEST_WORD)


def shaped(text: str) -> Iterator[str]:
    """Yield what looks like a secret in a text, whatever it is called: of a user and password, the password."""
    for found in _SHAPES.finditer(text):
        value = found.group()
        _, colon, password = value.partition(":")
        yield password if colon and not value.startswith("-----") and text[: found.start()].endswith("://") else value


class Givers:
    """Gives secrets back when a program is loaded, and keeps account of those that are missing.

    Args:
        environ: the environment to take them from.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.missing: dict[str, None] = {}

    def text(self, parts: list[Any]) -> str | None:
        """Return a text with its secrets in it; ``None`` where it is nothing but one that is missing."""
        made = []
        for part in parts:
            name = None if isinstance(part, str) else part["env"]
            value = part if name is None else self._environ.get(name)
            if value is None:
                self.missing[str(name)] = None
            made.append(value)
        return None if made == [None] else "".join(value or "" for value in made)
