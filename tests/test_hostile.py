"""LMs that answer in shapes nobody expects: the program is as it is untraced, and the span says what is good."""

from __future__ import annotations

import decimal
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from dspy_trace.testing import record
from tests.hostile import OddLM, alike, hostile, refuse, response

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

USAGE = "gen_ai.usage."


def asked(make: Callable[[], Any], **kwargs: Any) -> ReadableSpan:
    """Ask an LM that answers with what `make` returns; compare, and return the span."""
    trace = alike(lambda server: OddLM(make())("hi", **kwargs))
    return trace.one("chat odd")


def used(span: ReadableSpan) -> dict[str, Any]:
    return {key.removeprefix(USAGE): value for key, value in (span.attributes or {}).items() if key.startswith(USAGE)}


class Level(enum.IntEnum):
    FIVE = 5


class Reading(Mapping[str, Any]):
    """Usage that is a mapping and nothing else."""

    def __init__(self, **told: Any) -> None:
        self.told = told

    def __getitem__(self, key: str) -> Any:
        return self.told[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.told)

    def __len__(self) -> int:
        return len(self.told)


BOTH = {"input_tokens": 5, "output_tokens": 3}
USAGES: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "sound": (lambda: {"prompt_tokens": 5, "completion_tokens": 3}, BOTH),
    "of the Responses API": (lambda: {"input_tokens": 5, "output_tokens": 3}, BOTH),
    "empty": (dict, {}),
    "none": (lambda: None, {}),
    "half": (lambda: {"completion_tokens": 3}, {"output_tokens": 3}),
    "negative": (lambda: {"prompt_tokens": -1, "completion_tokens": 3}, {"output_tokens": 3}),
    "text": (lambda: {"prompt_tokens": "5", "completion_tokens": 3}, {"output_tokens": 3}),
    "bool": (lambda: {"prompt_tokens": True, "completion_tokens": 3}, {"output_tokens": 3}),
    "float": (lambda: {"prompt_tokens": 5.5, "completion_tokens": 3}, {"output_tokens": 3}),
    "not a number": (lambda: {"prompt_tokens": float("nan"), "completion_tokens": 3}, {"output_tokens": 3}),
    "huge": (lambda: {"prompt_tokens": 2**63, "completion_tokens": 2**63 - 1}, {"output_tokens": 2**63 - 1}),
    "null": (lambda: {"prompt_tokens": None, "completion_tokens": 3}, {"output_tokens": 3}),
    "a list": (lambda: {"prompt_tokens": [5], "completion_tokens": 3}, {"output_tokens": 3}),
    "other keys": (lambda: {1: 2, None: 3, "prompt_tokens": 5, "completion_tokens": 3}, BOTH),
    "details of nothing": (
        lambda: {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": None},
        BOTH,
    ),
    "details of another kind": (
        lambda: {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "prompt_tokens_details": "many",
            "completion_tokens_details": [1],
        },
        BOTH,
    ),
    "odd details": (
        lambda: {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": "2"},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        {**BOTH, "reasoning.output_tokens": 2},
    ),
    "hostile details": (
        lambda: {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "prompt_tokens_details": hostile("__bool__", "__len__", "__getattr__", "__eq__")(),
        },
        BOTH,
    ),
    "mapping": (lambda: Reading(prompt_tokens=5, completion_tokens=3), BOTH),
    "pairs": (lambda: [("prompt_tokens", 5), ("completion_tokens", 3)], BOTH),
}


@pytest.mark.parametrize("name", USAGES)
def test_usage_of_any_shape(name: str) -> None:
    """Counts that are whole numbers of tokens are told, others are not; everything else of the span is there."""
    make, expected = USAGES[name]
    span = asked(lambda: response(usage=make()))
    found = used(span)
    assert found == expected
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "hello" in str(attributes["gen_ai.output.messages"])


def choice(**more: Any) -> SimpleNamespace:
    message = SimpleNamespace(content="hello", tool_calls=None)
    return SimpleNamespace(**{"message": message, "finish_reason": "stop", **more})


class Once(list[Any]):
    """Can be iterated over as often as DSPy does it, and once more not."""

    left = 1

    def __iter__(self) -> Iterator[Any]:
        self.left -= 1
        return super().__iter__() if self.left >= 0 else refuse()


RESPONSES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "no finish reason": (lambda: response(choices=[choice(finish_reason=None)]), {"response.finish_reasons": None}),
    "a number as finish reason": (
        lambda: response(choices=[choice(finish_reason=3), choice()]),
        {"response.finish_reasons": ("stop",)},
    ),
    "a lone surrogate as finish reason": (
        lambda: response(choices=[choice(finish_reason="\ud800")]),
        {"response.finish_reasons": ("?",)},
    ),
    "no choices": (lambda: response(choices=[]), {"response.finish_reasons": None, "response.model": "odd-1"}),
    "choices as a tuple": (lambda: response(choices=(choice(),)), {"response.finish_reasons": ("stop",)}),
    "dicts": (lambda: response(choices=[{"text": "hello", "finish_reason": "stop"}]), {}),
    "id of another type": (lambda: response(id=7), {"response.id": None, "response.model": "odd-1"}),
    "model of another type": (lambda: response(model=3.5), {"response.id": "r-1", "response.model": None}),
    "model without end": (lambda: response(model="m" * 1_000_000), {"response.id": "r-1"}),
    "surrogates": (lambda: response(model="\ud800", id="\udfff"), {"response.id": "?", "response.model": "?"}),
    "content of another type": (
        lambda: response(choices=[choice(message=SimpleNamespace(content={1: {2}}, tool_calls=None))]),
        {},
    ),
    "tool calls of another type": (
        lambda: response(choices=[choice(message=SimpleNamespace(content="hello", tool_calls=[object(), 3]))]),
        {},
    ),
    "none": (lambda: None, {"response.id": None}),
    "text": (lambda: "hello", {"response.id": None}),
    "a dict": (lambda: {"choices": [{"message": {"content": "hello"}}]}, {}),
    "hostile": (hostile("__getattr__", "__eq__", "__bool__", "__len__"), {"response.id": None}),
    "hostile choices": (
        lambda: response(choices=hostile("__len__", "__contains__", base=list)([choice()])),
        {},  # DSPy itself fails
    ),
    "choices to be read once": (lambda: response(choices=Once([choice()])), {"response.model": "odd-1"}),
    "cache_hit of another type": (lambda: response(cache_hit="yes"), {"response.id": "r-1"}),
    "odd cost": (lambda: response(_hidden_params={"response_cost": 10**400}), {"response.id": "r-1"}),
    "negative cost": (lambda: response(_hidden_params={"response_cost": -1.0}), {"response.id": "r-1"}),
    "text cost": (lambda: response(_hidden_params={"response_cost": "free"}), {"response.id": "r-1"}),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_of_any_shape(name: str) -> None:
    """The call returns, or raises, what it does untraced; what the response has in good order is told."""
    make, expected = RESPONSES[name]
    attributes = dict(asked(make).attributes or {})
    assert attributes["gen_ai.request.model"] == "odd"
    assert "hi" in str(attributes["gen_ai.input.messages"])
    assert attributes.get("dspy.lm.cost") is None
    for key, value in expected.items():
        assert attributes.get(f"gen_ai.{key}") == value


PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sound": ({"temperature": 1, "max_tokens": 7, "stop": "x"}, {"temperature": 1.0, "stop_sequences": ("x",)}),
    "too large": ({"temperature": 10**400, "seed": 2**70, "max_tokens": 7}, {"temperature": None, "seed": None}),
    "not a number": ({"temperature": float("nan"), "top_p": float("inf")}, {"temperature": None, "top_p": None}),
    "texts": ({"temperature": "hot", "max_tokens": "7", "seed": "x"}, {"temperature": None, "max_tokens": None}),
    "bools": ({"temperature": True, "max_tokens": True}, {"temperature": None, "max_tokens": None}),
    "enumeration": ({"max_tokens": Level.FIVE, "seed": Level.FIVE}, {"max_tokens": 5, "seed": 5}),
    "decimal": ({"temperature": decimal.Decimal("0.5")}, {"max_tokens": None}),
    "stop of odd items": ({"stop": ["a", 1, None, "\ud800"]}, {"stop_sequences": ("a", "?")}),
    "stop of another type": ({"stop": {"a": 1}}, {"stop_sequences": None}),
    "surrogate": ({"reasoning_effort": "\ud800"}, {"reasoning.level": "?"}),
    "huge text": ({"reasoning_effort": "x" * 1_000_000}, {}),
    "hostile": ({"temperature": hostile("__float__", "__eq__", "__bool__")(), "max_tokens": 7}, {"max_tokens": 7}),
    "hostile float": ({"temperature": hostile("__float__", "__eq__", base=float)(0.5)}, {"temperature": 0.5}),
    "unknown": ({"whatever": object(), "headers": {"authorization": "secret"}}, {"model": "odd"}),
    "format": ({"response_format": hostile("__bool__", "__len__", "__eq__")()}, {"model": "odd"}),
    "address of another type": ({"api_base": 7, "base_url": object()}, {"model": "odd"}),
    "address that is none": ({"api_base": "http://[::1"}, {"model": "odd"}),
    "port that is none": ({"api_base": "http://host:port/v1"}, {"model": "odd"}),
    "hostile address": ({"api_base": hostile("__bool__", "__len__", "__str__")()}, {"model": "odd"}),
    "one choice": ({"n": 1}, {"choice.count": None}),
    "no choice at all": ({"n": None}, {"choice.count": None}),
    "tools as a dict": ({"tools": {"a": 1}}, {"model": "odd"}),
    "hostile tools": ({"tools": hostile("__bool__", "__len__", "__iter__")()}, {"model": "odd"}),
    "odd tools": ({"tools": [None, 3, hostile("get", "__bool__")(), {"function": 7}]}, {"model": "odd"}),
}


