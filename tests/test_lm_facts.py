"""What an LM span says of the request: model, provider, operation, parameters; and what it must never say."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from dspy_trace.testing import Recording
from tests.balanced import balanced
from tests.parts.scripted_answers import Body, Reply
from tests.parts.scripted_lm import ScriptedLM

SECRET = "sk-do-not-tell"


class Echo:
    """An engine of the program's own: answers without a network."""

    def complete(self, request: lm15.Request) -> lm15.Response:
        usage = lm15.Usage(input_tokens=3, output_tokens=2)
        return lm15.Response("r-1", request.model, lm15.Message.assistant("hello"), "stop", usage)

    def close(self) -> None:
        pass


def ask(lm: Any, *args: Any, **kwargs: Any) -> ReadableSpan:
    """Call `lm` and return the span of it, the only one."""
    with balanced(capture_content=True) as trace:
        lm(*(args or ("hi",)), **kwargs)
    (span,) = trace.spans
    return span


def everything(trace: Recording) -> str:
    """Return all that the spans say, as one text."""
    return "\n".join(span.to_json() for span in trace.spans)


MODELS = {
    "openai/gpt-4o-mini": ("openai", "gpt-4o-mini"),
    "gpt-4o-mini": ("openai", "gpt-4o-mini"),
    "anthropic/claude-sonnet-4-5": ("anthropic", "claude-sonnet-4-5"),
    "azure/my-deployment": ("azure.ai.openai", "my-deployment"),
    "azure_ai/mistral-large": ("azure.ai.inference", "mistral-large"),
    "bedrock/anthropic.claude-3-haiku-20240307-v1:0": ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0"),
    "gemini/gemini-2.5-flash": ("gcp.gemini", "gemini-2.5-flash"),
    "vertex_ai/gemini-2.5-pro": ("gcp.vertex_ai", "gemini-2.5-pro"),
    "mistral/mistral-small-latest": ("mistral_ai", "mistral-small-latest"),
    "xai/grok-4": ("x_ai", "grok-4"),
    "watsonx/ibm/granite-3-8b-instruct": ("ibm.watsonx.ai", "ibm/granite-3-8b-instruct"),
    "moonshot/kimi-k2": ("moonshot_ai", "kimi-k2"),
    "cohere_chat/command-r": ("cohere", "command-r"),
    "cohere/command-r": ("cohere", "command-r"),
    "groq/llama-3.1-8b-instant": ("groq", "llama-3.1-8b-instant"),
    "deepseek/deepseek-chat": ("deepseek", "deepseek-chat"),
    "perplexity/sonar": ("perplexity", "sonar"),
    "openrouter/meta-llama/llama-3-8b": ("openrouter", "meta-llama/llama-3-8b"),
    "ollama_chat/llama3.2:1b": ("ollama_chat", "llama3.2:1b"),
}


@pytest.mark.parametrize("model", MODELS)
def test_model_and_provider_are_told_in_the_conventions_spelling(model: str) -> None:
    """The provider is the convention's word where it has one, else the prefix; the model is what stands behind it."""
    provider, name = MODELS[model]
    span = ask(dspy.LM(model, engine=Echo(), cache=False))
    assert span.name == f"chat {name}"
    assert span.kind is SpanKind.CLIENT
    assert (span.attributes["gen_ai.provider.name"], span.attributes["gen_ai.request.model"]) == (provider, name)
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert (span.attributes["dspy.lm.class"], span.attributes["dspy.lm.engine"]) == ("LM", "custom")


def requested(span: ReadableSpan) -> dict[str, Any]:
    """Return what a span says of the request's parameters, without their common prefix."""
    return {
        key.removeprefix("gen_ai.request."): value
        for key, value in span.attributes.items()
        if key.startswith("gen_ai.request.") and key != "gen_ai.request.model"
    }


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
def test_request_parameters_are_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """Those of the LM and those of the call, which go before; one that is not set is not told."""
    lm = scripted_lm.lm(engine, temperature=0.9, max_tokens=100, top_p=0.5, seed=7)
    span = ask(lm, temperature=0.2, stop=["END", "STOP"], frequency_penalty=0.1, presence_penalty=0.3, n=2)
    assert requested(span) == {
        "temperature": 0.2,
        "max_tokens": 100,
        "top_p": 0.5,
        "seed": 7,
        "stop_sequences": ("END", "STOP"),
        "frequency_penalty": 0.1,
        "presence_penalty": 0.3,
        "choice.count": 2,
    }
    assert requested(ask(scripted_lm.lm(engine, temperature=None, max_tokens=None))) == {}


def test_a_reasoning_models_parameters_are_told(scripted_lm: ScriptedLM) -> None:
    """Reasoning models take other names for the same things."""
    lm = scripted_lm.lm(model="openai/o4-mini", temperature=1.0, max_tokens=20_000, reasoning_effort="low")
    assert requested(ask(lm)) == {"temperature": 1.0, "max_tokens": 20_000, "reasoning.level": "low"}


