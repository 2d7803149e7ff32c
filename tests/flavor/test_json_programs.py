"""Programs as JSON: what is loaded gives what was saved gave, and asks the LM for it byte by byte the same."""

from __future__ import annotations

import datetime
import decimal
import json
import pathlib
import re
from collections import OrderedDict, defaultdict, deque
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.utils import DummyLM

from dspy_trace_flavor.decoding import Decoder
from dspy_trace_flavor.encoding import Encoder
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.formats import as_pickle, read
from dspy_trace_flavor.vault import Givers, Vault
from tests.flavor import bureau
from tests.parts.scripted_answers import fill
from tests.parts.scripted_lm import ScriptedLM


def again(value: Any) -> Any:
    """Return a value as it comes back from JSON text."""
    return Decoder(Givers({})).decode(json.loads(json.dumps(Encoder(Vault({})).encode(value, "program"))))


def pickled(value: Any, folder: pathlib.Path) -> Any:
    """Return a program as it comes back from the other format."""
    (folder / "data").mkdir()
    for name, data in as_pickle(value, {}, Vault({})).items():
        (folder / name).write_bytes(data)
    return read(folder, "cloudpickle", Decoder(Givers({})))[0]


PROGRAMS = {
    "compiled": (bureau.compiled, bureau.LETTER),
    "uncompiled": (bureau.Bureau, bureau.LETTER),
    "Predict": (lambda: dspy.Predict("question, n: int -> answer: list[str]"), {"question": "q", "n": 2}),
    "ChainOfThought": (lambda: dspy.ChainOfThought(bureau.Triage), bureau.LETTER),
    "ReAct": (lambda: dspy.ReAct("question -> answer", tools=[bureau.look_up]), {"question": "q"}),
    "ProgramOfThought": (lambda: dspy.ProgramOfThought("question -> answer", max_iters=1), None),
    "CodeAct": (lambda: dspy.CodeAct("question -> answer", tools=[bureau.look_up]), None),
    "MultiChainComparison": (lambda: dspy.MultiChainComparison("question -> answer"), None),
    "BestOfN": (
        lambda: dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=one, threshold=2.0),
        {"question": "q"},
    ),
}


def one(args: Any, prediction: Any) -> float:
    return 1.0


