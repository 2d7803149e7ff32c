"""What an LM span says of the response: id, reasons, tokens, cost, cache hits, and requests that were repeated."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from tests.balanced import balanced, fresh_cache
from tests.parts.scripted_answers import Reply, in_turn
from tests.parts.scripted_lm import ScriptedLM

ENGINES = pytest.mark.parametrize("engine", ["lm15", "litellm"])
USAGE = "gen_ai.usage."
DETAILED = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 25},
}


def ask(lm: Any, **kwargs: Any) -> ReadableSpan:
    """Call `lm` and return the span of it, the only one."""
    with balanced(capture_content=True) as trace:
        lm("hi", **kwargs)
    (span,) = trace.spans
    return span


def used(span: ReadableSpan) -> dict[str, Any]:
    return {key.removeprefix(USAGE): value for key, value in span.attributes.items() if key.startswith(USAGE)}


@ENGINES
def test_the_response_is_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """Its id, the model that answered, and why it ended."""
    scripted_lm.answer = lambda body: Reply("cut off", finish_reason="length", model="gpt-4o-mini-2024-07-18")
    told = ask(scripted_lm.lm(engine)).attributes
    assert told["gen_ai.response.id"] == "chatcmpl-1"
    assert told["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"
    assert told["gen_ai.response.finish_reasons"] == ("length",)
    assert told["gen_ai.output.messages"] == (
        '[{"role":"assistant","parts":[{"type":"text","content":"cut off"}],"finish_reason":"length"}]'
    )


@ENGINES
def test_each_choice_has_its_reason_and_its_message(scripted_lm: ScriptedLM, engine: Any) -> None:
    """With ``n=2`` there are two, whether DSPy asks once or twice."""
    scripted_lm.answer = in_turn(Reply(["one", "two"]), Reply(["two"]))
    told = ask(scripted_lm.lm(engine, temperature=1.0), n=2).attributes
    assert told["gen_ai.response.finish_reasons"] == ("stop", "stop")
    assert told["gen_ai.output.messages"].count('"role":"assistant"') == 2
    assert '"one"' in told["gen_ai.output.messages"]
    assert '"two"' in told["gen_ai.output.messages"]
    assert told["dspy.lm.requests"] == len(scripted_lm.requests) == (2 if engine == "lm15" else 1)


@ENGINES
def test_every_kind_of_token_is_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """As the server reported it, of all requests of the call together."""
    scripted_lm.answer = lambda body: Reply("hello", usage=DETAILED)
    lm = scripted_lm.lm(engine)
    one = {"input_tokens": 100, "output_tokens": 40, "cache_read.input_tokens": 60, "reasoning.output_tokens": 25}
    assert used(ask(lm)) == one
    two = {name: value * 2 for name, value in one.items()} if engine == "lm15" else one
    assert used(ask(lm, n=2, temperature=1.0)) == two


@ENGINES
def test_a_server_that_reports_nothing_used_nothing_that_is_known(scripted_lm: ScriptedLM, engine: Any) -> None:
    """What is not known is left out, not invented."""
    scripted_lm.answer = lambda body: Reply("hello", usage=None)
    span = ask(scripted_lm.lm(engine))
    assert used(span) == {}
    assert "dspy.lm.cost" not in span.attributes


@ENGINES
def test_the_cost_is_dspys_own_figure(scripted_lm: ScriptedLM, engine: Any) -> None:
    """The same as in DSPy's history; a model without a price has none."""
    scripted_lm.answer = lambda body: Reply("hello", usage=DETAILED)
    lm = scripted_lm.lm(engine)
    span = ask(lm)
    assert span.attributes["dspy.lm.cost"] == lm.history[-1]["cost"] > 0
    assert "dspy.lm.cost" not in ask(scripted_lm.lm(engine, model="openai/nobody-knows-this-one")).attributes


