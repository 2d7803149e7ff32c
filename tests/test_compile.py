"""Optimizers: a compile is one span with its evaluations; every rollout of a program is a trace linked to it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from textwrap import dedent
from typing import Any

import dspy
import pytest
from dspy.teleprompt import AvatarOptimizer, Teleprompter

from dspy_trace.testing import Recording
from tests.balanced import balanced, traces
from tests.parts.scripted_lm import ScriptedLM


class QA(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return self.ask(question=question)


def example(question: str) -> dspy.Example:
    return dspy.Example(question=question, answer="0").with_inputs("question")


TRAINSET = [example("a"), example("b")]


def metric(gold: Any, predicted: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> float:
    return 1.0 if gold.question == "a" else 0.0


def with_feedback(gold: Any, predicted: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
    return dspy.Prediction(score=0.5, feedback="write more")


def gepa(lm: Any) -> Any:
    optimizer = dspy.GEPA(
        metric=with_feedback, max_metric_calls=6, reflection_lm=lm, num_threads=2, reflection_minibatch_size=1
    )
    return optimizer.compile(QA(), trainset=TRAINSET, valset=[example("c")])


def simba(lm: Any) -> Any:
    optimizer = dspy.SIMBA(metric=metric, bsize=2, num_candidates=2, max_steps=1, max_demos=1, num_threads=2)
    return optimizer.compile(QA(), trainset=TRAINSET, seed=1)


def random_search(lm: Any) -> Any:
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=metric, num_candidate_programs=1, max_bootstrapped_demos=1, max_labeled_demos=1, num_threads=2
    )
    return optimizer.compile(QA(), trainset=TRAINSET)


def copro(lm: Any) -> Any:
    options = {"num_threads": 1, "display_progress": False}
    return dspy.COPRO(metric=metric, breadth=2, depth=1).compile(QA(), trainset=TRAINSET, eval_kwargs=options)


def run(server: ScriptedLM, optimize: Any, **kwargs: Any) -> Recording:
    """Compile with the scripted LM and return the trace."""
    lm = server.lm()
    with balanced(**kwargs) as trace, dspy.context(lm=lm):
        optimize(lm)
    return trace


def roots(trace: Recording) -> Counter[str]:
    """Return how many roots there are of each name, with what they are linked to: ``root <- linked``."""
    names = {span.context.span_id: span.name for span in trace.spans}
    found: Counter[str] = Counter()
    for span in trace.spans:
        links = [names[link.context.span_id] for link in span.links]
        if span.parent is None:
            found[f"{span.name} <- {', '.join(links)}"] += 1
    return found


def test_bootstrap_runs_its_rollouts_as_traces(scripted_lm: ScriptedLM) -> None:
    """BootstrapFewShot calls program and metric itself: each program call is a trace, linked to the compile."""

    def bootstrap(lm: Any) -> Any:
        return dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=1).compile(
            QA(), trainset=TRAINSET
        )

    trace = run(scripted_lm, bootstrap)
    assert trace.tree() == dedent("""
        compile BootstrapFewShot
          compile LabeledFewShot
        invoke_workflow QA (linked)
          Predict ask
            chat gpt-4o-mini
        invoke_workflow QA (linked)
          Predict ask
            chat gpt-4o-mini
    """)
    assert traces(trace) == 3
    told = trace.one("compile BootstrapFewShot").attributes
    assert told["dspy.compile.optimizer"] == "BootstrapFewShot"
    assert (told["dspy.compile.program"], told["dspy.compile.trainset"], told["dspy.usage.lm_calls"]) == ("QA", 2, 2)


def test_optimizers_inside_an_optimizer_are_beneath_it(scripted_lm: ScriptedLM) -> None:
    """A random search compiles and evaluates: all of that is one tree, and each example is linked to its evaluation."""
    trace = run(scripted_lm, random_search)
    tree = trace.tree(events=False)
    assert tree.startswith("""
