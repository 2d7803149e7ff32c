"""What is captured again costs a comparison: the same text, as long as nothing that it depends on has changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dspy_trace import secrets
from dspy_trace.observing.observer import capture_of
from dspy_trace.settings import Settings
from dspy_trace.values.jsonable import dumps
from dspy_trace.values.recalled import Recalled


class Captured:
    """Captures values, and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self.state = object()

    def __call__(self, value: Any) -> str:
        self.count += 1
        return dumps(value)


@pytest.fixture
def captured() -> Captured:
    return Captured()


@pytest.fixture
def recalled(captured: Captured) -> Recalled:
    return Recalled(captured, lambda: captured.state)


class Watching(str):
    """A text whose class has code of its own."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("the program's own code was run")


@pytest.mark.parametrize(
    "again",
    [
        lambda: {"question": Watching("?")},
        lambda: {Watching("question"): "?"},
        lambda: {"question": ["?"]},
        lambda: {"question": None},
        lambda: {},
        lambda: ["?"],
    ],
    ids=["a value of a class", "a name of a class", "a list in it", "nothing in it", "empty", "a list"],
)
def test_only_texts_are_compared(captured: Captured, recalled: Recalled, again: Callable[[], Any]) -> None:
    """Comparing anything else may run code of the program's."""
    assert recalled({"question": "?"}) == '{"question":"?"}'
    assert recalled(again()) == dumps(again())
    assert captured.count == 2


def test_the_same_is_captured_once(captured: Captured, recalled: Recalled) -> None:
    """A program and the modules in it are given the same."""
    assert {recalled({"question": "?"}) for _ in range(3)} == {'{"question":"?"}'}
    assert captured.count == 1


def test_what_has_changed_is_captured_anew(captured: Captured, recalled: Recalled) -> None:
    """The value may be the same object, with something else in it by now; names count, and so does their order."""
    value = {"a": "1", "b": "2"}
    recalled(value)
    value["a"] = "3"
    assert recalled(value) == '{"a":"3","b":"2"}'
    assert recalled({"b": "2", "a": "3"}) == '{"b":"2","a":"3"}'
    captured.state = object()
    recalled({"b": "2", "a": "3"})
    assert captured.count == 4


def test_what_is_long_is_not_kept(captured: Captured, recalled: Recalled) -> None:
    """A program's documents are not held beyond its call."""
    for _ in range(2):
        recalled({"question": "?" * 20_000})
    assert captured.count == 2


def test_threads_have_one_each(captured: Captured, recalled: Recalled) -> None:
    """Calls of many at once do not take turns with each other's values."""
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda number: {recalled({"n": str(number)}) for _ in range(9)}, range(80)))
    assert told == [{f'{{"n":"{number}"}}'} for number in range(80)]
    assert captured.count == 80


def test_a_secret_that_is_learned_in_between_is_taken_out() -> None:
    """What was harmless may be secret by now."""
    capture, value = capture_of(Settings()), {"question": "is it recalled-by-nobody-7?"}
    assert "recalled-by-nobody-7" in capture(value)
    secrets.learn("recalled-by-nobody-7", "a test")
    assert "recalled-by-nobody-7" not in capture(value)


def test_what_redacts_is_asked_each_time() -> None:
    """It is the program's own, and may answer otherwise."""
    answers = iter(["one", "two"])
    capture = capture_of(Settings(redact=lambda _: next(answers)))
    assert [capture({"question": "?"}) for _ in range(2)] == ['"one"', '"two"']
