"""``log_evals``: each evaluation is a run, told of in records that the worker process writes into MLflow."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import dspy
import numpy
import pytest

import dspy_trace
from tests.outlets import Kept, dummy, environment, kept
from tests.runs import QA, Told, exact, example, runs, tree

__all__ = ["kept"]

DEVSET = [example("one", "yes"), example("two", "no"), example("broken")]


def evaluate(devset: Any = DEVSET, metric: Any = exact, program: Any = None, **options: Any) -> Any:
    options = {"num_threads": 2, "display_progress": False, **options}
    with dspy.context(lm=dummy()):
        return dspy.Evaluate(devset=devset, metric=metric, **options)(program or QA())


@pytest.fixture
def logged(kept: Kept) -> Any:
    """Log evaluations, and stop at the end."""
    dspy_trace.autolog(log_evals=True)
    yield kept
    dspy_trace.autolog(disable=True)


def only(kept: Kept) -> Told:
    (run,) = runs(kept)
    return run


def test_an_evaluation_is_a_run(logged: Kept) -> None:
    """Program, signature, version, metric and threads; score, failures, usage and time; devset and state."""
    assert evaluate().score == 33.33
    run = only(logged)
    assert tree([run]) == "\nevaluate QA 33.33\n"
    assert (run.uri, run.status, run.kind) == (logged.uri, "FINISHED", "evaluation")
    wanted = {"program": "QA", "signature": "question -> answer", "metric": "exact", "examples": "3"}
    assert wanted.items() <= run.params.items()
    assert {"num_threads": "2", "lm.model": "dummy", "dspy_version": dspy.__version__}.items() <= run.params.items()
    assert len(run.params["program_version"]) == 16
    told = {name: values for name, values in run.metrics.items() if name != "seconds"}
    zeros = {name: [(0, 0)] for name in ("usage_cache_hits", "usage_input_tokens", "usage_output_tokens")}
    assert told == {"eval": [(0, 33.33)], "failures": [(0, 1)], "usage_lm_calls": [(0, 2)], **zeros}
    assert run.end is not None and 0 <= run.end - run.start < 10_000
    (data,) = run.data
    assert (data["name"], data["context"], json.loads(data["profile"])) == ("devset", "eval", {"num_rows": 3})
    columns = [(one["name"], one["type"]) for one in json.loads(data["schema"])["mlflow_colspec"]]
    assert columns == [("question", "string"), ("answer", "string")]


def test_the_table_has_true_columns_and_types(logged: Kept) -> None:
    """Inputs, what was expected, outputs, score, error, trace, usage and time of each example, in its order."""
    evaluate()
    first, _, failed = only(logged).table("examples")
    assert list(first)[:6] == ["index", "inputs.question", "expected.answer", "outputs.answer", "score", "error"]
    assert list(first)[6:] == ["trace_id", "input_tokens", "output_tokens", "cost", "seconds"]
    assert (first["index"], first["inputs.question"], first["score"], first["error"]) == (0, "one", 1.0, None)
    assert (failed["score"], failed["error"]) == (None, "ValueError: cannot answer")
    roots = [row for row in logged.rows() if row["root"]]
    traced = {f"tr-{row['trace_id']}" for row in roots if row["name"] == "evaluate_example QA"}
    assert {row["trace_id"] for row in only(logged).table("examples")} == traced
    assert set(only(logged).traces) == {f"tr-{row['trace_id']}" for row in roots}


def test_the_state_is_what_dspy_loads(logged: Kept, tmp_path: Any) -> None:
    """The artifact can be loaded into the program, and holds no setting of an LM that may be a secret."""
    program = QA()
    program.ask.demos = [dspy.Example(question="1", answer="2")]
    program.set_lm(dspy.LM("openai/gpt-4o-mini", api_key="sk-secret", extra_headers={"x": "sk-secret"}))
    metric = lambda gold, predicted: 1.0  # noqa: E731
    evaluate([example("broken")], metric, program)
    text = only(logged).files["program.json"]
    assert "sk-secret" not in text
    (tmp_path / "program.json").write_text(text)
    loaded = QA()
    loaded.load(str(tmp_path / "program.json"))
    assert [dict(demo) for demo in loaded.ask.demos] == [{"question": "1", "answer": "2"}]
    assert loaded.ask.lm.model == "openai/gpt-4o-mini"


def test_content_that_is_not_wanted_is_nowhere(kept: Kept) -> None:
    """With ``NO_CONTENT`` neither inputs nor outputs, instructions, demos nor texts of errors are told."""
    dspy_trace.autolog(log_evals=True, capture_content=False)
    evaluate()
    run = only(kept)
    dspy_trace.autolog(disable=True)
    assert [row["error"] for row in run.table("examples")] == [None, None, "ValueError"]
    assert [list(row)[1] for row in run.table("examples")] == ["score"] * 3
    assert run.files == {}
    assert "'one'" not in str(run) and "cannot answer" not in str(run)


def test_what_is_redacted_is_redacted_here_too(kept: Kept) -> None:
    """``redact=`` sees what goes into tables and files."""

    def redact(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("one", "***").replace("Given", "***"))

    dspy_trace.autolog(log_evals=True, redact=redact)
    evaluate()
    run = only(kept)
    dspy_trace.autolog(disable=True)
    assert run.table("examples")[0]["inputs.question"] == "***"
    assert "Given" not in run.files["program.json"] and "***" in run.files["program.json"]


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (True, 1.0),
        (numpy.float32(0.5), 0.5),
        (numpy.bool_(True), 1.0),
        (math.nan, "nan"),
        (dspy.Prediction(score=0.25, feedback="too short"), 0.25),
    ],
)
def test_scores_of_any_kind(logged: Kept, score: Any, told: Any) -> None:
    """A bool, numpy's numbers, NaN and an object with a score are what they are; feedback is told with them."""

    class Metric:
        def __call__(self, gold: Any, predicted: Any, trace: Any = None) -> Any:
            return score

    evaluate([example("one")], Metric())
    run = only(logged)
    (row,) = run.table("examples")
    assert row["score"] == told
    assert row.get("feedback") == (score.feedback if isinstance(score, dspy.Prediction) else None)
    assert run.params["metric"] == "Metric"
    assert "eval" in run.metrics or told == "nan"


