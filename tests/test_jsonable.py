"""Any value becomes bounded, valid JSON: properties that hold for all values and all limits."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import json
import math
import uuid
from collections import OrderedDict, deque
from typing import Any, NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dspy_trace.secrets.names import looks_secret
from dspy_trace.values.jsonable import LIMIT, cut, dumps


class Color(enum.Enum):
    RED = "red"
    BLUE = ("blue", 2)


class Opaque:
    """Nothing is known of it."""


def strictly(text: str) -> Any:
    """Parse JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Hypothesis leaves lone surrogates out by default; here they are what matters.
TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**4000), max_value=10**4000),  # longer ones could not be shown where a test fails
    st.floats(),
    TEXT,
    st.binary(max_size=40),
    st.sampled_from(Color),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals().filter(lambda number: not number.is_snan()),  # cannot be hashed
    st.uuids(),
    st.fractions(),
    st.complex_numbers(),
    st.tuples(st.integers(), TEXT),
)
ANY = st.recursive(
    st.one_of(HASHABLE, st.builds(Opaque), st.just(int), st.just(len), st.builds(ValueError, TEXT)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=6).map(tuple),
        st.lists(inner, max_size=6).map(deque),
        st.dictionaries(HASHABLE, inner, max_size=6),
        st.dictionaries(TEXT, inner, max_size=6).map(OrderedDict),
        st.frozensets(HASHABLE, max_size=6),
    ),
    max_leaves=25,
)
NAME = st.text(max_size=20).filter(lambda name: not looks_secret(name))
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=40),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(NAME, inner, max_size=5)),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(ANY, st.integers(1, 100_000))
def test_any_value_becomes_valid_json_within_the_limit(value: Any, limit: int) -> None:
    """Whatever the value and the limit: no exception, valid JSON, not a character too many."""
    text = dumps(value, limit)
    strictly(text)
    assert len(text) <= limit


@settings(max_examples=100, deadline=None)
@given(ANY, st.integers(1, 300))
def test_tight_limits_hold_too(value: Any, limit: int) -> None:
    """Where nearly nothing fits, what is left is still valid JSON."""
    text = dumps({"a": [value, value], "b": value}, limit)
    strictly(text)
    assert len(text) <= limit


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_a_plain_value_that_fits_is_kept_as_it_is(value: Any) -> None:
    """JSON in, the same JSON out; and once more gives the same text."""
    text = dumps(value)
    assert strictly(text) == value
    assert dumps(strictly(text)) == text


@settings(max_examples=100, deadline=None)
@given(ANY)
def test_the_result_is_stable(value: Any) -> None:
    """What has become plain data stays the same when it is captured again."""
    text = dumps(value, 4_096)
    assert dumps(strictly(text), 8_192) == text


@settings(max_examples=100, deadline=None)
@example([("\x00", 11_000), ("a", 100_000)], 65_536)  # where guessing what fits takes many steps
@given(
    st.lists(st.tuples(st.sampled_from('a\x00\n"\\é\U0001f600\ud800'), st.integers(1, 40_000)), min_size=1, max_size=5),
    st.integers(400, 70_000),
)
def test_a_long_text_keeps_its_beginning(runs: list[tuple[str, int]], limit: int) -> None:
    """However much longer JSON makes the characters: a text is cut, never dropped."""
    value = "".join(character * count for character, count in runs)
    text = dumps(value, limit)
    told = strictly(text)
    expected = value.replace("\ud800", "?")
    assert told == expected or (told[:8] == expected[:8] and "[cut" in told)
    assert len(text) >= min(limit // 16, len(value))


def test_what_is_cut_is_said_in_place() -> None:
    """A cut text tells its length; a cut list and a cut dict how many items are missing."""
    text = strictly(dumps({"text": "x" * 100_000}))["text"]
    assert text.startswith("xxxx")
    assert text.endswith("… [cut: 100000 characters in all]")

    items = strictly(dumps(list(range(50_000))))
    assert items[-1] == f"[cut: {50_000 - (len(items) - 1)} more items]"
    assert items[:3] == [0, 1, 2]

    entries = strictly(dumps({f"key {number}": number for number in range(50_000)}))
    assert entries["[cut]"] == f"{50_000 - (len(entries) - 1)} more entries"
    assert entries["key 2"] == 2


@pytest.mark.parametrize("value", ["", None, 0], ids=repr)
def test_many_small_items_are_never_dropped_in_silence(value: Any) -> None:
    """Even where each item takes next to no room, what is missing is counted."""
    for limit in (LIMIT, 100_000):
        items = strictly(dumps([value] * 30_000, limit))
        told = [item for item in items if item == value]
        assert len(told) == 30_000 or items[-1] == f"[cut: {30_000 - len(told)} more items]", limit


def test_too_deep_a_value_is_cut() -> None:
    """Nesting ends at a fixed depth, which is said, though the value were endless."""
    nested: list[Any] = []
    inner = nested
    for _ in range(10_000):
        inner.append([])
        inner = inner[0]
    assert "[cut: too deep]" in dumps(nested)
    assert dumps([[["kept"]]]) == '[[["kept"]]]'


def test_cycles_end() -> None:
    """A value that holds itself is cut at that depth."""
    cycle: dict[str, Any] = {"name": "loop"}
    cycle["self"] = cycle
    cycle["list"] = [cycle]
    told = strictly(dumps(cycle))
    assert told["name"] == "loop"
    assert told["self"]["self"]["name"] == "loop"
    assert "[cut" in dumps(cycle)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, '"nan"'),
        (-math.inf, '"-inf"'),
        (2**63 - 1, "9223372036854775807"),
        (2**70, f'"{2**70}"'),
        (-(10**5000), f'"<int of {(10**5000).bit_length()} bits>"'),
        ("\ud800x", '"?x"'),
        ({"\udfff": "\ud800"}, '{"?":"?"}'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), '"2026-01-02 03:04:05"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Color.RED, '"red"'),
        (Color.BLUE, '["blue",2]'),
        (fractions.Fraction(1, 2), '"<fractions.Fraction>"'),
        (Opaque(), '"<tests.test_jsonable.Opaque>"'),
        (Opaque, '"<class tests.test_jsonable.Opaque>"'),
        (test_cycles_end, '"<function test_cycles_end>"'),
        (ValueError("no"), '"ValueError: no"'),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_values_that_json_lacks(value: Any, text: str) -> None:
    """Each kind of value that JSON has no word for has one fixed form."""
    assert dumps(value) == text


def test_keys_of_all_kinds_are_told_apart() -> None:
    """JSON has only text keys: others are written as their values are, and none takes another's place."""
    told = strictly(dumps({1: "int", "1": "text", None: "none", 1.5: "float", Color.RED: "enum", (1, "a"): "pair"}))
    assert set(told.values()) == {"int", "text", "none", "float", "enum", "pair"}
    assert (told["null"], told["1.5"], told["red"], told['[1,"a"]']) == ("none", "float", "enum", "pair")

    pairs = {(number, number): number for number in range(50)}
    assert sorted(strictly(dumps(pairs)).values()) == list(range(50))
    long = {"k" * 300 + str(number): number for number in range(3)}
    assert sorted(strictly(dumps(long)).values()) == [0, 1, 2]


def test_plain_text_is_cut_with_its_length() -> None:
    """Text that is no JSON, such as an exception's, keeps its beginning and says what is missing."""
    assert cut("short", 10) == "short"
    assert cut("x" * 100, 60) == "x" * 30 + "… [cut: 100 characters in all]"
    for limit in range(1, 120):
        assert len(cut("x" * 500, limit)) <= limit
