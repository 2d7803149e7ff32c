"""Secrets in what is captured of a call: by name at any depth, where a value is cut, and never the host's own."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy
import pydantic
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import dspy_trace
from dspy_trace import secrets
from dspy_trace.export.worker import Redacted
from dspy_trace.observing.observer import capture_of
from dspy_trace.secrets import REPLACEMENT, learn
from dspy_trace.secrets import places as secret_places
from dspy_trace.settings import Settings
from dspy_trace.testing import record
from dspy_trace.values.jsonable import dumps
from tests.hostile import hostile
from tests.outlets import Kept, dummy, kept, provider_of_app  # noqa: F401  # a fixture
from tests.parts.measured import Logged
from tests.planted import nothing_known  # noqa: F401  # a fixture

KEY = "ck-7Hq2Zt9LpX4vB8nM1sD6"


@dataclass
class Login:
    user: str
    password: str


class Model(pydantic.BaseModel):
    access_token: str
    max_tokens: int


VALUES: list[tuple[Any, Any]] = [
    ({"password": "x"}, {"password": REPLACEMENT}),
    ({"a": [{"b": {"X-Api-Key": "x", "n": 1}}]}, {"a": [{"b": {"X-Api-Key": REPLACEMENT, "n": 1}}]}),
    ({"cookies": ["x"], "n": (1,)}, {"cookies": REPLACEMENT, "n": [1]}),
    (Login("me", "x"), {"user": "me", "password": REPLACEMENT}),
    (Model(access_token="x", max_tokens=5), {"access_token": REPLACEMENT, "max_tokens": 5}),
    (dspy.Example(secret="x", text="t"), {"secret": REPLACEMENT, "text": "t"}),
    ({"pin": 1, "token": 12345678}, {"pin": 1, "token": REPLACEMENT}),
    ({"token": "understanding", "logprob": -0.5}, {"token": "understanding", "logprob": -0.5}),
    ({"credentials": {"type": "service_account", "key": "x"}}, {"credentials": REPLACEMENT}),
]


@pytest.mark.parametrize(("value", "told"), VALUES, ids=range(len(VALUES)))
def test_values_are_hidden_by_their_names(value: Any, told: Any) -> None:
    """In plain data and in objects that declare fields; what counts tokens, and what is a token of a text, is told."""
    assert json.loads(dumps(value)) == told


def test_redact_sees_no_secret_that_its_name_tells() -> None:
    """A function of the program's gets the value as it would be told."""
    seen: list[Any] = []
    dumps({"password": "x", "text": "t"}, redact=seen.append)
    assert seen == [{"password": REPLACEMENT, "text": "t"}]


@pytest.mark.parametrize("before", range(65_480, 65_540, 3))
def test_nothing_remains_of_a_secret_at_the_cut(before: int) -> None:
    """Wherever a value is cut, no part of a known secret is kept, in texts, keys and exceptions alike."""
    learn(KEY, "a test")
    for value in ("x" * before + KEY + "y" * 9_000, ["x" * (before - 300), "x" * 280 + KEY * 5]):
        told = capture_of(Settings())(value)
        assert len(told) <= 65_536
        assert "ck-7" not in told
    with record(capture_content=True) as trace, pytest.raises(ValueError):
        raising("x" * before + KEY * 4)
    (span,) = trace.spans
    assert "ck-7" not in span.to_json()


def raising(text: str) -> None:
    class Failing(dspy.Module):
        def forward(self) -> None:
            raise ValueError(text)

    Failing()()


def test_what_stands_for_secrets_keeps_the_bound() -> None:
    """Also where it is longer than they are."""
    for limit in (60, 200, 1_000):
        told = capture_of(Settings(), limit)(["http://a@b/" for _ in range(200)])
        assert len(told) <= limit
        assert "a@b" not in json.dumps(json.loads(told))


def test_digits_that_stand_in_a_number() -> None:
    """A known password of digits alone is taken out of texts; JSON of numbers that hold it stays as it is."""
    learn("12345678", "a test")
    assert json.loads(capture_of(Settings())({"at": 9123456789, "text": "is 12345678"})) == {
        "at": 9123456789,
        "text": f"is {REPLACEMENT}",
    }


def test_the_hosts_own_is_left_alone() -> None:
    """Exception, message, arguments and inputs are the program's: what is hidden is our copy."""
    inputs = {"password": KEY, "text": f"key {KEY}"}
    error = ValueError(f"bad key {KEY}", inputs)

    class Failing(dspy.Module):
        def forward(self, **kwargs: Any) -> None:
            raise error

    learn(KEY, "a test")
    with record(capture_content=True) as trace, pytest.raises(ValueError) as raised:
        Failing()(**inputs)
    assert raised.value is error
    assert error.args == (f"bad key {KEY}", {"password": KEY, "text": f"key {KEY}"})
    assert KEY not in "".join(span.to_json() for span in trace.spans)
    assert "bad key [secret]" in str(trace.spans[0].status.description)