@pytest.mark.parametrize("at_the_call", [True, False])
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_any_kind(name: str, at_the_call: bool) -> None:
    """Whatever stands in an LM's parameters or in those of a call: what is good of them is told, and the rest of the
    span in any case.
    """
    given, expected = PARAMETERS[name]

    def ask(server: Any) -> Any:
        lm = OddLM(response())
        if not at_the_call:
            lm.kwargs.update(given)
        return lm("hi", **(given if at_the_call else {}))

    span = alike(ask).one("chat odd")
    attributes = dict(span.attributes or {})
    assert used(span) == BOTH
    assert "hi" in str(attributes["gen_ai.input.messages"])
    for key, value in expected.items():
        assert attributes.get(f"gen_ai.request.{key}") == value, key
    assert "secret" not in str(attributes)


class DirectLM(OddLM):
    """Answers by a call of its own, so that DSPy looks at nothing of what it is given."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        return [f"{name}: {len(list(value))}" for name, value in kwargs.items()]


class Endless(Sequence[Any]):
    """A sequence that has no end, and says that it has one."""

    def __getitem__(self, index: Any) -> Any:
        return {"role": "user", "content": "more"}

    def __len__(self) -> int:
        return 1


MESSAGES: dict[str, tuple[Any, str]] = {
    "none": ([], "[]"),
    "text": ("hi", "hi"),
    "a number": (7, "7"),
    "of odd items": ([None, 7, "text", object(), {"role": "user", "content": "hi"}], "hi"),
    "of odd content": ([{"role": "user", "content": {1: {2}}}, {"role": None, "content": [None, 7, {}]}], "user"),
    "without role and content": ([{}, {"content": "hi"}, {"role": "user"}], "hi"),
    "a tuple": (({"role": "user", "content": "hi"},), "hi"),
    "hostile mapping": ([Reading(role="user", content="hi"), hostile("get", "__getitem__", base=dict)()], "unreadable"),
    "hostile content": ([{"role": "user", "content": hostile("__len__", "__iter__", "__bool__", base=list)()}], ""),
    "hostile sequence": (hostile("__iter__", "__len__", base=list)(), ""),
    "endless": (Endless(), "more"),
    "tool calls of odd kinds": (
        [{"role": "assistant", "content": None, "tool_calls": [None, 7, {"function": 3}]}],
        "tool",
    ),
    "media of odd kinds": (
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": 7}, {"type": "input_audio"}, {"type": "file"}],
            }
        ],
        "image",
    ),
    "surrogates": ([{"role": "\ud800", "content": "\ud800"}], "?"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_of_any_shape(name: str) -> None:
    """Whatever an LM takes for messages: it is called with them, and they are told as far as can be."""
    messages, told = MESSAGES[name]
    attributes = dict(alike(lambda server: DirectLM()(messages=messages)).one("chat odd").attributes or {})
    assert told in str(attributes["gen_ai.input.messages"])


def test_tools_that_can_be_read_once() -> None:
    """A generator of tools is the LM's to read: it gets all of them."""
    trace = alike(lambda server: DirectLM()("hi", tools=({"name": name} for name in "abc")))
    assert trace.one("chat odd").attributes["gen_ai.request.model"] == "odd"
    with record(capture_content=True):
        assert DirectLM()("hi", tools=iter([1, 2, 3])) == ["tools: 3"]
