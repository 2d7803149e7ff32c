"""Content goes into the user's own experiment, and to nobody else unless that was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import orjson
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

import dspy_trace
from dspy_trace.settings import CAPTURE_CONTENT
from tests import everything
from tests.balanced import fresh_cache
from tests.outlets import Kept, dummy, kept, provider_of_app  # noqa: F401  # a fixture
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style:DeprecationWarning")

NEVER_TOLD = {
    everything.canary("lm-busy"),  # an attempt that is tried again is told by the type of its error
    everything.canary("definition"),
}
"""Canaries that no exporter is told of, with content on."""


def run(server: ScriptedLM, **asked: Any) -> list[ReadableSpan]:
    """Run all of DSPy that is observed; return what the application's exporter gets of it."""
    provider, exporter = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog(detail="full", log_traces_from_compile=True, **asked)
    with fresh_cache():
        everything.run(server)
    return list(exporter.get_finished_spans())


def texts(spans: list[ReadableSpan]) -> str:
    """Return everything that is told of spans."""
    return "\n".join(span.to_json() for span in spans)


def in_spool(kept: Kept) -> str:
    """Return everything that is in the spool, whichever column it stands in."""
    return "\n".join(orjson.dumps(batch).decode() for batch in kept.batches())


def test_prompts_are_in_mlflow_alone(kept: Kept, scripted_lm: ScriptedLM) -> None:
    """By default each piece of content is in MLflow's copy, and none of it on a span of the application's exporter."""
    spans = run(scripted_lm)
    told, exported = in_spool(kept), texts(spans)
    assert {place for place in everything.PLACES if place not in told} <= NEVER_TOLD
    assert [place for place in everything.PLACES if place in exported] == []
    assert everything.BYTES[:40] not in told + exported
    assert len(spans) == len(kept.rows()) > 60


def test_no_content_means_none_anywhere(kept: Kept, monkeypatch: pytest.MonkeyPatch, scripted_lm: ScriptedLM) -> None:
    """Content that was refused in so many words is neither in MLflow's copy nor in the spool; types and sums are."""
    monkeypatch.setenv(CAPTURE_CONTENT, "NO_CONTENT")
    spans = run(scripted_lm)
    told = in_spool(kept) + texts(spans)
    assert [place for place in everything.PLACES if place in told] == []
    rows = kept.rows()
    assert len(rows) == len(spans) > 60
    assert {row["attributes"]["mlflow.spanType"] for row in rows} >= {"LLM", "CHAT_MODEL", "TOOL", "RETRIEVER", "AGENT"}
    assert any("mlflow.chat.tokenUsage" in row["attributes"] for row in rows)
    failed = [row for row in rows if row["status"] == "ERROR"]
    assert {"LookupError", "ValueError"} <= {row["message"] for row in failed}


ASKED: list[tuple[dict[str, Any], str, bool, bool]] = [
    ({"capture_content": True}, "", True, True),
    ({"capture_content": "SPAN_ONLY"}, "NO_CONTENT", True, True),
    ({}, "SPAN_AND_EVENT", True, True),
    ({"capture_content": "EVENT_ONLY"}, "", False, True),
    ({}, "", False, True),
    ({"capture_content": False}, "", False, False),
    ({"capture_content": "NO_CONTENT"}, "true", False, False),
    ({}, "false", False, False),
    ({}, "nonsense", False, False),  # nobody can tell what was meant
]


@pytest.mark.parametrize(("asked", "environ", "on_spans", "in_mlflow"), ASKED)
def test_where_content_goes(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], environ: str, on_spans: bool, in_mlflow: bool
) -> None:
    """What is asked for spans decides for spans; MLflow has its own copy unless it was refused, and has it once."""
    monkeypatch.setenv(CAPTURE_CONTENT, environ)
    provider, exporter = provider_of_app()
    trace.set_tracer_provider(provider)
    dspy_trace.autolog(**asked)
    with dspy.context(lm=dummy(["canary-answer"])):
        dspy.Predict("question -> answer")(question="canary-question")
    exported = texts(list(exporter.get_finished_spans()))
    for canary in ("canary-question", "canary-answer"):
        assert (canary in exported) is on_spans
        assert (canary in in_spool(kept)) is in_mlflow
    if not in_mlflow:
        return
    root, chat = sorted(kept.rows(), key=lambda row: row["name"], reverse=True)
    assert root["attributes"]["mlflow.spanInputs"] == {"question": "canary-question"}
    assert root["attributes"]["mlflow.spanOutputs"] == {"answer": "canary-answer"}
    assert json.dumps(root).count("canary-question") == 1
    assert json.dumps(chat).count("canary-answer") == 1


class Failing(dspy.Module):
    """Raises an error whose text is content."""

    def forward(self, question: str) -> None:
        raise ValueError(f"no answer to {question}")


def hidden(value: Any) -> Any:
    """Take the word out of any plain data."""
    return orjson.loads(orjson.dumps(value).replace(b"canary", b"[gone]"))


@pytest.fixture(params=[hidden, lambda value: "[gone]"], ids=["partly", "wholly"])
def redact(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give two ways to redact."""
    yield request.param


def test_redaction_is_for_mlflow_too(kept: Kept, redact: Any) -> None:
    """``redact=`` has seen every captured value, exceptions included, before any of it is in the spool."""
    dspy_trace.autolog(redact=redact)
    with dspy.context(lm=dummy(["canary-answer"])):
        dspy.ChainOfThought("question -> answer")
        dspy.Predict("question -> answer")(question="canary-question")
        with pytest.raises(ValueError, match="canary-question"):
            Failing()(question="canary-question")
    told = in_spool(kept)
    assert "canary" not in told
    assert told.count("[gone]") >= 6
    (failed,) = [row for row in kept.rows() if row["status"] == "ERROR"]
    assert "[gone]" in failed["message"]


def test_a_redaction_that_fails_tells_nothing(kept: Kept) -> None:
    """Where ``redact`` raises, the value is left out, and the span is not."""

    def broken(value: Any) -> Any:
        raise RuntimeError("canary-of-redact")

    dspy_trace.autolog(redact=broken)
    with dspy.context(lm=dummy(["canary-answer"])):
        dspy.Predict("question -> answer")(question="canary-question")
    assert kept.tree() == "\n> invoke_workflow Predict\n  chat dummy\n"
    assert "canary" not in in_spool(kept)


@pytest.mark.parametrize("content", [True, None])
def test_a_second_spelling_is_the_collectors(content: Any, kept: Kept, scripted_lm: ScriptedLM) -> None:
    """A collector gets OpenInference's words, content where it was asked for; MLflow's copy has it once, in its own."""
    spans = run(scripted_lm, conventions={"genai", "openinference"}, capture_content=content)
    keys = {key for span in spans for key in span.attributes or {}}
    assert "llm.token_count.total" in keys
    assert ("llm.input_messages.0.message.content" in keys) == bool(content)
    rows = [row["attributes"] for row in kept.rows()]
    assert len(rows) == len(spans)
    twice = ("llm.input_messages.", "llm.output_messages.", "retrieval.documents.", "input.value", "output.value")
    assert [key for row in rows for key in row if key.startswith(twice)] == []
    assert {row["openinference.span.kind"] for row in rows} >= {"LLM", "CHAIN", "AGENT", "TOOL", "RETRIEVER"}