@pytest.mark.parametrize("form", ["state", "cloudpickle"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_requests_and_answers(name: str, form: str, scripted_lm: ScriptedLM, tmp_path: pathlib.Path) -> None:
    """Every program, compiled or not, asks for the same bytes in the same order, whatever format it went through."""
    make, inputs = PROGRAMS[name]
    program = make()
    if inputs is None:
        # What runs code needs an interpreter that is not Python's: its parts are compared, not its answers.
        loaded = again(program) if form == "state" else pickled(program, tmp_path)
        assert Encoder(Vault({})).encode(loaded, "program") == Encoder(Vault({})).encode(program, "program")
        assert vars(loaded).keys() == vars(program).keys()
        return
    program.set_lm(scripted_lm.lm(temperature=0.3))
    expected = program(**inputs)
    asked = [request.body for request in scripted_lm.requests]
    loaded = again(program) if form == "state" else pickled(program, tmp_path)
    assert type(loaded) is type(program)
    (lm,) = {id(predictor.lm): predictor.lm for predictor in loaded.predictors()}.values()
    assert "api_key" not in lm.kwargs
    lm.kwargs["api_key"] = "another"
    assert loaded(**inputs).toDict() == expected.toDict()
    bodies = [request.body for request in scripted_lm.requests][len(asked) :]
    assert [json.dumps(body) for body in bodies] == [json.dumps(body) for body in asked]
    assert len(asked) > 0


def test_what_was_one_is_one_again() -> None:
    """Shared objects are shared, and a program's own methods are its own."""
    program = bureau.compiled()
    program.answers.append(program)
    loaded = again(program)
    assert loaded.again is loaded.triage
    assert loaded.answers[1] is loaded
    assert (loaded.tone, loaded.rounds, loaded.sizes, loaded.add(1)) == ("stern", 2, {1: (1, 2), "two": {3}}, 3)
    assert again(loaded.answers[0].forward).__self__.predict.demos == program.answers[0].predict.demos
    assert program.triage.signature.instructions == loaded.triage.signature.instructions


VALUES = [
    float("nan"), float("inf"), 1 << 80, "\ud800 ☃", b"\x00\xff", (1, [2]), {3: 4}, {"$": 1}, frozenset({1}), {"a"},
    datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc), datetime.date(2026, 1, 2), datetime.timedelta(1, 2),
    decimal.Decimal("1.10"), pathlib.Path("a/b"), deque([1], maxlen=3), OrderedDict(a=1), defaultdict(list, a=[1]),
    re.compile("a+", re.IGNORECASE), range(3), complex(1, 2), bureau.Urgency.LOW, bureau.Person(name="Ada"),
    np.arange(6, dtype=np.float32).reshape(2, 3), np.int64(3), bureau.look_up, dict[str, list[int] | None], None, True,
    dspy.Example(a=1, b="x").with_inputs("a"), dspy.Prediction(a=[bureau.Urgency.HIGH]), dspy.JSONAdapter,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values(value: Any) -> None:
    """Each value comes back as the same, of the same type."""
    loaded = again(value)
    assert type(loaded) is type(value)
    same = np.array_equal(loaded, value) if isinstance(value, np.ndarray) else repr(loaded) == repr(value)
    assert same


def test_an_embeddings_retriever_is_ready_again() -> None:
    """A retriever with a thread of its own comes back with its corpus embedded, and with a thread of its own."""
    retriever = dspy.Embeddings(["aa", "b"], dspy.Embedder(embedded), k=1)
    loaded = again(retriever)
    assert loaded("b").passages == retriever("b").passages
    assert loaded.search_fn is not retriever.search_fn


def embedded(texts: list[str]) -> Any:
    return np.array([[len(text), 1.0] for text in texts])


def test_history_and_callbacks_are_left_out(scripted_lm: ScriptedLM, tmp_path: pathlib.Path) -> None:
    """No prompt and no answer of the saving process is in a saved program, nor are its callbacks."""

    class Watcher(dspy.utils.callback.BaseCallback):  # type: ignore[misc]
        pass

    scripted_lm.answer = lambda body: fill(body, answer="an-answer-in-the-history")
    program = dspy.Predict("question -> answer")
    program.lm = scripted_lm.lm(callbacks=[Watcher()])
    program.callbacks = [Watcher()]
    program(question="a-question-in-the-history")
    assert program.history and program.lm.history
    texts = [
        json.dumps(Encoder(Vault({})).encode(program, "program")).encode(),
        *as_pickle(program, {}, Vault({})).values(),
    ]
    for text in texts:
        assert b"in-the-history" not in text
        assert b"Watcher" not in text
    for loaded in (again(program), pickled(program, tmp_path)):
        assert (loaded.history, loaded.callbacks, loaded.lm.history, loaded.lm.callbacks) == ([], [], [], [])


@pytest.mark.parametrize("form", ["state", "cloudpickle"])
def test_an_lm_of_another_class(form: str, tmp_path: pathlib.Path) -> None:
    """An LM that keeps more than DSPy's own state of it comes back with all of it."""
    program = dspy.Predict("question -> answer")
    program.lm = DummyLM({"why": {"answer": "because"}})
    program(question="why")
    loaded = again(program) if form == "state" else pickled(program, tmp_path)
    assert (type(loaded.lm), loaded.lm.history) == (DummyLM, [])
    assert loaded(question="why").answer == "because"


def test_what_cannot_be_json_is_named() -> None:
    """A program that JSON cannot hold says which attribute is in the way, and what to do."""
    import threading

    program = bureau.Bureau()
    program.answers[0].lock = threading.Lock()
    with pytest.raises(CannotSave, match=r"program\.answers\[0\]\.lock: _thread\.lock cannot be saved"):
        Encoder(Vault({})).encode(program, "program")
    with pytest.raises(CannotSave, match=r"program\.answers\[0\]\.lock: it cannot be pickled"):
        as_pickle(program, {}, Vault({}))

    class Local(dspy.Module):  # type: ignore[misc]
        pass

    program = bureau.Bureau()
    program.local = Local()
    with pytest.raises(CannotSave, match=r"program\.local: its class .*Local cannot be imported"):
        Encoder(Vault({})).encode(program, "program")
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises((CannotSave, RecursionError)):
        Encoder(Vault({})).encode(circle, "program")
