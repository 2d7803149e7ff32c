"""Some forty secrets in every place that takes one, all kinds of calls, and nothing of them anywhere that leaves."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from opentelemetry import trace

import dspy_trace
from dspy_trace import guard, secrets
from dspy_trace.settings import CAPTURE_CONTENT, EMIT_EVENT
from tests import planted, secret_program
from tests.balanced import fresh_cache
from tests.outlets import Kept, kept, provider_of_app  # noqa: F401  # a fixture
from tests.parts.measured import Logged, Measured
from tests.parts.scripted_lm import ScriptedLM
from tests.planted import nothing_known  # noqa: F401  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")


@pytest.fixture(autouse=True)
def secrets_around(nothing_known: None, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with secrets in the environment."""
    for name, value in planted.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def found(text: str) -> Iterator[str]:
    """Yield the places whose secrets stand in a text."""
    for place, value in {**planted.PLANTED, **planted.PASSING}.items():
        if any(form in text for form in planted.forms(value)):
            yield place


def run(kept: Kept, server: ScriptedLM) -> dict[str, str]:
    """Run it all; return what the application's exporters of spans, metrics and events got, and the spool's files."""
    provider, exporter = provider_of_app()
    measured, logged = Measured(), Logged()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog(
        detail="full",
        log_traces_from_compile=True,
        conventions={"genai", "openinference"},
        meter_provider=measured.provider,
        logger_provider=logged.provider,
    )
    with fresh_cache():
        secret_program.run(server)
    kept.out.processor.write_out()
    spool = b"".join(path.read_bytes() for path in (kept.folder / "spool").rglob("*") if path.is_file())
    return {
        "spans": "\n".join(span.to_json() for span in exporter.get_finished_spans()),
        "metrics": measured.text(),
        "events": logged.text(),
        "spool": spool.decode("utf-8", "replace"),
    }


def ours(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return our own log, last of all a step of ours that fails and says everything."""
    monkeypatch.setattr(guard, "strict", False)
    monkeypatch.setattr(guard, "failures", Counter())
    guard.shielded("the last step", secret_program.broken, "?")
    return "\n".join(caplog.handler.format(one) for one in caplog.records if one.name.startswith("dspy_trace"))


@pytest.mark.parametrize("mode", ["", "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"])
def test_no_secret_leaves(
    mode: str,
    kept: Kept,  # the fixture
    scripted_lm: ScriptedLM,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not with spans, metrics or events to the application's exporters, in the bytes of the spool, or in our log."""
    monkeypatch.setenv(CAPTURE_CONTENT, mode)
    monkeypatch.setenv(EMIT_EVENT, "true")
    with caplog.at_level(logging.DEBUG, logger="dspy_trace"):
        left = run(kept, scripted_lm)
        left["log"] = ours(caplog, monkeypatch)
    assert len(planted.PLANTED) + len(planted.PASSING) > 40
    assert {name: list(found(text)) for name, text in left.items()} == {name: [] for name in left}
    content = {"spans": mode.startswith("SPAN"), "events": "EVENT" in mode, "spool": mode != "NO_CONTENT"}
    hidden = {name: text.count(secrets.REPLACEMENT) for name, text in left.items()}
    assert {name: hidden[name] > 500 for name in content} == content
    assert (hidden["metrics"], hidden["log"] > 100) == (0, True)
    assert len(kept.rows()) > 80
    assert left["events"].count("gen_ai.evaluation.result") > 1
    assert left["events"].count("gen_ai.client.inference.operation.details") > 20
    assert left["metrics"].count("gen_ai.client.token.usage") == 1