def test_a_new_key_of_an_lm_is_seen() -> None:
    """The key of an LM may be replaced between two calls; every call may bring another."""
    lm = dspy.LM("openai/gpt-4o-mini", api_key="first-key-of-it", api_base="http://127.0.0.1:9", num_retries=0)
    secret_places.seen(lm)
    lm.kwargs["api_key"] = "second-key-of-it"
    secret_places.seen(lm, {"extra_headers": {"Authorization": "Bearer third-key-of-it"}, "messages": [{"token": KEY}]})
    known = set(secrets.known())
    assert known >= {"first-key-of-it", "second-key-of-it", "third-key-of-it"}
    assert KEY not in known


def test_spans_of_others_are_scrubbed_on_their_way_to_mlflow(kept: Kept) -> None:
    """Attributes by name, JSON in them, events and texts; known secrets wherever they stand, also in what is said."""
    learn(KEY, "a test")
    provider, _ = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog()
    with provider.get_tracer("web").start_as_current_span("GET") as span, dspy.context(lm=dummy()):
        span.set_attribute("http.request.header.authorization", ["Bearer x"])
        span.set_attribute("body", json.dumps({"password": "p", "trace_id": KEY}))
        span.set_attribute("url.full", "https://me:pw@host/?api_key=k")
        span.add_event("retried", {"error": f"password=hunter2 {KEY}"})
        dspy.Predict("question -> answer")(question="?")
    dspy_trace.log_feedback(f"{span.get_span_context().trace_id:032x}", "note", KEY, rationale=f"saw {KEY}")
    (root,) = [row for row in kept.rows() if row["name"] == "GET"]
    assert root["attributes"]["http.request.header.authorization"] == REPLACEMENT
    assert root["attributes"]["body"] == {"password": REPLACEMENT, "trace_id": REPLACEMENT}
    assert root["attributes"]["url.full"] == "https://[secret]@host/?api_key=[secret]"
    assert root["events"][0]["attributes"] == {"error": "password=[secret] [secret]"}
    assert all(KEY.encode() not in path.read_bytes() for path in (kept.folder / "spool").iterdir() if path.is_file())


def unlock(given: Any) -> None:
    """Fail, and say what was given, but not by what name."""
    raise LookupError(f"401 for {[*given.values()]}")


class Unlocks(dspy.Module):
    def forward(self, given: Any) -> None:
        unlock(given)


USES: dict[str, Callable[[Any], Any]] = {
    "tool": lambda given: dspy.Tool(unlock)(given=given),
    "program": lambda given: Unlocks()(given=given),
    "interpreter": lambda given: dspy.LocalInterpreter().execute("unlock(given)", {"given": given}),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mode", ["NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "not sampled"])
def test_what_a_call_is_given_is_known(mode: str, use: str) -> None:
    """By its name, at any depth, whether it is told or not: where an error tells of it, it is hidden."""
    refuses = hostile("items", "keys", "values", "__iter__", base=dict)()
    given = [{"text": f"1{KEY}", "session": [{"token": KEY}, refuses, object()]}, Login("me", f"2{KEY}")]
    unsampled = {"sampler": ALWAYS_OFF, "logger_provider": Logged().provider} if mode == "not sampled" else {}
    content = "EVENT_ONLY" if unsampled else mode
    with record(capture_content=content, **unsampled) as trace, contextlib.suppress(Exception):
        USES[use](given)
    assert {value for value, where in secrets.known().items() if where.endswith("of a call")} == {KEY, f"2{KEY}"}
    assert len(trace.spans) == (not unsampled)


@pytest.mark.parametrize("use", ["tool", "program"])
def test_what_a_call_is_given_is_not_told_by_others(use: str, kept: Kept) -> None:
    """The application's own span may tell of the error, and goes to MLflow with ours, though ours tell no content."""
    provider, _ = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog(capture_content="NO_CONTENT")
    with pytest.raises(LookupError), provider.get_tracer("web").start_as_current_span("GET"):
        USES[use]({"password": KEY})
    assert [row["name"] for row in kept.rows() if "401 for" in str(row)] == ["GET"]
    assert KEY not in str(kept.rows())


def test_the_workers_log_is_scrubbed() -> None:
    """Known secrets, URLs, and a password of the database that is too short to be searched for elsewhere."""
    learn(KEY, "a test")
    stream = io.StringIO()
    Redacted(stream, "pw1").write(f"cannot open postgresql://me:other@db with {KEY} or pw1\n")
    assert stream.getvalue() == "cannot open postgresql://[secret]@db with [secret] or [secret]\n"


def test_a_file_is_told_by_its_digest() -> None:
    """A file in OpenAI's parts may be plain base64, with no type beside it."""
    told = json.loads(
        dumps({"file": {"file_data": base64.b64encode(b"bytes of a file" * 9).decode(), "filename": "a"}})
    )
    assert told["file"]["file_data"]["size"] == 135
