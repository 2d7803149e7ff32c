"""Rows, asserted whole: of a span of ours, of others' spans, of roots."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from dspy_trace.export.mlflow import TraceFacts, trace_info
from dspy_trace.export.mlflow_values import clean, decoded
from dspy_trace.vocab.mlflow_spelling import Captured
from tests.mlflow_spans import NAME, PARENT, SPAN, attributes_of, made, span


def test_a_span_of_ours() -> None:
    """What is on the span and what travelled beside it, under MLflow's ids."""
    chat = span(
        "chat m",
        parent=PARENT,
        kind=SpanKind.CLIENT,
        attributes={"gen_ai.request.model": "m", "gen_ai.request.stop_sequences": ("a", "b"), "input.value": "{}"},
        events=[Event("dspy.lm.attempt_failed", {"error.type": "Timeout"}, 1_500_000_000)],
        links=[Link(SpanContext(0xDEF, 0x56, False), {"why": "later"})],
    )
    beside = {
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.spanInputs": Captured('{"messages":[]}'),
        "mlflow.chat.tokenUsage": {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3},
    }
    assert made(chat, beside, trace_id=0xFED, parent_id=PARENT) == {
        "trace_id": f"{0xFED:032x}",
        "span_id": f"{SPAN:016x}",
        "parent_id": f"{PARENT:016x}",
        "name": "chat m",
        "start": 1_000_000_000,
        "end": 3_500_000_000,
        "kind": "CLIENT",
        "status": "OK",
        "message": "",
        "root": False,
        "attributes": {
            "gen_ai.request.model": "m",
            "gen_ai.request.stop_sequences": ["a", "b"],
            "mlflow.spanType": "CHAT_MODEL",
            "mlflow.spanInputs": {"messages": []},
            "mlflow.chat.tokenUsage": {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3},
        },
        "events": [{"name": "dspy.lm.attempt_failed", "time": 1_500_000_000, "attributes": {"error.type": "Timeout"}}],
        "links": [{"trace_id": f"{0xDEF:032x}", "span_id": f"{0x56:016x}", "attributes": {"why": "later"}}],
    }


def test_a_local_root_has_no_parent_in_mlflow() -> None:
    """The true one is kept; name, tags and the resource's are on the root, the machine's and the SDK's are not."""
    resource = {"service.name": "shop", "team": "a", "telemetry.sdk.name": "x", "process.command_args": "--key=1"}
    trace = TraceFacts(tags={"env": "prod", "team": "b"})
    told = made(span("GET /ask", parent=PARENT, resource=Resource(resource)), trace=trace)
    assert (told["parent_id"], told["root"]) == (None, True)
    assert told["attributes"] == {
        "dspy.parent.span_id": f"{PARENT:016x}",
        NAME: "GET /ask",
        "mlflow.traceTag.service.name": "shop",
        "mlflow.traceTag.team": "b",
        "mlflow.traceTag.env": "prod",
    }
    nameless = made(span(resource=Resource({"service.name": "unknown_service:python", "service.instance.id": "7"})))
    assert nameless["attributes"] == {NAME: "work"}


def test_a_local_root_beneath_mlflows_own_span() -> None:
    """Under ``@mlflow.trace`` the trace is MLflow's: it has a name, and nothing is said of it."""
    told = made(span("invoke_workflow P"), {"mlflow.spanType": "CHAIN", NAME: "P"}, trace_id=7, parent_id=8, root=True)
    assert (told["trace_id"], told["parent_id"], told["root"]) == (f"{7:032x}", f"{8:016x}", True)
    assert told["attributes"] == {"mlflow.spanType": "CHAIN"}
    assert trace_info(told, {"run_id": "r"}, "1") is None


def test_a_request_shows_what_the_program_in_it_was_asked() -> None:
    """A root of the application's knows no inputs and outputs: it gets those of the program beneath it."""
    trace = TraceFacts()
    for question, answer in (("one", "1"), ("two", "2")):
        beside = {
            NAME: "P",
            "mlflow.spanInputs": Captured(json.dumps({"q": question})),
            "mlflow.spanOutputs": Captured(json.dumps({"a": answer})),
        }
        assert NAME not in attributes_of(span("invoke_workflow P"), beside, trace=trace)
    root = made(span("POST /ask", attributes={"http.route": "/ask"}), trace=trace)
    assert root["attributes"] == {
        "http.route": "/ask",
        NAME: "POST /ask",
        "mlflow.spanInputs": {"q": "one"},
        "mlflow.spanOutputs": {"a": "2"},
    }
    knowing = made(span("POST /ask", attributes={"input.value": "mine"}), trace=trace)
    assert knowing["attributes"] == {"input.value": "mine", NAME: "POST /ask"}


def test_what_is_said_of_the_trace_is_not_on_its_spans() -> None:
    """Tags and metadata of a session travel beside every span, and arrive once."""
    trace = TraceFacts()
    beside = {"mlflow.spanType": "TOOL", "mlflow.traceTag.env": "prod", "dspy_trace.traceMetadata.release": "7"}
    assert attributes_of(span(), beside, trace=trace) == {"mlflow.spanType": "TOOL"}
    assert (trace.tags, trace.metadata) == ({"env": "prod"}, {"release": "7"})


