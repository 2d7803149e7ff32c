"""One program in which everything that makes tokens hard to count happens at once, on several threads."""

from __future__ import annotations

from typing import Any

import dspy

from tests.parts.scripted_answers import Answer, Body, Reply, fill, input_words
from tests.parts.scripted_lm import ScriptedLM

KINDS = ("fine", "refused", "garbled", "busy", "fine", "several", "streamed")
"""What happens to a question that begins so; the second of the same may find the first in the cache."""


class Busy(dspy.Module):
    """Asks a number of questions of each kind on eight threads, every other one through LiteLLM."""

    def __init__(self, lms: list[dspy.LM], times: int) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.lms = lms
        self.times = times

    def forward(self) -> None:
        questions = [f"{kind} {turn}" for turn in range(self.times) for kind in KINDS]
        items = [
            dspy.Example(question=one, lm=self.lms[int(one[-1]) % 2]).with_inputs("question", "lm") for one in questions
        ]
        run = dspy.Parallel(num_threads=8, disable_progress_bar=True, max_errors=len(items))
        run([(Kind(self.ask), item) for item in items])
        Kind(self.ask)(question="fine 0", lm=self.lms[0])


class Kind(dspy.Module):
    """Asks in the way that its question says."""

    def __init__(self, predict: Any) -> None:
        super().__init__()
        self.ask = predict

    def forward(self, question: str, lm: dspy.LM) -> Any:
        with dspy.context(lm=lm):
            if question.startswith("streamed"):
                return list(dspy.streamify(self.ask, async_streaming=False)(question=question))[-1]
            config = {"n": 3, "temperature": 1.0} if question.startswith("several") else {}
            return self.ask(question=question, config=config)


def run(server: ScriptedLM, times: int = 8) -> None:
    """Run it; to be called with an empty cache."""
    before, server.answer = server.answer, answers(server)
    try:
        Busy([server.lm("lm15", cache=True), server.lm("litellm", cache=True, num_retries=2)], times)()
    finally:
        server.answer = before


def answers(server: ScriptedLM) -> Answer:
    """Return what refuses, is busy at first, and answers in no format, as the question says."""

    def answer(body: Body) -> Reply | str:
        words = input_words(body)
        if "refused" in words or ("busy" in words and not any(body == one.body for one in server.requests[:-1])):
            return Reply("no", status=400 if "refused" in words else 503, headers={"Retry-After": "0.01"})
        return "garbled" if "garbled" in words and "response_format" not in body else fill(body)

    return answer
