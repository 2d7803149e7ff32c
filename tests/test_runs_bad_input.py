"""Runs of odd programs, settings and sets: recorded truthfully or noted, never an exception, and never slowly."""

from __future__ import annotations

import json
from time import monotonic, thread_time
from typing import Any

import dspy
import orjson
import pytest

import dspy_trace
from dspy_trace.runs.data import dataset
from dspy_trace.runs.tables import table
from dspy_trace.runs.values import LONGEST, MOST, made_with, params
from tests.optimizers import Refuses
from tests.outlets import Kept, dummy, kept
from tests.runs import QA, exact, example, runs

__all__ = ["kept"]


class Hostile:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


def test_parameters_are_what_mlflow_takes() -> None:
    """Names of allowed characters within bounds, each once; texts cut with a note; what is not set is left out."""
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    told = params({"a b": 1, "é*": 2.5, "*é": True, "n" * 400: "x", "none": None, "long": "y" * 10_000, "loop": loop})
    assert told["a b"] == "1"
    assert {told["é_"], told["_é"]} == {"2.5", "True"}
    assert max(map(len, told)) <= 250
    assert len(told["long"]) == LONGEST and "10000 characters in all" in told["long"]
    assert "none" not in told
    assert "cut" in told["loop"]


def test_parameters_of_one_name_are_told_apart() -> None:
    """None takes the place of another."""
    assert params({"a*": 1, "a+": 2, "a/b": 3}) == {"a_": "1", "a__2": "2", "a/b": "3"}


def test_there_are_only_so_many_parameters() -> None:
    """More than a person could read are left out."""
    assert len(params({str(number): number for number in range(10_000)})) == MOST


VALUES: dict[str, Any] = {
    "hostile": Hostile(),
    "class": Hostile,
    "builtin": print,
    "nan": float("nan"),
    "huge": 10**6_000,
    "bytes": b"x" * 10,
    "set": {1: {2, 3}},
    "nested": [Hostile()],
}


@pytest.mark.parametrize("name", VALUES)
def test_any_setting_is_told(name: str) -> None:
    """Whatever it is, it is one text that can be written."""
    (told,) = params({"value": VALUES[name]}).values()
    assert 0 < len(told) <= LONGEST
    told.encode()


def test_secrets_are_none_of_the_settings() -> None:
    """By name, in nested settings, and in what an LM was made with."""
    lm = dspy.LM(
        "openai/gpt-4o-mini", api_key="sk-verysecret-0123456789", extra_headers={"Authorization": "Bearer abc"}
    )
    told = params({"optimizer.api_key": "hush", "x": {"password": "hush", "lm": lm}, "url": "https://me:hush@host/"})
    assert "hush" not in str(told) and "verysecret" not in str(told) and "Bearer" not in str(told)
    assert json.loads(told["x"])["lm"] == "openai/gpt-4o-mini"


def test_what_an_object_was_made_with() -> None:
    """The parameters of all its constructors, under whatever name it keeps them; nothing of it is run."""

    class Base:
        def __init__(self, depth: int, metric: Any = None) -> None:
            self._depth, self.metric_fn = depth, metric

    class Own(Base):
        def __init__(self, breadth: int = 2, **more: Any) -> None:
            super().__init__(**more)
            self.breadth = breadth
            self.unrelated = 1

    assert made_with(Own(depth=3, metric=print)) == {"breadth": 2, "depth": 3, "metric": print}
    assert made_with(Hostile()) == {}


def test_tables_are_bounded_and_whole() -> None:
    """Columns grow with the rows, cells that lack are null, and what is left out is counted."""
    rows = [orjson.dumps({"a": 1}), orjson.dumps({"b": "x"}), orjson.dumps({"a": None, "c": "y" * 1_000})]
    assert json.loads(table(rows[:2])) == {"columns": ["a", "b"], "data": [[1, None], [None, "x"]]}
    assert json.loads(table(rows, most_bytes=100)) == {**json.loads(table(rows[:2])), "left_out": 1}
    assert json.loads(table([])) == {"columns": [], "data": []}