def test_a_json_answer_that_is_asked_for_is_told(scripted_lm: ScriptedLM) -> None:
    """``gen_ai.output.type`` is ``json`` where the request asks for JSON, and absent where it does not."""
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.Predict("question -> answer")(question="?")
        with dspy.context(adapter=dspy.JSONAdapter()):
            dspy.Predict("question -> answer")(question="?")
    chats = trace.named("chat gpt-4o-mini")
    assert [chat.attributes.get("gen_ai.output.type") for chat in chats] == [None, "json"]


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
def test_no_credential_is_told(scripted_lm: ScriptedLM, engine: Any) -> None:
    """Whatever is not on the list of parameters stays where it is: keys, headers, bodies, unknown options."""
    extra = {"extra_headers": {"X-Token": SECRET}, "extra_body": {"token": SECRET}} if engine == "litellm" else {}
    lm = scripted_lm.lm(engine, api_key=SECRET, user=SECRET, **extra)
    with balanced(capture_content=True, detail="full") as trace, dspy.context(lm=lm):
        program = dspy.ChainOfThought("question -> answer")
        program(question="?")
        program(question="?", config={"user": f"{SECRET}-2", "temperature": 0.5})
        dspy.settings.lm("plainly", api_key=f"{SECRET}-3")
        scripted_lm.answer = lambda body: Reply("no", status=400)
        with pytest.raises(dspy.LMError):
            program(question="?")
    assert any(SECRET in value for value in scripted_lm.requests[0].headers.values())
    assert len(trace.named("chat gpt-4o-mini")) == 4
    assert SECRET not in everything(trace)


def server(span: ReadableSpan) -> tuple[Any, Any]:
    return span.attributes.get("server.address"), span.attributes.get("server.port")


def port(scripted_lm: ScriptedLM) -> int:
    return int(scripted_lm.url.split(":")[2].partition("/")[0])


@pytest.mark.parametrize("engine", ["lm15", "litellm"])
@pytest.mark.parametrize("name", ["api_base", "base_url"])
async def test_the_server_is_told(scripted_lm: ScriptedLM, engine: Any, name: str) -> None:
    """Host and port are those that are called, by both of DSPy's engines, synchronously or not."""
    lm = scripted_lm.lm(engine)
    lm.kwargs[name] = lm.kwargs.pop("api_base")
    with balanced() as trace:
        lm("hi")
        await lm.acall("hi")
    for span in trace.spans:
        assert server(span) == ("127.0.0.1", port(scripted_lm))
        assert span.attributes["dspy.lm.engine"] == engine


def test_the_server_of_a_declared_provider_is_told(scripted_lm: ScriptedLM) -> None:
    """DSPy alone knows where a provider that is declared to it is: the address is that of the request."""
    access = lm15.AccessPolicy(provider="acme", base_url=scripted_lm.url)
    lm15.register_provider(lm15.ProviderDefinition.chat(access, compat=lm15.OpenAIChatCompat.preset("vllm")))
    span = ask(dspy.LM("acme/tiny", api_key=SECRET, cache=False))
    assert server(span) == ("127.0.0.1", port(scripted_lm))
    assert (span.name, span.attributes["gen_ai.provider.name"]) == ("chat tiny", "acme")


def test_the_server_is_told_without_its_credentials(scripted_lm: ScriptedLM) -> None:
    """Of an address, host and port are told and nothing else."""
    lm = scripted_lm.lm("litellm", api_base=f"http://me:{SECRET}@127.0.0.1:{port(scripted_lm)}/v1?key={SECRET}")
    with balanced(capture_content=True) as trace, suppress(dspy.LMError):
        lm("hi", num_retries=0)
    assert server(trace.spans[0]) == ("127.0.0.1", port(scripted_lm))
    assert SECRET not in everything(trace)


def test_a_text_completion_is_told_as_one(scripted_lm: ScriptedLM) -> None:
    """``model_type="text"`` is the operation ``text_completion``."""
    span = ask(scripted_lm.lm(model="openai/gpt-3.5-turbo-instruct", model_type="text"))
    assert span.name == "text_completion gpt-3.5-turbo-instruct"
    assert span.attributes["gen_ai.operation.name"] == "text_completion"
    assert span.attributes["dspy.lm.engine"] == "litellm"
    assert scripted_lm.requests[0].path.endswith("/v1/completions")
    assert span.attributes["gen_ai.usage.input_tokens"] == scripted_lm.reported.input_tokens


def test_an_explicit_request_is_told_as_it_is_sent(scripted_lm: ScriptedLM) -> None:
    """A typed request of lm15's brings its own parameters and tools; those of the LM do not apply to it."""
    config = lm15.Config(temperature=0.25, max_tokens=64, top_p=0.5, seed=5, stop=("END",))
    tool = lm15.FunctionTool("look_up", "Look it up.", {"type": "object", "properties": {"place": {"type": "string"}}})
    request = lm15.Request("openai/gpt-4o-mini", (lm15.Message.user("Where?"),), "Be short.", (tool,), config)
    span = ask(scripted_lm.lm(temperature=1.0, frequency_penalty=1.5), request)
    sent: Body = scripted_lm.requests[0].body
    assert (sent["temperature"], "frequency_penalty" in sent) == (0.25, False)
    assert requested(span) == {
        "temperature": 0.25,
        "max_tokens": 64,
        "top_p": 0.5,
        "seed": 5,
        "stop_sequences": ("END",),
    }
    assert '"content":"Be short."' in span.attributes["gen_ai.input.messages"]
    assert '"content":"Where?"' in span.attributes["gen_ai.input.messages"]
    assert '"name":"look_up"' in span.attributes["gen_ai.tool.definitions"]
    assert '"name":"look_up"' in span.attributes["gen_ai.output.messages"]