def test_a_prediction_is_scored_with_its_feedback(logged: Kept) -> None:
    """What a metric says of an example is the rationale of its trace's assessment."""
    evaluate([example("one")], lambda gold, predicted: dspy.Prediction(score=0.25, feedback="too short"))
    (info,) = [info for _, _, rows, info in logged.batches() if info.get("assessments")]
    (score,) = info["assessments"]
    assert (score["value"], score["rationale"]) == (0.25, "too short")
    assert info["run"] == only(logged).id


def test_an_evaluation_that_ends_early_says_why(logged: Kept) -> None:
    """One that raises is FAILED, one that is interrupted KILLED; what was known by then is told."""
    with pytest.raises(Exception, match="cancelled"):
        evaluate([example("broken"), *DEVSET], max_errors=1, num_threads=1)

    class Interrupted(dspy.Module):
        def forward(self, question: str) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dspy.Evaluate(devset=DEVSET, metric=exact, num_threads=1)(Interrupted())
    failed, killed = runs(logged)
    assert (failed.status, failed.table("examples")[0]["error"]) == ("FAILED", "ValueError: cannot answer")
    assert "cancelled" in failed.tags["dspy_trace.reason"]
    assert (killed.status, killed.tags["dspy_trace.reason"]) == ("KILLED", "KeyboardInterrupt")


