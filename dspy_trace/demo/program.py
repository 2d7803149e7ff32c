"""A small but real DSPy program, and the LM it talks to: what `dspy-trace demo` traces.

It retrieves, sorts and answers. A model of 135 million parameters does not keep to DSPy's chat format, so that
each prediction fails to parse once and is asked again as JSON: the demo shows a fallback that is real.
"""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import dspy

from dspy_trace.demo.lm_server import LMServer

QUESTION = "My card was charged twice for one lamp. What should I do?"

PROVIDER = "llama-cpp"
"""Id under which the server is declared to DSPy (3.4 and newer)."""

HANDBOOK = (
    "A double charge on a card is refunded within three days.",
    "Invoices are sent by e-mail on the first of each month.",
    "A lamp can be returned within 30 days in its box.",
    "Parcels arrive within two working days.",
    "A parcel that is late for a week is sent again for free.",
    "A forgotten password is reset on the sign-in page.",
    "An account is closed on request within a day.",
    "The help desk answers from nine to five.",
)


class Triage(dspy.Signature):
    """Sort a customer's question."""

    question: str = dspy.InputField()
    topic: Literal["billing", "delivery", "account"] = dspy.OutputField()


class Reply(dspy.Signature):
    """Answer the customer in one short sentence."""

    context: list[str] = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Handbook(dspy.Retrieve):
    """Find the sentences of the handbook that share the most words with the query."""

    def forward(self, query: str, k: int | None = None, **_: Any) -> dspy.Prediction:
        """Return the best `k` sentences as `passages`, the best first."""
        wanted = _words(query)
        ranked = sorted(HANDBOOK, key=lambda sentence: -len(wanted & _words(sentence)))
        return dspy.Prediction(passages=ranked[: k or self.k])


class HelpDesk(dspy.Module):
    """Sort a question, look the matter up, answer it."""

    def __init__(self) -> None:
        super().__init__()
        self.handbook = Handbook(k=2)
        self.triage = dspy.Predict(Triage)
        self.reply = dspy.ChainOfThought(Reply)

    def forward(self, question: str) -> dspy.Prediction:
        """Return `topic`, `answer` and the `context` that the answer was made from."""
        # DSPy lets a retriever return a list as well, and its annotation says so.
        context = cast("dspy.Prediction", self.handbook(question)).passages
        topic = self.triage(question=question).topic
        answer = self.reply(context=context, question=question).answer
        return dspy.Prediction(topic=topic, answer=answer, context=context)


def lm_for(server: LMServer) -> dspy.LM:
    """Make the LM that asks `server`: greedy, short, never from a cache.

    Declares the server to DSPy as a provider that honours a JSON schema: without that, DSPy sends none and the
    JSON fallback may fail as well. DSPy before 3.4 knows no such declaration: there the server is a plain
    OpenAI-compatible one.
    """
    options: dict[str, Any] = {
        "api_base": server.base_url,
        "api_key": "none",  # the server asks for none; DSPy's OpenAI route refuses to go without
        "temperature": 0.0,
        "max_tokens": 160,
        "cache": False,
    }
    lm15 = getattr(dspy, "lm15", None)
    if lm15 is None:
        return dspy.LM(f"openai/{server.model}", **options)
    lm15.register_provider(
        lm15.ProviderDefinition.chat(
            # The port differs each time and goes into the LM, so that declaring again declares the same.
            lm15.AccessPolicy(provider=PROVIDER, base_url="http://127.0.0.1/v1"),
            compat=lm15.OpenAIChatCompat.preset("vllm"),
        ),
        supports=lm15.ModelSupport(response_schema=True),
    )
    return dspy.LM(f"{PROVIDER}/{server.model}", **options)


def scripted_lm() -> dspy.BaseLM:
    """Make DSPy's scripted LM, for where there is no real one."""
    from dspy.utils import DummyLM

    return DummyLM([{"topic": "billing"}, {"reasoning": "It says so.", "answer": "It is refunded within three days."}])


def build(lm: dspy.BaseLM) -> HelpDesk:
    """Make the program, with `lm` for all that it predicts. Changes no DSPy setting."""
    program = HelpDesk()
    program.set_lm(lm)
    return program


def ask(program: dspy.Module, question: str = QUESTION) -> dspy.Prediction:
    """Ask the program one question. Takes 5 to 10 s on a quiet machine."""
    return program(question=question)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))