compile BootstrapFewShotWithRandomSearch
  evaluate QA
  compile LabeledFewShot
  evaluate QA
  compile BootstrapFewShot
    compile LabeledFewShot
  evaluate QA
  compile BootstrapFewShot
    compile LabeledFewShot
  evaluate QA
""")
    assert roots(trace) == {
        "compile BootstrapFewShotWithRandomSearch <- ": 1,
        "evaluate_example QA <- evaluate QA": 8,
        "invoke_workflow QA <- compile BootstrapFewShot": 2,
    }


def test_simba_is_a_trace_for_each_rollout(scripted_lm: ScriptedLM) -> None:
    """SIMBA runs ``dspy.Parallel`` over program and example: rollouts, with their scores, linked to the compile."""
    trace = run(scripted_lm, simba, capture_content=True)
    assert set(roots(trace)) == {"compile SIMBA <- ", "evaluate_example QA <- compile SIMBA"}
    for span in trace.named("evaluate_example QA"):
        question = json.loads(span.attributes["input.value"])["question"]
        assert [event.attributes["gen_ai.evaluation.score.value"] for event in span.events] == [float(question == "a")]
        assert "answer" in json.loads(span.attributes["output.value"])


def test_gepa_is_a_trace_for_each_example(scripted_lm: ScriptedLM) -> None:
    """GEPA's programs return ``(prediction, trace)`` inside: the prediction is told, and nothing of the rest."""
    trace = run(scripted_lm, gepa, capture_content=True)
    found = roots(trace)
    assert found.pop("compile GEPA <- ") == 1
    assert set(found) == {"evaluate_example QA <- evaluate QA", "invoke_workflow Predict <- compile GEPA"}
    for span in [*trace.named("evaluate_example QA"), *trace.named("invoke_workflow QA"), *trace.named("Predict ask")]:
        assert list(json.loads(span.attributes["output.value"])) == ["answer"]
    scored = [span.events[0].attributes for span in trace.named("evaluate_example QA")]
    assert {told["gen_ai.evaluation.score.value"] for told in scored} == {0.5}


@pytest.mark.parametrize("optimize", [gepa, simba, random_search, copro], ids=lambda function: function.__name__)
def test_a_compile_sums_up_all_that_it_caused(scripted_lm: ScriptedLM, optimize: Any) -> None:
    """The sums of the compile are what the server reported, though most calls are in other traces."""
    trace = run(scripted_lm, optimize)
    (outermost,) = (span for span in trace.spans if span.name.startswith("compile") and span.parent is None)
    reported = scripted_lm.reported
    told = outermost.attributes
    assert told["dspy.usage.lm_calls"] == reported.requests > 0
    assert told["dspy.usage.input_tokens"] == reported.input_tokens
    assert told["dspy.usage.output_tokens"] == reported.output_tokens


def same_program(one: Any, other: Any) -> bool:
    return json.dumps(one.dump_state(), default=str) == json.dumps(other.dump_state(), default=str)


@pytest.mark.parametrize("optimize", [gepa, simba, random_search, copro], ids=lambda function: function.__name__)
def test_an_optimizer_finds_what_it_finds_untraced(scripted_lm: ScriptedLM, optimize: Any) -> None:
    """The compiled program is the same, traced or not."""
    lm = scripted_lm.lm()
    with dspy.context(lm=lm):
        untraced = optimize(lm)
    with balanced(capture_content=True), dspy.context(lm=lm):
        traced = optimize(lm)
    assert same_program(traced, untraced)


class Own(Teleprompter):
    """A program's own optimizer."""

    def compile(self, student: Any, *, trainset: Any) -> Any:
        dspy.settings.lm("Write a better instruction.")
        for gold in trainset:
            student(**gold.inputs())
        if len(trainset) > 2:
            raise RuntimeError("too much to learn")
        return student


class Derived(Own):
    def compile(self, student: Any, *, trainset: Any) -> Any:
        return super().compile(student, trainset=trainset)


