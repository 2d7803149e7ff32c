"""A small but real DSPy program, and the LM it talks to: what `dspy-trace demo` traces.

It finds the customer's order by a model and two tools, one of which fails and is done without; judges what the
handbook says, in parallel; sorts the question, twice, so that DSPy's cache answers once; and streams its answer. A
model of 135 million parameters does not keep to DSPy's chat format: where it is asked so, the demo shows a fallback
that is real.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, cast

import dspy

from dspy_trace.demo.lm_server import LMServer

QUESTION = "My card was charged twice for one lamp, order 1042. What should I do?"

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

ORDERS = {1042: "one desk lamp, 39.00 EUR, paid by card"}


class Extract(dspy.Signature):
    """Find the order number in a customer's question."""

    question: str = dspy.InputField()
    order: int = dspy.OutputField()


class Judge(dspy.Signature):
    """Decide whether a rule helps the customer."""

    question: str = dspy.InputField()
    rule: str = dspy.InputField()
    helps: bool = dspy.OutputField()


class Triage(dspy.Signature):
    """Sort a customer's question."""

    question: str = dspy.InputField()
    topic: Literal["billing", "delivery", "account"] = dspy.OutputField()


class Reply(dspy.Signature):
    """Write to the customer what will happen, in one sentence."""

    question: str = dspy.InputField()
    order: str = dspy.InputField()
    rules: list[str] = dspy.InputField()
    advice: str = dspy.OutputField()


SCRIPT = {
    "`[[ ## order ## ]]`": {"order": 1042},
    "`order`": {"order": 1042},
    "`helps`": {"helps": True},
    "`topic`": {"topic": "billing"},
    "`advice`": {"reasoning": "The rule says so.", "advice": "Your card is refunded within three days."},
}
"""What the scripted LM answers, by what the end of a prompt asks for. It never writes in DSPy's chat format either."""


class Handbook(dspy.Retrieve):
    """Find the sentences of the handbook that share the most words with the query."""

    def forward(self, query: str, k: int | None = None, **_: Any) -> dspy.Prediction:
        """Return the best `k` sentences as `passages`, the best first."""
        wanted = _words(query)
        ranked = sorted(HANDBOOK, key=lambda sentence: -len(wanted & _words(sentence)))
        return dspy.Prediction(passages=ranked[: k or self.k])


def find_order(number: int) -> str:
    """Return what was ordered."""
    return ORDERS.get(number, "no such order")


def track_parcel(number: int) -> str:
    """Ask the carrier where a parcel is. It is down, as carriers are."""
    raise TimeoutError(f"the carrier did not answer for order {number}")


class OrderDesk(dspy.Module):
    """Look an order up: a model finds its number, tools take it from there."""

    def __init__(self) -> None:
        super().__init__()
        self.extract = dspy.Predict(Extract)
        self.find = dspy.Tool(find_order)
        self.track = dspy.Tool(track_parcel)

    def forward(self, question: str) -> str:
        """Return what is known of the order."""
        with dspy.context(adapter=dspy.ChatAdapter()):
            number = self.extract(question=question).order
        order = str(self.find(number=number))
        try:
            return f"{order}; {self.track(number=number)}"
        except TimeoutError:
            return order


class Archive(dspy.Module):
    """File a question under its topic, which it asks for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.triage = dspy.Predict(Triage)

    def forward(self, question: str) -> str:
        """Return where it is filed."""
        return f"{self.triage(question=question).topic}/{len(question)}"


class HelpDesk(dspy.Module):
    """Look an order and the rules up, sort the question, answer it."""

    def __init__(self) -> None:
        super().__init__()
        self.orders = OrderDesk()
        self.handbook = Handbook(k=2)
        self.judge = dspy.Predict(Judge)
        self.triage = dspy.Predict(Triage)
        self.reply = dspy.ChainOfThought(Reply)
        self.archive = Archive()

    def forward(self, question: str) -> dspy.Prediction:
        """Return `topic`, `answer` and the `rules` that the answer was made from."""
        order = self.orders(question)
        # DSPy lets a retriever return a list as well, and its annotation says so.
        found = cast("dspy.Prediction", self.handbook(question)).passages
        judge = dspy.Parallel(num_threads=2, disable_progress_bar=True)
        verdicts = judge([(self.judge, {"question": question, "rule": rule}) for rule in found])
        rules = [rule for rule, verdict in zip(found, verdicts, strict=True) if verdict.helps] or found
        topic = self.triage(question=question).topic
        answer = self.reply(question=question, order=order, rules=rules).advice
        self.archive(question)
        return dspy.Prediction(topic=topic, answer=answer, rules=rules)


def lm_for(server: LMServer) -> dspy.LM:
    """Make the LM that asks `server`: greedy and short.

    Declares the server to DSPy as a provider that honours a JSON schema: without that, DSPy sends none and the
    JSON fallback may fail as well. DSPy before 3.4 knows no such declaration: there the server is a plain
    OpenAI-compatible one.
    """
    options: dict[str, Any] = {
        "api_base": server.base_url,
        "api_key": "none",  # the server asks for none; DSPy's OpenAI route refuses to go without
        "temperature": 0.0,
        "max_tokens": 120,
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
    """Make DSPy's scripted LM, for where there is no real one. It answers by what it is asked for, from no cache."""
    from dspy.utils import DummyLM

    return DummyLM(SCRIPT, adapter=dspy.JSONAdapter())


def build(lm: dspy.BaseLM) -> HelpDesk:
    """Make the program, with `lm` for all that it predicts. Changes no DSPy setting."""
    program = HelpDesk()
    program.set_lm(lm)
    return program


def ask(program: dspy.Module, question: str = QUESTION, tell: Callable[[str], Any] | None = None) -> dspy.Prediction:
    """Ask the program one question.

    Args:
        program: what :func:`build` has made.
        question: what to ask.
        tell: takes the answer piece by piece, as the LM writes it.
    """
    listener = dspy.streaming.StreamListener(signature_field_name="advice")
    stream: Any = dspy.streamify(program, stream_listeners=[listener], async_streaming=False)
    answer = None
    with dspy.context(adapter=dspy.JSONAdapter()):
        for item in stream(question=question):
            if isinstance(item, dspy.Prediction):
                answer = item
            elif isinstance(item, dspy.streaming.StreamResponse) and tell is not None:
                tell(item.chunk)
    assert answer is not None
    return answer


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{3,}", text.lower()))
