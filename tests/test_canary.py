"""Some forty secrets in every place that takes one, all kinds of calls, and nothing of them anywhere that leaves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace

import dspy_trace
from dspy_trace import secret_places, secrets
from dspy_trace.settings import CAPTURE_CONTENT
from tests import planted, secret_program
from tests.balanced import fresh_cache
from tests.outlets import Kept, kept, provider_of_app  # noqa: F401  # a fixture
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_known(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:  # the fixture
    """Begin with nothing known and secrets in the environment."""
    monkeypatch.setattr(secrets, "_known", {})
    monkeypatch.setattr(secrets, "_inherited", {})
    monkeypatch.setattr(secrets, "_passing", {})
    monkeypatch.setattr(secrets, "_passing", {})
    monkeypatch.setattr(secrets, "_finder", None)
    monkeypatch.setattr(secrets, "_environment", {})
    monkeypatch.setattr(secret_places, "_seen", {})
    monkeypatch.setattr(secret_places, "_looked", [0.0])
    for name, value in planted.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def found(text: str) -> Iterator[str]:
    """Yield the places whose secrets stand in a text."""
    for place, value in {**planted.PLANTED, **planted.PASSING}.items():
        if any(form in text for form in planted.forms(value)):
            yield place


def run(kept: Kept, server: ScriptedLM, **asked: Any) -> tuple[str, str]:
    """Run it all; return what the application's exporter got, and what is in the spool's files."""
    provider, exporter = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog(detail="full", log_traces_from_compile=True, conventions={"genai", "openinference"}, **asked)
    with fresh_cache():
        secret_program.run(server)
    kept.out.processor.write_out()
    spool = b"".join(path.read_bytes() for path in (kept.folder / "spool").rglob("*") if path.is_file())
    return "\n".join(span.to_json() for span in exporter.get_finished_spans()), spool.decode("utf-8", "replace")


@pytest.mark.parametrize("mode", ["", "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"])
def test_no_secret_leaves(
    mode: str,
    kept: Kept,
    scripted_lm: ScriptedLM,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither on a span of the application's exporter nor in the bytes of the spool nor in a log line of ours."""
    monkeypatch.setenv(CAPTURE_CONTENT, mode)
    with caplog.at_level(logging.DEBUG, logger="dspy_trace"):
        exported, spooled = run(kept, scripted_lm)
    ours = "\n".join(
        record.getMessage() + str(record.exc_text) for record in caplog.records if record.name == "dspy_trace"
    )
    assert len(planted.PLANTED) + len(planted.PASSING) > 40
    assert {name: list(found(text)) for name, text in (("spans", exported), ("spool", spooled), ("log", ours))} == {
        "spans": [],
        "spool": [],
        "log": [],
    }
    content = {"spans": mode.startswith("SPAN"), "spool": mode != "NO_CONTENT"}
    for name, text in (("spans", exported), ("spool", spooled)):
        assert (text.count(secrets.REPLACEMENT) > 500) == content[name]
    assert len(kept.rows()) > 80