def test_a_programs_own_optimizer_is_one_span(scripted_lm: ScriptedLM) -> None:
    """``super().compile()`` is not a second compile; the LM calls that an optimizer makes itself stay beneath it."""
    trace = run(scripted_lm, lambda lm: Derived().compile(QA(), trainset=TRAINSET))
    rollout = "invoke_workflow QA (linked)\n  Predict ask\n    chat gpt-4o-mini\n"
    assert trace.tree() == f"\ncompile Derived\n  chat gpt-4o-mini\n{rollout * 2}"


def test_a_compile_that_fails_says_so(scripted_lm: ScriptedLM) -> None:
    """The error passes through, and what was done until then is there."""
    failure = pytest.raises(RuntimeError, match="too much to learn")
    with failure, balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        Own().compile(QA(), trainset=TRAINSET * 2)
    assert trace.tree().startswith("\ncompile Own !RuntimeError\n  chat gpt-4o-mini\ninvoke_workflow QA (linked)")
    assert traces(trace) == 5


def test_compiles_can_be_left_out(scripted_lm: ScriptedLM) -> None:
    """With ``log_traces_from_compile=False`` nothing beneath a compile is traced; calls beside and after it are."""
    program = QA()
    go, done = threading.Event(), threading.Event()

    def live() -> None:
        go.wait(30)
        with dspy.context(lm=lm):
            program(question="live")
        done.set()

    def waiting(*args: Any, **kwargs: Any) -> Any:
        go.set()
        done.wait(30)
        return with_feedback(*args, **kwargs)

    lm, thread = scripted_lm.lm(), threading.Thread(target=live)
    with balanced(log_traces_from_compile=False) as trace, dspy.context(lm=lm):
        thread.start()
        dspy.GEPA(metric=waiting, max_metric_calls=4, reflection_lm=lm, num_threads=2).compile(
            QA(), trainset=TRAINSET, valset=TRAINSET
        )
        thread.join()
        program(question="after")
        dspy.Evaluate(devset=TRAINSET, metric=metric, num_threads=2)(program)
    assert len(trace.named("chat gpt-4o-mini")) == 4
    assert trace.tree().startswith(
        "\n" + "invoke_workflow QA\n  Predict ask\n    chat gpt-4o-mini\n" * 2 + "evaluate QA"
    )


def test_evaluations_inside_a_compile_can_be_left_out(scripted_lm: ScriptedLM) -> None:
    """With ``log_traces_from_eval=False`` a compile keeps what it does itself, and counts the rest."""
    trace = run(scripted_lm, gepa, log_traces_from_eval=False)
    assert set(roots(trace)) == {"compile GEPA <- ", "invoke_workflow Predict <- compile GEPA"}
    assert trace.one("compile GEPA").attributes["dspy.usage.input_tokens"] == scripted_lm.reported.input_tokens


def test_avatar_optimizer_does_not_run_on_any_dspy_that_is_supported() -> None:
    """Its thread pool, which carries no context, needs no row of the table as long as DSPy cannot even make it."""
    with pytest.raises(AttributeError, match="TypedPredictor"):
        AvatarOptimizer(metric=metric)


def test_a_share_of_a_compile_can_be_traced(scripted_lm: ScriptedLM) -> None:
    """Rollouts are traced whole or not at all, and counted in any case; evaluations outside are left alone."""
    trace = run(scripted_lm, random_search, log_traces_from_compile=0.0001)
    assert trace.named("chat gpt-4o-mini") == []
    told = trace.one("compile BootstrapFewShotWithRandomSearch").attributes
    assert told["dspy.usage.lm_calls"] == scripted_lm.reported.requests
    with balanced(log_traces_from_compile=0.0001) as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.Evaluate(devset=TRAINSET, metric=metric, num_threads=1)(QA())
    assert len(trace.named("evaluate_example QA")) == 2
    with pytest.raises(ValueError, match="share from"):
        run(scripted_lm, random_search, log_traces_from_compile=1.5)
