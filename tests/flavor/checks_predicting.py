"""Loaded models as MLflow's python functions. Run by `test_with_mlflow` in a process of its own."""

from __future__ import annotations

import asyncio
import datetime
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Optional

import dspy
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

import dspy_trace_flavor as flavor
from dspy_trace_flavor import schema
from tests.flavor import bureau
from tests.flavor.alone import alone, store
from tests.parts.scripted_answers import Reply, fill
from tests.parts.scripted_lm import ScriptedLM

__all__ = ["alone", "store"]


@pytest.fixture(autouse=True)
def key(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")


def loaded(program: Any, **options: Any) -> Any:
    flavor.save_model(program, "model", **options)
    return mlflow.pyfunc.load_model("model")


A, B = {"echo": "a", "length": 1}, {"echo": "bb", "length": 2}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a", A),
        ({"text": "a"}, A),
        ({"text": "a", "times": 2}, {"echo": "aa", "length": 1}),
        (["a", "bb"], [A, B]),
        ([{"text": "a"}, {"text": "bb"}], [A, B]),
        (pd.DataFrame({"text": ["a", "bb"]}), [A, B]),
        (pd.DataFrame({"text": ["a", "bb"]}, index=[7, 3]), [A, B]),
        (pd.DataFrame({"text": ["a"]}), A),
        (pd.Series(["a", "bb"], name="text"), [A, B]),
        (np.array(["a", "bb"]), [A, B]),
        ([f"{number}" for number in range(40)], [{"echo": f"{n}", "length": len(f"{n}")} for n in range(40)]),
    ],
    ids=str,
)
def test_inputs(data: Any, expected: Any) -> None:
    """Texts, dicts, lists of either, frames, series and arrays; one row or many, in their order."""
    flavor.save_model(bureau.Echo(), "model")
    direct = flavor._load_pyfunc("model")
    assert direct.predict(data) == expected
    assert asyncio.run(direct.apredict(data)) == expected
    if not isinstance(data, str | np.ndarray) and not (isinstance(data, list) and isinstance(data[0], str)):
        assert mlflow.pyfunc.load_model("model").predict(data) == expected


def test_bad_inputs() -> None:
    """What does not fit is said in terms of the program's inputs, as what MLflow's server answers with 400."""
    flavor.save_model(bureau.Echo(), "model")
    model = flavor._load_pyfunc("model")
    for data, message in (
        ([], "the input is empty"),
        (pd.DataFrame({"text": []}), "the input is empty"),
        (np.array([]), "the input is empty"),
        (pd.DataFrame({"question": ["a"]}), "row 0 lacks 'text': the program takes text, times"),
        ([{"text": "a"}, {"txt": "b"}], "row 1 lacks 'text'"),
        ({"text": None}, "row 0 lacks 'text'"),
        (3.5, "must be a text, a dict, .* not float"),
    ):
        with pytest.raises(MlflowException, match=message) as caught:
            model.predict(data)
        assert caught.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match="on_error must be one of"):
        model.predict("a", params={"on_error": "ignore"})
    with pytest.raises(MlflowException, match="Model is missing inputs"):
        mlflow.pyfunc.load_model("model").predict({"question": "a"})


def test_a_row_that_fails() -> None:
    """It fails the batch, or, where that is asked for, its error stands in its place."""
    model = loaded(bureau.Echo())
    rows = [{"text": "a"}, {"text": "fail"}, {"text": "bb"}]
    with pytest.raises(RuntimeError, match="told to fail"):
        model.predict(rows)
    failed = {"error": {"type": "RuntimeError", "message": "told to fail"}}
    assert model.predict(rows, params={"on_error": "return", "num_threads": 2}) == [A, failed, B]
    assert model.predict({"text": "fail"}, params={"on_error": "return"}) == failed


def test_an_async_program() -> None:
    """A program that only runs asynchronously is called from anywhere."""
    model = loaded(bureau.Later())
    assert model.predict({"text": "a"}) == {"echo": "a"}

    async def within() -> Any:
        return model.predict([{"text": "a"}, {"text": "b"}])

    assert asyncio.run(within()) == [{"echo": "a"}, {"echo": "b"}]
    assert asyncio.run(flavor._load_pyfunc("model").apredict("a")) == {"echo": "a"}


class Everything(dspy.Signature):
    """Every type that a field can have."""

    text: str = dspy.InputField()
    number: int = dspy.InputField()
    share: float = dspy.InputField()
    flag: bool = dspy.InputField()
    word: Literal["a", "b"] = dspy.InputField()
    urgency: bureau.Urgency = dspy.InputField()
    many: list[str] = dspy.InputField()
    table: dict[str, int] = dspy.InputField()
    person: bureau.Person = dspy.InputField()
    when: datetime.datetime = dspy.InputField()
    image: dspy.Image = dspy.InputField()
    history: dspy.History = dspy.InputField()
    maybe: Optional[int] = dspy.InputField()  # noqa: UP045
    answer: str = dspy.OutputField()


EVERYTHING = {
    "text": "t", "number": 1, "share": 0.5, "flag": True, "word": "a", "urgency": "high", "many": ["x"],
    "table": {"k": 1}, "person": {"name": "Ada"}, "when": datetime.datetime(2026, 1, 2, 3, 4), "image": "https://example.org/i.png",
    "history": {"messages": [{"text": "before", "answer": "yes"}]},
}  # fmt: skip


