"""A module whose ``forward`` is a generator: its span lasts as long as the generator, in whatever way that ends."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator
from textwrap import dedent
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from opentelemetry import trace as otel
from opentelemetry.context import get_current

from tests.balanced import balanced, traces

Pieces = Generator[Any, Any, str]


class Piecewise(dspy.Module):
    """Asks, then does as it is told; notes in ``log`` how it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.say = dspy.Predict("question -> answer")
        self.log: list[str] = []

    def forward(self, question: str) -> Pieces:
        try:
            told = yield self.say(question=question).answer
            if told == "fail":
                raise RuntimeError("told to fail")
            try:
                yield told
            except LookupError:
                yield "handled"
            return "the end"
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        finally:
            self.log.append("over")


def lm() -> DummyLM:
    return DummyLM([{"answer": f"answer {index}"} for index in range(20)])


def exhausted(pieces: Pieces) -> Any:
    return list(pieces)


def returned(pieces: Pieces) -> Any:
    next(pieces), next(pieces)
    with pytest.raises(StopIteration) as stop:
        next(pieces)
    return stop.value.value


def closed(pieces: Pieces) -> Any:
    first = next(pieces)
    return first, pieces.close(), list(pieces)


def sent_to(pieces: Pieces) -> Any:
    return next(pieces), pieces.send("heard"), list(pieces)


def thrown_into(pieces: Pieces) -> Any:
    next(pieces)
    pieces.throw(ValueError("from outside"))


def thrown_into_and_handled(pieces: Pieces) -> Any:
    next(pieces), next(pieces)
    return pieces.throw(LookupError("to be handled")), list(pieces)


def failing(pieces: Pieces) -> Any:
    next(pieces)
    pieces.send("fail")


def dropped(pieces: Pieces) -> Any:
    return next(pieces)


def never_started(pieces: Pieces) -> Any:
    return inspect.getgeneratorstate(pieces), pieces.__name__, pieces.__qualname__


def closed_before_its_start(pieces: Pieces) -> Any:
    return pieces.close(), list(pieces)


def thrown_into_before_its_start(pieces: Pieces) -> Any:
    pieces.throw(ValueError("too early"))


def moved_to_another_thread(pieces: Pieces) -> Any:
    heard = [next(pieces)]
    thread = threading.Thread(target=lambda: heard.extend(pieces))
    thread.start()
    thread.join()
    return heard


ASKED = """
invoke_workflow Piecewise
  Predict say
    chat dummy
"""
CONSUMERS: dict[Callable[[Pieces], Any], str] = {
    exhausted: ASKED,
    returned: ASKED,
    closed: ASKED,
    sent_to: ASKED,
    thrown_into: ASKED.replace("Piecewise", "Piecewise !ValueError"),
    thrown_into_and_handled: ASKED,
    failing: ASKED.replace("Piecewise", "Piecewise !RuntimeError"),
    dropped: ASKED,
    never_started: "\ninvoke_workflow Piecewise\n",
    closed_before_its_start: "\ninvoke_workflow Piecewise\n",
    thrown_into_before_its_start: "\ninvoke_workflow Piecewise\n",
    moved_to_another_thread: ASKED,
}


def consume(consumer: Callable[[Pieces], Any]) -> Any:
    """Return what the consumer and the program saw."""
    program = Piecewise()
    with dspy.context(lm=lm()):
        try:
            seen = consumer(program(question="?"))
        except Exception as error:  # noqa: BLE001  # whatever it is, the traced run must raise it too
            seen = type(error), str(error)
    return seen, program.log


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.__name__)
def test_a_generator_ends_its_span_however_it_ends(consumer: Callable[[Pieces], Any]) -> None:
    """The consumer and the program see what they see untraced, and the span is closed, failed only if it failed."""
    untraced = consume(consumer)
    context = get_current()
    with balanced() as trace:
        assert consume(consumer) == untraced
        assert get_current() is context
    assert trace.tree() == CONSUMERS[consumer]


def test_the_span_ends_with_the_generator_and_not_before() -> None:
    """While a consumer may still ask for more, the span is open; its output is what came last."""
    with balanced(capture_content=True) as trace, dspy.context(lm=lm()):
        pieces = Piecewise()(question="?")
        assert trace.spans == ()
        next(pieces)
        assert [span.name for span in trace.spans] == ["chat dummy", "Predict say"]
        assert pieces.send("more") == "more"
        pieces.close()
        assert trace.one("invoke_workflow Piecewise").attributes["output.value"] == '"more"'


def test_the_span_is_current_in_the_generator_and_never_in_its_consumer() -> None:
    """What a consumer does between two steps is not beneath the generator, and its context is its own."""
    with balanced() as trace, dspy.context(lm=lm()):
        tracer = trace.provider.get_tracer("consumer")
        with tracer.start_as_current_span("consumer") as mine:
            for _ in Piecewise()(question="?"):
                assert otel.get_current_span() is mine
                with tracer.start_as_current_span("between"):
                    dspy.Predict("question -> answer")(question="mine")
            assert otel.get_current_span() is mine
    assert trace.tree() == dedent("""
        consumer
          invoke_workflow Piecewise
            Predict say
              chat dummy
          between
            invoke_workflow Predict
              chat dummy
          between
            invoke_workflow Predict
              chat dummy
    """)


class Reader(dspy.Module):
    """Consumes a generator, and asks something itself between its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = Piecewise()
        self.check = dspy.Predict("question -> answer")

    def forward(self) -> Any:
        return [self.check(question=str(piece)).answer for piece in self.pieces(question="?")]


def test_a_module_that_consumes_a_generator_keeps_its_own_calls() -> None:
    """Calls of the consumer stand beside the generator's span, sums include both."""
    with balanced() as trace, dspy.context(lm=lm()):
        Reader()()
    assert trace.tree("dspy.usage.lm_calls") == dedent("""
        invoke_workflow Reader dspy.usage.lm_calls=3
          Piecewise pieces
            Predict pieces.say
              chat dummy
          Predict check
            chat dummy
          Predict check
            chat dummy
    """)


def test_generators_that_take_turns_do_not_mix() -> None:
    """Two generators stepped in turn are two traces, each with its own calls; contexts are restored after each step."""
    with balanced() as trace, dspy.context(lm=lm()):
        context = get_current()
        one, two = Piecewise()(question="one"), Piecewise()(question="two")
        for pieces in (one, two, one, two):
            next(pieces)
            assert get_current() is context
        one.close(), two.close()
    assert trace.tree() == ASKED + ASKED.lstrip("\n")
    assert traces(trace) == 2