def test_a_metric_that_raises_for_some(logged: Kept) -> None:
    """DSPy goes on, and so does the run: the example is a failed row."""

    def picky(gold: Any, predicted: Any) -> float:
        if gold.question == "two":
            raise ArithmeticError("no verdict")
        return 1.0

    assert evaluate(DEVSET[:2], picky).score == 50.0
    run = only(logged)
    assert (run.status, run.metrics["failures"]) == ("FINISHED", [(0, 1)])
    assert [row["error"] for row in run.table("examples")] == [None, "ArithmeticError: no verdict"]


def test_evaluations_at_once_are_runs_of_their_own(logged: Kept) -> None:
    """Four in four threads: each has its own rows, and a live call beside them belongs to none."""
    sets = {size: [example(f"{size}-{index}", "yes") for index in range(size)] for size in (3, 4, 5, 6)}
    threads = [threading.Thread(target=evaluate, args=(devset,)) for devset in sets.values()]
    for thread in threads:
        thread.start()
    with dspy.context(lm=dummy()):
        QA()(question="live")
    for thread in threads:
        thread.join()
    found = runs(logged)
    assert sorted(len(run.table("examples")) for run in found) == [3, 4, 5, 6]
    for run in found:
        rows = run.table("examples")
        assert {row["inputs.question"] for row in rows} == {f"{len(rows)}-{index}" for index in range(len(rows))}
        assert len(set(run.traces)) == len(rows) + 1
    (live,) = [row for row in logged.rows() if row["root"] and row["name"] == "invoke_workflow QA"]
    assert f"tr-{live['trace_id']}" not in {trace for run in found for trace in run.traces}


def test_an_evaluation_inside_an_example_is_a_child(logged: Kept) -> None:
    """Evaluations nest: parenthood travels with the call."""

    class Outer(dspy.Module):
        def forward(self, question: str) -> Any:
            evaluate([example("one", "yes")])
            return dspy.Prediction(answer=question)

    evaluate([example("a")], program=Outer())
    assert tree(runs(logged)) == "\nevaluate Outer 100\n  evaluate QA 100\n"


def test_odd_sets_are_told_truthfully(logged: Kept) -> None:
    """Mixed types, images, objects, long texts: cells of their own types, or what stands for them."""
    odd = [
        dspy.Example(question="one", answer=1),
        dspy.Example(question="two", answer="x" * 100_000),
        dspy.Example(question="three", answer=[1, {"a": object()}]),
        dspy.Example(question="four", answer=dspy.Image("data:image/png;base64,aGVsbG8=")),
        dspy.Example(question="\ud800", answer=float("inf")),
    ]
    evaluate([one.with_inputs("question") for one in odd], lambda gold, predicted: 1.0)
    run = only(logged)
    cells = [row["expected.answer"] for row in run.table("examples")]
    assert cells[0] == 1
    assert cells[1].startswith("xxx") and len(cells[1]) < 70_000
    assert json.loads(cells[2])[0] == 1
    assert "aGVsbG8" not in str(run)
    schema = {one["name"]: one["type"] for one in json.loads(run.data[0]["schema"])["mlflow_colspec"]}
    assert schema == {"question": "string", "answer": "any"}


def test_runs_do_without_traces(kept: Kept) -> None:
    """Where evaluations are not traced, or little is observed, they are runs all the same."""
    for asked in ({"log_traces_from_eval": False}, {"detail": "minimal"}):
        dspy_trace.autolog(log_evals=True, **asked)
        evaluate()
        dspy_trace.autolog(disable=True)
    with environment(OTEL_TRACES_SAMPLER="always_off"):
        dspy_trace.autolog(log_evals=True)
        evaluate()
        dspy_trace.autolog(disable=True)
    assert [run.last("eval") for run in runs(kept)] == [33.33] * 3
    assert all(len(run.table("examples")) == 3 for run in runs(kept))
    assert [row["trace_id"] for row in runs(kept)[0].table("examples")] == [None] * 3


def test_without_log_evals_there_is_no_run(kept: Kept) -> None:
    """By default evaluations are traced only."""
    dspy_trace.autolog()
    evaluate()
    dspy_trace.autolog(disable=True)
    assert runs(kept) == []