def test_content_is_stored_once() -> None:
    """What the span says in another form is left out where MLflow's own form has it."""
    doubled = {
        "gen_ai.input.messages": "[]",
        "output.value": "{}",
        "output.mime_type": "application/json",
        "llm.input_messages.0.message.role": "user",
        "gen_ai.tool.definitions": "[]",
    }
    both = {"mlflow.spanInputs": Captured("1"), "mlflow.spanOutputs": Captured("2")}
    told = attributes_of(span(attributes=doubled), both)
    assert told == {"mlflow.spanInputs": 1, "mlflow.spanOutputs": 2, "gen_ai.tool.definitions": []}


def test_ours_without_usage_has_nothing_to_make_usage_from() -> None:
    """MLflow makes usage of GenAI's token counts wherever it finds them."""
    counts = {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 1, "dspy.usage.input_tokens": 3}
    assert attributes_of(span(attributes=counts), {"mlflow.spanType": "CHAT_MODEL"}) == {
        "dspy.usage.input_tokens": 3,
        "mlflow.spanType": "CHAT_MODEL",
    }
    assert attributes_of(span(attributes=counts)) == counts


def test_what_another_tracing_of_mlflow_wrote() -> None:
    """MLflow's spans on the program's provider: JSON in every attribute; ids and a null type are not passed on."""
    written = {
        "mlflow.traceRequestId": '"tr-1"',
        "mlflow.experimentId": '"7"',
        "mlflow.spanInputs": '{"a": "\\u0000"}',
        "model": '"m"',
    }
    own = attributes_of(span(scope="mlflow.tracing.fluent", attributes={**written, "mlflow.spanType": '"AGENT"'}))
    assert own == {"mlflow.spanInputs": {"a": "\ufffd"}, "model": "m", "mlflow.spanType": "AGENT"}
    touched = attributes_of(
        span(attributes={"mlflow.traceRequestId": "tr-1", "mlflow.spanType": "null", "model": '"m"'})
    )
    assert touched == {"model": '"m"'}
    ours = attributes_of(span(attributes={"mlflow.spanType": "null", "k": 1}), {"mlflow.spanType": "TOOL"})
    assert ours == {"k": 1, "mlflow.spanType": "TOOL"}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("mlflow.chat.tokenUsage", '{"input_tokens": 5, "other": 1}', {"input_tokens": 5}),
        ("mlflow.chat.tokenUsage", '{"input_tokens": "5"}', None),
        ("mlflow.chat.tokenUsage", '{"input_tokens": -1, "output_tokens": 2}', None),
        ("mlflow.chat.tokenUsage", "many", None),
        ("mlflow.llm.cost", '{"total_cost": 0.5}', {"total_cost": 0.5}),
        ("mlflow.llm.cost", '{"total_cost": "xx"}', None),
        ("mlflow.llm.cost", "[]", None),
    ],
)
def test_figures_are_sound_or_absent(key: str, value: str, told: Any) -> None:
    """MLflow refuses a whole request over usage or cost that it cannot add up."""
    assert attributes_of(span(attributes={key: value})) == ({} if told is None else {key: told})


def test_ids_and_names_are_as_long_as_mlflow_takes_them() -> None:
    """A longer session id or name makes it refuse the request."""
    long = {"session.id": "s" * 300, "user.id": "u" * 300, "gen_ai.conversation.id": "\ud800" * 300}
    told = made(span("n" * 5_000, attributes=long))
    assert [len(told["attributes"][key]) for key in long] == [250, 250, 250]
    assert (len(told["name"]), len(told["attributes"][NAME])) == (4_096, 4_096)


def test_times_fit_into_the_database() -> None:
    """A time that does not makes the server fail, which looks as if it were worth another try."""
    told = made(span(start_time=2**63, end_time=None, events=[Event("e", {}, 2**64)]))
    assert (told["start"], told["end"], told["events"][0]["time"]) == (2**63 - 1,) * 3


def test_an_exception_is_told_where_its_span_says_only_the_type() -> None:
    """Its text travels beside the span."""
    failed = span(
        status=Status(StatusCode.ERROR, "KeyError"),
        events=[Event("exception", {"exception.type": "KeyError"}, 5)],
    )
    beside = {"mlflow.spanLogLevel": 10, "exception.type": "KeyError", "exception.message": "k\ud800"}
    told = made(failed, beside)
    assert (told["status"], told["message"]) == ("ERROR", "KeyError: k?")
    assert told["events"][0]["attributes"] == {"exception.type": "KeyError", "exception.message": "k?"}
    assert told["attributes"] == {"mlflow.spanLogLevel": 40, NAME: "work"}
    quiet = made(failed, {"mlflow.spanType": "TOOL", "exception.type": "KeyError"})
    assert (quiet["message"], quiet["events"][0]["attributes"]) == ("KeyError", {"exception.type": "KeyError"})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a\0\ud800é", "a\ufffd?é"),
        (math.nan, "nan"),
        (2**70, str(2**70)),
        (b"\xffa", "\ufffda"),
        ({"k": (1, None)}, {"k": [1, None]}),
        (True, True),
        (1.5, 1.5),
    ],
)
def test_any_value_is_plain(value: Any, told: Any) -> None:
    """What JSON has no form for, or a database does not take, becomes text."""
    assert clean(value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('[{"role": "user"}]', [{"role": "user"}]),
        ('{"a": "\\u0000"}', {"a": "\ufffd"}),
        ("{not json}", "{not json}"),
        ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300),
        ('"quoted"', '"quoted"'),
        ("1", "1"),
    ],
)
def test_json_text_of_others_is_read_as_mlflow_reads_it(value: str, told: Any) -> None:
    """Messages of other instrumentations stand in attributes as JSON text; no deeper than can be written again."""
    assert decoded(value) == told