@ENGINES
def test_a_cache_hit_costs_nothing(scripted_lm: ScriptedLM, engine: Any) -> None:
    """On a hit of DSPy's cache there is no usage, no cost and no request; the response is told as it was."""
    lm = scripted_lm.lm(engine, cache=True)
    with fresh_cache():
        first, second = ask(lm).attributes, ask(lm).attributes
    assert (first["dspy.lm.cache_hit"], second["dspy.lm.cache_hit"]) == (False, True)
    for key in ("gen_ai.response.id", "gen_ai.response.model", "gen_ai.output.messages"):
        assert second[key] == first[key]
    only = {key for key in first if key not in second}
    assert only == {
        f"{USAGE}input_tokens",
        f"{USAGE}output_tokens",
        "dspy.lm.cost",
        "dspy.lm.engine",
        "dspy.lm.requests",
        "dspy.lm.retries",
    } | ({"server.address", "server.port"} & only)
    assert len(scripted_lm.requests) == 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let DSPy repeat a failed request without waiting for seconds."""
    monkeypatch.setattr("dspy.clients.execution._delay", lambda error, attempt: 0.0)


@ENGINES
@pytest.mark.usefixtures("at_once")
async def test_requests_that_are_repeated_are_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """One span for the call: how many requests, how many failed, and an event for each failed one with its error."""
    lm = scripted_lm.lm(engine, num_retries=2)
    for asynchronous in (False, True):
        scripted_lm.answer = in_turn(Reply(status=429), Reply(status=500), "at last")
        asked = len(scripted_lm.requests)
        with balanced() as trace:
            assert (await lm.acall("hi") if asynchronous else lm("hi")) == ["at last"]
        (span,) = trace.spans
        told = span.attributes
        assert (told["dspy.lm.requests"], told["dspy.lm.retries"]) == (3, 2) == (len(scripted_lm.requests) - asked, 2)
        assert [(event.name, dict(event.attributes)) for event in span.events] == [
            ("dspy.lm.attempt_failed", {"error.type": "RateLimitError"}),
            ("dspy.lm.attempt_failed", {"error.type": "ServerError"}),
        ]
        assert span.status.is_unset


@ENGINES
@pytest.mark.usefixtures("at_once")
def test_a_call_that_fails_in_the_end_says_so(scripted_lm: ScriptedLM, engine: Any) -> None:
    """The last failure is the error of the span; those before it are its events."""
    scripted_lm.answer = lambda body: Reply(status=503)
    with balanced() as trace, pytest.raises(dspy.LMError) as raised:
        scripted_lm.lm(engine, num_retries=1)("hi")
    assert trace.tree("dspy.lm.requests", "dspy.lm.retries") == (
        f"\nchat gpt-4o-mini !{type(raised.value).__name__} dspy.lm.requests=2 dspy.lm.retries=1\n"
        "  * dspy.lm.attempt_failed\n"
    )


@ENGINES
def test_an_error_that_is_not_repeated_is_one_request(scripted_lm: ScriptedLM, engine: Any) -> None:
    """A refused request is an error at once, with DSPy's own class of it."""
    scripted_lm.answer = lambda body: Reply("no such thing", status=404)
    with balanced() as trace, pytest.raises(dspy.LMError) as raised:
        scripted_lm.lm(engine)("hi")
    (span,) = trace.spans
    assert span.attributes["error.type"] == type(raised.value).__name__
    assert (span.attributes["dspy.lm.requests"], span.attributes["dspy.lm.retries"]) == (1, 0)


@ENGINES
def test_what_was_paid_for_before_an_error_is_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """Of several requests of one call the first may be answered and the second refused: its tokens were used."""
    scripted_lm.answer = in_turn(Reply("one", usage=DETAILED), then=lambda body: Reply("no more", status=400))
    with balanced() as trace, pytest.raises(dspy.LMError):
        lm = scripted_lm.lm("lm15", temperature=1.0)
        lm("hi", n=2) if engine == "lm15" else [scripted_lm.lm(engine)("hi") for _ in range(2)]
    tokens = sum(span.attributes.get(f"{USAGE}input_tokens", 0) for span in trace.spans)
    assert tokens == scripted_lm.reported.input_tokens == 100
    assert sum(span.attributes.get(f"{USAGE}reasoning.output_tokens", 0) for span in trace.spans) == 25


@ENGINES
async def test_a_streamed_response_is_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """A streamed completion says so, and has everything that another has."""
    scripted_lm.answer = lambda body: Reply("[[ ## answer ## ]]\nhello\n\n[[ ## completed ## ]]", usage=DETAILED)
    stream = dspy.streamify(
        dspy.Predict("question -> answer"), stream_listeners=[dspy.streaming.StreamListener("answer")]
    )
    with balanced(capture_content=True) as trace, dspy.context(lm=scripted_lm.lm(engine)):
        assert [chunk async for chunk in stream(question="?")]
    told = trace.one("chat gpt-4o-mini").attributes
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.id"] == "chatcmpl-1"
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert "hello" in told["gen_ai.output.messages"]
    # LiteLLM asks for no usage when it streams, and counts words of its own instead.
    assert scripted_lm.reported.requests == (1 if engine == "lm15" else 0)
    if engine == "lm15":
        assert used(trace.one("chat gpt-4o-mini"))["input_tokens"] == 100
        assert used(trace.one("chat gpt-4o-mini"))["cache_read.input_tokens"] == 60