class Odd(dspy.Module):
    """A program whose state cannot be told."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def dump_state(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no state")

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=Hostile())


@pytest.mark.parametrize("program", [Odd(), lambda question: dspy.Prediction(answer=question)], ids=["odd", "function"])
def test_odd_programs(kept: Kept, program: Any) -> None:
    """What cannot be told of a program is left out; the evaluation is a run all the same."""
    dspy_trace.autolog(log_evals=True)
    score = dspy.Evaluate(devset=[example("one")], metric=lambda *args: 1.0, num_threads=1)(program).score
    dspy_trace.autolog(disable=True)
    (run,) = runs(kept)
    assert score == run.last("eval") == 100.0
    assert (run.status, run.files) == ("FINISHED", {})
    assert run.table("examples")[0]["score"] == 1.0


def test_a_hundred_thousand_examples(kept: Kept) -> None:
    """The program's thread spends no more on them than on naming each once; all are looked at, on ours."""
    devset = [example(str(number)) for number in range(100_000)]
    evaluate = dspy.Evaluate(devset=devset, metric=exact, num_threads=1, max_errors=1, display_progress=False)

    def spent() -> float:
        begun = thread_time()
        with pytest.raises(Exception, match="cancelled"):
            evaluate(Refuses())
        return thread_time() - begun

    unlogged = spent()
    dspy_trace.autolog(log_evals=True, log_traces_from_eval=False)
    logged = spent()
    dspy_trace.autolog(disable=True)
    assert logged - unlogged < 0.3, "seconds of processor time"
    (run,) = runs(kept)
    assert run.status == "FAILED"
    assert json.loads(run.data[0]["profile"]) == {"num_rows": 100_000}
    whole = told_of(devset)
    assert run.data[0]["digest"] == whole["digest"]
    assert told_of([*devset[:-1], example("another")])["digest"] != whole["digest"]


def told_of(examples: Any) -> Any:
    made = dataset("devset", "eval", examples)
    return made() if made is not None else None


def test_a_set_that_is_larger_still() -> None:
    """Of it every second is looked at, to the end, which is said."""
    told = told_of([{"a": 1}] * 150_000)
    assert json.loads(told["profile"]) == {"num_rows": 150_000, "num_rows_read": 75_000}


def test_a_set_of_all_kinds() -> None:
    """Columns of one type have it; of mixed, nested and missing values that is said; what is no set is none."""
    rows: list[Any] = [{"a": 1, "b": 1, "c": None}, {"a": 2, "b": "x", "c": None, "d": [1]}, Hostile(), None]
    told = told_of(rows)
    schema = {one["name"]: (one["type"], one["required"]) for one in json.loads(told["schema"])["mlflow_colspec"]}
    assert schema == {
        "a": ("long", False),
        "b": ("any", False),
        "c": ("any", False),
        "d": ("any", False),
        "value": ("any", False),
    }
    assert told_of(rows)["digest"] == told["digest"]
    assert told_of([])["schema"] == '{"mlflow_colspec":[]}'
    assert dataset("devset", "eval", Hostile()) is None


def test_a_large_set(kept: Kept) -> None:
    """Costs the program a few microseconds an example beyond what DSPy takes, and all rows are told."""
    devset = [example(str(number), "yes") for number in range(2_000)]

    class Quick(dspy.Module):
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer="yes")

    def timed() -> float:
        begun = monotonic()
        dspy.Evaluate(devset=devset, metric=lambda *args: 1.0, num_threads=1, display_progress=False)(Quick())
        return monotonic() - begun

    dspy_trace.autolog(log_traces_from_eval=False)
    traced = timed()
    dspy_trace.autolog(log_traces_from_eval=False, log_evals=True)
    logged = timed()
    dspy_trace.autolog(disable=True)
    (run,) = runs(kept)
    assert len(run.table("examples")) == 2_000
    assert kept.out.runs.lost == 0
    assert logged < 3 * traced + 2.0
    assert json.loads(run.data[0]["profile"]) == {"num_rows": 2_000}


def test_a_program_that_changes_while_it_is_evaluated(kept: Kept) -> None:
    """What is told is the program as the evaluation began."""
    program = QA()

    def metric(gold: Any, predicted: Any, trace: Any = None) -> float:
        program.ask.signature = program.ask.signature.with_instructions("changed meanwhile")
        return 1.0

    dspy_trace.autolog(log_evals=True)
    with dspy.context(lm=dummy()):
        dspy.Evaluate(devset=[example("one")], metric=metric, num_threads=1)(program)
    dspy_trace.autolog(disable=True)
    (run,) = runs(kept)
    assert "changed" not in run.files["program.json"]
