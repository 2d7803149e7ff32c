"""What is taken note of as a secret, what hostile values and huge texts cost, and our own log."""

from __future__ import annotations

import json
import logging
from time import thread_time
from typing import Any

import dspy
import pytest

from dspy_trace import guard, secrets
from dspy_trace.secrets import REPLACEMENT, learn, learn_from, learn_url, scrub_json, scrub_text
from dspy_trace.secrets import places as secret_places
from tests.planted import nothing_known  # noqa: F401  # a fixture

KEY = "ck-7Hq2Zt9LpX4vB8nM1sD6"


def test_what_is_learned_from_parameters() -> None:
    """Secrets by name at any depth, headers in pairs, credentials that are JSON text, URLs, header schemes."""
    learn_from(
        {
            "api_key": "key-in-the-open",
            "extra_headers": {"Authorization": "Bearer header-token-1", "X-Tenant": "tenant-name"},
            "headers": [("X-Api-Key", "pair-of-a-header")],
            "extra_body": {"a": [{"b": {"client_secret": "deep-in-the-body"}}], "max_tokens": "not-a-secret"},
            "vertex_credentials": json.dumps({"private_key": "made-of-json-text", "project_id": "my-project-id"}),
            "api_base": "https://user:url%20password@host/v1?api-key=query-parameter",
            "basic": {"authorization": "Basic dXNlcjpiYXNpYy1wYXNzd29yZA=="},
        },
        "LM",
    )
    known = set(secrets.known())
    assert {
        "key-in-the-open",
        "Bearer header-token-1",
        "header-token-1",
        "pair-of-a-header",
        "deep-in-the-body",
    } <= known
    assert {"made-of-json-text", "url password", "url%20password", "query-parameter", "basic-password"} <= known
    assert not {"tenant-name", "not-a-secret", "my-project-id", "user"} & known
    assert secrets.known()["key-in-the-open"] == "api_key of LM"


def test_what_is_learned_from_the_environment() -> None:
    """By the names of variables, and in URLs; a path is no secret."""
    secrets.learn_environment(
        {
            "OPENAI_API_KEY": "key-of-environment",
            "DEPLOY_KEY": "deploy-key-of-it",
            "DB_PASS": "pass-of-environment",
            "DATABASE_URL": "postgresql://me:password-of-url@db/x",
            "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/credentials.json",
            "AWS_REGION": "eu-central-1",
            "HOME": "/home/me-myself",
            "PWD": "/home/me-myself/project",
        }
    )
    assert set(secrets.known()) == {"key-of-environment", "deploy-key-of-it", "pass-of-environment", "password-of-url"}


def test_secrets_of_the_environment_stay_known() -> None:
    """However many keys pass by, those of the environment are still searched for; an LM's is seen again when used."""
    secrets.learn_environment({"OPENAI_API_KEY": "key-of-environment"})
    lm = dspy.LM("openai/gpt-4o-mini", api_key="key-of-an-lm-1")
    secret_places.seen(lm)
    for number in range(300):
        learn(f"key-of-tenant-{number}", "a test")
    assert secrets.is_known("key-of-environment")
    assert not secrets.is_known("key-of-an-lm-1")
    secret_places.seen(lm)
    assert secrets.is_known("key-of-an-lm-1")


class Hostile(dict[Any, Any]):
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Any:
        raise RuntimeError

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError


class Name(str):
    """A name that raises when it is compared or hashed."""

    def __hash__(self) -> int:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


def test_hostile_values() -> None:
    """Loops, depth, width and objects that raise cost neither the program nor the secrets beside them."""
    loop: dict[str, Any] = {"api_key": "beside-a-loop-1"}
    loop["self"] = loop
    deep: Any = {"api_key": "beneath-it-all"}
    for _ in range(2_000):
        deep = [deep]
    learn_from([loop, Hostile(password="in-the-hostile"), deep, [object()] * 5_000], "a test")
    learn(Name("a-name-that-raises"), "a test")
    learn_url("http://[broken:password-1@", "a test")
    learn_from(["http://a b:c@d:e@", "://@?=&"], "a test")
    assert set(secrets.known()) >= {"beside-a-loop-1", "in-the-hostile"}


def seconds(function: Any, text: str) -> float:
    best = 1e9
    for _ in range(3):
        start = thread_time()
        function(text)
        best = min(best, thread_time() - start)
    return best


PROSE = 'The [[ ## answer ## ]] of 1987 is "Paris"; see https://a.example/x?q=1&r=2, me@b.example: it\'s so\\n. '
HARD = ["'\"\\", '"a":', '\\"token\\": \\"', "'a': \"", "://a@", "a=b&", "-----BEGIN PRIVATE KEY-----", "sk-", "\\"]


@pytest.mark.parametrize("piece", [PROSE, *HARD])
@pytest.mark.parametrize("function", [scrub_text, scrub_json])
def test_the_cost_is_linear(piece: str, function: Any) -> None:
    """Ten times the text takes far less than a hundred times as long, whatever stands in it."""
    learn(KEY, "a test")
    if function is scrub_json:
        function = lambda text: scrub_json(json.dumps(text))  # noqa: E731
    small = (piece * 50_000)[:25_000]
    short, long = seconds(function, small), seconds(function, small * 10)
    assert long < short * 40 + 0.05


def test_ten_megabytes() -> None:
    """A secret at the end of 10 MB is found, within the second."""
    learn(KEY, "a test")
    text = "x y " * 2_500_000 + KEY
    start = thread_time()
    assert scrub_text(text).endswith(f"y {REPLACEMENT}")
    assert thread_time() - start < 2


def test_our_own_log_is_scrubbed(caplog: pytest.LogCaptureFixture) -> None:
    """Message, arguments and traceback of a line, also for handlers that make text of the exception themselves."""
    learn(KEY, "a test")
    with caplog.at_level(logging.WARNING, logger="dspy_trace"):
        guard.report("a step of a test", ValueError(f"bad key {KEY}"))
        guard.logger.warning("to %s: %s", "http://me:pw@host", KEY)
    assert KEY not in caplog.text
    assert "ValueError: bad key [secret]" in caplog.text
    assert "to http://[secret]@host: [secret]" in caplog.text
    assert all(record.exc_info is None for record in caplog.records)
