"""Secrets, each drawn anew for its place: they look like nothing in particular, so that only knowledge hides them."""

from __future__ import annotations

import json
import random
import string

import orjson
import pytest

from dspy_trace import secrets
from dspy_trace.secrets import places as secret_places

PLANTED: dict[str, str] = {}
"""Every secret, by where it was planted."""

PASSING: dict[str, str] = {}
"""The same of those that the program works with, as it does with the password that it gives to a tool."""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test of a module that imports this with no secret known."""
    for name in ("_known", "_inherited", "_passing", "_environment"):
        monkeypatch.setattr(secrets, name, {})
    monkeypatch.setattr(secrets, "_finder", None)
    monkeypatch.setattr(secret_places, "_seen", {})
    monkeypatch.setattr(secret_places, "_looked", [0.0])


def drawn(place: str) -> str:
    """Return what a secret of a place looks like."""
    source = random.Random(place)
    return "".join(source.choices(string.ascii_letters + string.digits, k=source.randint(14, 40)))


def secret(place: str) -> str:
    """Return the secret of a place."""
    return PLANTED.setdefault(place, drawn(place))


def odd(place: str) -> str:
    """Return one that has to be escaped wherever it stands in quotes."""
    return PLANTED.setdefault(place, f'a"{place}\\and\n日本 {drawn(place)}')


def passing(place: str) -> str:
    """Return a secret that stands in the program's own data, by a name that tells of it."""
    return PASSING.setdefault(place, drawn(place))


ENVIRONMENT = {
    "SCRIPTED_API_KEY": secret("environment, api key"),
    "APP_DB_PASSWORD": secret("environment, password"),
    "APP_DEPLOY_KEY": secret("environment, key"),
    "APP_DATABASE_URL": f"postgresql://me:{secret('environment, url')}@db.example/app",
    "MLFLOW_TRACKING_TOKEN": secret("environment, tracking token"),
}
"""What the program's environment has to hold before it begins."""

ENVIRONMENT_PLACES = tuple(PLANTED)


def all_known() -> str:
    """Return a text that tells all that has been planted so far, as an error message or a tool may, in some forms."""
    told = {f"place {number}": value for number, value in enumerate(PLANTED.values())}
    return f"{list(PLANTED.values())}; {json.dumps(told)}; {json.dumps({'said': json.dumps(told)})}"


def forms(value: str) -> set[str]:
    """Return how a secret may stand in a text."""
    once = json.dumps(value)[1:-1], orjson.dumps(value).decode()[1:-1]
    return {value, repr(value)[1:-1], *once, *(orjson.dumps(form).decode()[1:-1] for form in once)}
