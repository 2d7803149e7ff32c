"""``dspy.Evaluate``: one span for the evaluation, and for each example a trace of its own that is linked to it."""

from __future__ import annotations

import threading
from textwrap import dedent
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM
from dspy.utils.parallelizer import ParallelExecutor
from opentelemetry.sdk.trace import ReadableSpan

from dspy_trace.testing import Recording
from tests.balanced import balanced, traces

INDEX = "dspy.evaluate.example.index"


class QA(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        if question == "broken":
            raise ValueError("cannot answer")
        return self.ask(question=question)


def lm() -> DummyLM:
    return DummyLM([{"answer": str(index)} for index in range(500)])


def example(question: str) -> dspy.Example:
    return dspy.Example(question=question, answer="0").with_inputs("question")


def not_empty(gold: Any, predicted: Any, trace: Any = None) -> float:
    return 0.5


def evaluate(questions: list[Any], threads: int = 1, metric: Any = not_empty, program: Any = None) -> Any:
    devset = [example(item) if isinstance(item, str) else item for item in questions]
    evaluator = dspy.Evaluate(devset=devset, metric=metric, num_threads=threads, display_progress=False)
    return evaluator(program or QA())


def indices(spans: list[ReadableSpan]) -> list[Any]:
    return sorted(span.attributes[INDEX] for span in spans)


def linked(trace: Recording, name: str, to: ReadableSpan) -> bool:
    """Return whether all spans of that name are roots with a link to the span `to`."""
    return all(
        span.parent is None and [link.context.span_id for link in span.links] == [to.context.span_id]
        for span in trace.named(name)
    )


EXAMPLE = """evaluate_example QA (linked) {index}
  * gen_ai.evaluation.result
  invoke_workflow QA
    Predict ask
      chat dummy
"""


def test_each_example_is_a_trace_with_a_link() -> None:
    """Index, score and sums stand on the example, the whole score and the whole sums on the evaluation."""
    with balanced() as trace, dspy.context(lm=lm()):
        assert evaluate(["a", "b"]).score == 50.0
    assert trace.tree(INDEX).replace(f"{INDEX}=", "") == "\nevaluate QA\n" + "".join(
        EXAMPLE.format(index=index) for index in range(2)
    )
    assert traces(trace) == 3
    whole = trace.one("evaluate QA")
    assert linked(trace, "evaluate_example QA", whole)
    told = {key: value for key, value in whole.attributes.items() if key.startswith("dspy.")}
    assert told == {
        "dspy.evaluate.program": "QA",
        "dspy.evaluate.metric": "not_empty",
        "dspy.evaluate.examples": 2,
        "dspy.evaluate.threads": 1,
        "dspy.evaluate.score": 50.0,
        "dspy.usage.lm_calls": 2,
        "dspy.usage.cache_hits": 0,
        "dspy.usage.input_tokens": 0,
        "dspy.usage.output_tokens": 0,
    }
    event = trace.named("evaluate_example QA")[0].events[0]
    assert dict(event.attributes) == {"gen_ai.evaluation.name": "not_empty", "gen_ai.evaluation.score.value": 0.5}


def test_many_threads_are_the_same() -> None:
    """With eight threads there is one trace for each example as well, and every index once."""
    with balanced() as trace, dspy.context(lm=lm()):
        evaluate([str(index) for index in range(40)], threads=8)
    examples = trace.named("evaluate_example QA")
    assert indices(examples) == list(range(40))
    assert linked(trace, "evaluate_example QA", trace.one("evaluate QA"))
    assert traces(trace) == 41
    assert trace.one("evaluate QA").attributes["dspy.usage.lm_calls"] == 40
    assert {span.attributes["dspy.usage.lm_calls"] for span in examples} == {1}


@pytest.mark.parametrize("threads", [1, 4])
def test_one_example_object_may_stand_in_a_devset_several_times(threads: int) -> None:
    """Each place is a run with an index of its own, and none counts as resubmitted."""
    same, other = example("same"), example("other")
    with balanced() as trace, dspy.context(lm=lm()):
        evaluate([same, other, same, same], threads)
    examples = trace.named("evaluate_example QA")
    assert indices(examples) == [0, 1, 2, 3]
    assert not [span for span in examples if "dspy.evaluate.resubmitted" in span.attributes]


def test_a_failing_example_is_a_failed_trace() -> None:
    """DSPy scores it 0 and goes on; its spans say what failed, and it has no score."""
    with balanced(capture_content=True) as trace, dspy.context(lm=lm()):
        assert evaluate(["a", "broken"]).score == 25.0
    assert trace.tree(INDEX).replace(f"{INDEX}=", "") == (
        "\nevaluate QA\n"
        + EXAMPLE.format(index=0)
        + "evaluate_example QA (linked) !ValueError 1\n  invoke_workflow QA !ValueError\n"
    )
    failed = trace.named("evaluate_example QA")[1]
    assert failed.attributes["input.value"] == '{"question":"broken","answer":"0"}'
    assert "cannot answer" in failed.status.description


def test_what_a_metric_calls_is_beneath_its_example() -> None:
    """An LM as judge is a part of the example's trace; a metric that raises fails the example, not the program."""
    judge = dspy.Predict("question, answer -> good: bool")

    def judged(gold: Any, predicted: Any, trace: Any = None) -> bool:
        verdict = judge(question=gold.question, answer=predicted.answer, lm=DummyLM([{"good": "True"}])).good
        if gold.question == "odd":
            raise ArithmeticError("no verdict")
        return verdict

    with balanced() as trace, dspy.context(lm=lm()):
        assert evaluate(["a", "odd"], metric=judged).score == 50.0
    calls = "  invoke_workflow QA\n    Predict ask\n      chat dummy\n  invoke_workflow Predict\n    chat dummy\n"
    assert trace.tree() == (
        f"\nevaluate QA\nevaluate_example QA (linked)\n  * gen_ai.evaluation.result\n{calls}"
        f"evaluate_example QA (linked) !ArithmeticError\n{calls}"
    )
    assert [span.attributes["dspy.usage.lm_calls"] for span in trace.named("evaluate_example QA")] == [2, 2]


def test_a_straggler_that_dspy_runs_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs are traces of the example; the second says that it is one, the first may end after the evaluation."""
    defaults = (*ParallelExecutor.__init__.__defaults__[:-2], 0.01, 3)
    monkeypatch.setattr(ParallelExecutor.__init__, "__defaults__", defaults)
    release, first = threading.Event(), threading.Semaphore(1)

    class Slow(dspy.Module):
        def forward(self, question: str) -> Any:
            if question == "slow" and first.acquire(blocking=False):
                release.wait(30)
            return dspy.Prediction(answer="late")

    with balanced() as trace:
        evaluate(["quick", "slow"], threads=4, program=Slow())
        assert len(trace.named("evaluate_example Slow")) == 2
        release.set()
    runs = trace.named("evaluate_example Slow")
    assert indices(runs) == [0, 1, 1]
    again = [span for span in runs if span.attributes.get("dspy.evaluate.resubmitted")]
    assert indices(again) == [1]
    assert again[0] is max(runs, key=lambda span: span.start_time)
    assert linked(trace, "evaluate_example Slow", trace.one("evaluate Slow"))


def test_an_evaluation_inside_a_module_is_a_part_of_it() -> None:
    """The evaluation is beneath the module; its examples are traces of their own, and all sums are the module's too."""

    class Tuner(dspy.Module):
        def forward(self) -> Any:
            return evaluate(["a", "b"], threads=2).score

    with balanced() as trace, dspy.context(lm=lm()):
        Tuner()()
    assert trace.tree(INDEX, events=False).startswith("\ninvoke_workflow Tuner\n  evaluate QA\nevaluate_example QA")
    assert traces(trace) == 3
    assert linked(trace, "evaluate_example QA", trace.one("evaluate QA"))
    assert trace.one("invoke_workflow Tuner").attributes["dspy.usage.lm_calls"] == 2


def test_an_evaluation_inside_an_example_has_examples_of_its_own() -> None:
    """Evaluations nest: the inner one stands in the outer example's trace, its examples are linked to it alone."""

    class Outer(dspy.Module):
        def forward(self, question: str) -> Any:
            evaluate(["inner"], threads=2)
            return dspy.Prediction(answer=question)

    with balanced() as trace, dspy.context(lm=lm()):
        evaluate(["a"], threads=2, program=Outer())
    assert trace.tree(events=False) == dedent("""
        evaluate Outer
        evaluate_example Outer (linked)
          invoke_workflow Outer
            evaluate QA
        evaluate_example QA (linked)
          invoke_workflow QA
            Predict ask
              chat dummy
    """)
    assert linked(trace, "evaluate_example QA", trace.one("evaluate QA"))


def test_evaluations_can_be_left_out() -> None:
    """With ``log_traces_from_eval=False`` nothing beneath an evaluation is traced, and calls beside it are."""
    program, go, done = QA(), threading.Event(), threading.Event()

    def live() -> None:
        go.wait(30)
        with dspy.context(lm=lm()):
            program(question="live")
        done.set()

    def metric(gold: Any, predicted: Any, trace: Any = None) -> bool:
        go.set()
        return done.wait(30)

    thread = threading.Thread(target=live)
    with balanced(log_traces_from_eval=False) as trace, dspy.context(lm=lm()):
        thread.start()
        assert evaluate(["a", "b"], threads=2, metric=metric, program=program).score == 100.0
        thread.join()
        program(question="after")
    assert trace.tree() == "\n" + "invoke_workflow QA\n  Predict ask\n    chat dummy\n" * 2