def test_the_signature_is_made_from_the_program(scripted_lm: ScriptedLM) -> None:
    """All types of fields, without a call of an LM; and the program is given what it would be given directly."""
    program = dspy.Predict(Everything)
    program.lm = scripted_lm.lm()
    flavor.save_model(program, "model")
    assert scripted_lm.requests == []
    model = mlflow.pyfunc.load_model("model")
    told = {one["name"]: (one["type"], one["required"]) for one in model.metadata.signature.inputs.to_dict()}
    assert told == {
        "text": ("string", True), "number": ("long", True), "share": ("double", True), "flag": ("boolean", True),
        "word": ("string", True), "urgency": ("string", True), "many": ("array", True), "table": ("map", True),
        "person": ("object", True), "when": ("datetime", True), "image": ("any", False), "history": ("any", False),
        "maybe": ("long", False),
    }  # fmt: skip
    model.predict(EVERYTHING)
    program(
        **{
            **EVERYTHING,
            "urgency": bureau.Urgency.HIGH,
            "person": bureau.Person(name="Ada"),
            "image": dspy.Image(EVERYTHING["image"]),
            "history": dspy.History(**EVERYTHING["history"]),
        }
    )
    first, second = (json.dumps(request.body) for request in scripted_lm.requests)
    assert first == second


def test_outputs_are_told_from_the_source() -> None:
    """Outputs of an own class are those of the predictor that it returns, or of the prediction that it makes."""
    assert [column.name for column in schema.infer(bureau.Bureau()).outputs] == ["reasoning", "answer"]
    assert [column.name for column in schema.infer(bureau.Echo()).outputs] == ["echo", "length"]
    assert schema.infer(bureau.Messages()).outputs is None
    react = schema.infer(dspy.ReAct("question -> answer: int", tools=[]))
    assert [(column.name, str(column.type)) for column in react.outputs] == [("answer", "DataType.long")]


def test_streams(scripted_lm: ScriptedLM) -> None:
    """Texts arrive in pieces, other outputs whole at the end, and the prediction if it is asked for."""
    program = dspy.Predict("question -> answer, points: int")
    program.lm = scripted_lm.lm()
    scripted_lm.answer = lambda body: fill(body, answer="one two three", points=4)
    model = loaded(program)
    assert model.metadata.flavors["python_function"]["streamable"] is True
    records = list(model.predict_stream({"question": "q"}))
    assert {frozenset(record) for record in records} == {frozenset({"predict_name", "signature_field_name", "chunk"})}
    assert {record["predict_name"] for record in records} == {"self"}
    chunks = [record["chunk"] for record in records if record["signature_field_name"] == "answer"]
    assert "".join(chunks) == "one two three"
    assert len(chunks) > 1
    assert records[-1] == {"predict_name": "self", "signature_field_name": "points", "chunk": 4}
    *_, last = model.predict_stream({"question": "q"}, params={"include_final_prediction": True})
    assert last == {"prediction": {"answer": "one two three", "points": 4}}
    before = dict(dspy.settings.config)
    begun = model.predict_stream({"question": "q"})
    next(begun)
    assert dict(dspy.settings.config) == before
    begun.close()


def test_many_streams_at_once(scripted_lm: ScriptedLM) -> None:
    """None waits for another, though they are more than the threads that DSPy's `asyncify` has for all event loops."""
    streams = dspy.settings.async_max_workers + 4
    together = threading.Barrier(streams)

    def answer(body: Any) -> Reply:
        together.wait(60)
        return fill(body, answer="one two three")

    program = dspy.Predict("question -> answer")
    program.lm = scripted_lm.lm()
    scripted_lm.answer = answer
    model = loaded(program)
    with ThreadPoolExecutor(streams) as pool:
        given = list(pool.map(lambda _: list(model.predict_stream({"question": "q"})), range(streams)))
    assert ["".join(record["chunk"] for record in records) for records in given] == ["one two three"] * streams


def test_what_cannot_stream_does_not_offer_it() -> None:
    """A program whose outputs are made by no predictor is not streamable."""
    model = loaded(bureau.Echo())
    with pytest.raises(MlflowException, match="does not support predict_stream"):
        list(model.predict_stream({"text": "a"}))


CHAT = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "How are you?"},
    ],
    "temperature": 0.25,
}


def test_chat(scripted_lm: ScriptedLM) -> None:
    """The chat task takes and gives chat completions, with the conversation as history, whole and streamed."""
    scripted_lm.answer = lambda body: fill(body, mood="good", answer="I am well")
    with dspy.context(lm=scripted_lm.lm()):
        model = loaded(bureau.Talk(), task="llm/v1/chat")
    given = model.predict(CHAT)
    assert given["object"] == "chat.completion"
    assert given["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "I am well"}, "finish_reason": "stop"}
    ]
    assert given["usage"]["total_tokens"] == given["usage"]["prompt_tokens"] + given["usage"]["completion_tokens"] > 0
    body = scripted_lm.requests[-1].body
    assert body["temperature"] == 0.25
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert "Hello" in body["messages"][1]["content"]
    chunks = list(model.predict_stream(CHAT))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0] for chunk in chunks]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in deltas) == "I am well"
    assert [choice["finish_reason"] for choice in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    with pytest.raises(MlflowException, match="messages"):
        model.predict({"question": "x"})


def test_chat_with_the_messages_as_they_are() -> None:
    """A program that takes messages gets them all; a message that it gives is the answer."""
    model = loaded(bureau.Messages(), task="llm/v1/chat")
    assert model.predict(CHAT)["choices"][0]["message"] == {"role": "assistant", "content": "4 messages"}
