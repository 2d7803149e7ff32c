"""Data objects become their fields, binary content its digest, and ``redact`` has the last word."""

from __future__ import annotations

import array
import base64
import collections
import dataclasses
import hashlib
import json
import types
from typing import Any

import attrs
import dspy
import pydantic
import pytest

from dspy_trace.values.jsonable import dumps
from dspy_trace.values.media import without_data

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"
TOLD = {"media_type": "image/png", "size": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}


def told(value: Any, **kwargs: Any) -> Any:
    return json.loads(dumps(value, **kwargs))


@dataclasses.dataclass
class Plain:
    city: str
    inner: Any = None
    unset: str = dataclasses.field(init=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    city: str


@dataclasses.dataclass
class Computed:
    """A well-known trick: the field is a property."""

    city: str

    @property  # type: ignore[no-redef]
    def city(self) -> str:
        raise AssertionError("a property was read")

    @city.setter
    def city(self, value: str) -> None:
        self._city = value


@attrs.define
class Attrs:
    city: str
    tags: list[str] = attrs.field(factory=list)


class Pydantic(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    city: str
    inner: Any = None
    _private: str = "private"


class Sub(Pydantic):
    zip_code: int = 1

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> str:
        raise AssertionError("a property was read")


Pair = collections.namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Plain("Paris", Plain("Rome")), {"city": "Paris", "inner": {"city": "Rome", "inner": None}}),
        (Slotted("Paris"), {"city": "Paris"}),
        (Computed("Paris"), {}),
        (Attrs("Paris", ["a"]), {"city": "Paris", "tags": ["a"]}),
        (Pydantic(city="Paris", inner=[1], more=1), {"city": "Paris", "inner": [1], "more": 1}),
        (Sub(city="Paris", zip_code=2), {"city": "Paris", "inner": None, "zip_code": 2}),
        (Pair(1, [Pair("a", None)]), {"left": 1, "right": [{"left": "a", "right": None}]}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (collections.UserDict(a=1), {"a": 1}),
        (collections.deque([1, 2], maxlen=5), [1, 2]),
        ({3}, [3]),
        (frozenset({"x"}), ["x"]),
        (range(3), "<builtins.range>"),
        (dspy.Example(question="q", answer=1).with_inputs("question"), {"question": "q", "answer": 1}),
        (dspy.Prediction(answer="a", scores=[0.5]), {"answer": "a", "scores": [0.5]}),
        (dspy.History(messages=[{"question": "q", "answer": "a"}]), {"messages": [{"question": "q", "answer": "a"}]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_objects_are_their_fields(value: Any, expected: Any) -> None:
    """Dataclasses, attrs, pydantic, named tuples, mappings and DSPy's own: fields, read without running their code."""
    assert told(value) == expected


def test_a_tool_tells_what_it_is() -> None:
    """A Tool, or one of a class of the host's, is its name, description and arguments: no function, and no rest."""

    def weather(city: str, password: str = "hunter22") -> str:
        """Tell the weather."""
        raise AssertionError("the function was called")

    class Own(dspy.Tool):
        note: str = "of the host's"

    city, password = {"type": "string"}, {"type": "string", "default": "[secret]"}
    expected = {"name": "weather", "desc": "Tell the weather.", "args": {"city": city, "password": password}}
    assert told([dspy.Tool(weather), Own(weather)]) == [expected, expected]


@pytest.mark.parametrize("value", [PNG, bytearray(PNG), memoryview(PNG)], ids=lambda value: type(value).__name__)
def test_bytes_are_a_digest(value: Any) -> None:
    """Of bytes: type, size and SHA-256."""
    assert told({"data": value}) == {"data": {**TOLD, "media_type": "application/octet-stream"}}


def test_the_size_of_a_view_is_in_bytes() -> None:
    """A view of wider items, or of every second one, is measured in bytes."""
    assert told(memoryview(array.array("d", [1.0, 2.0])))["size"] == 16
    assert told(memoryview(PNG)[::2])["size"] == len(PNG) // 2


@pytest.mark.parametrize(
    "value",
    [
        DATA_URL,
        {"url": DATA_URL},
        ["text", DATA_URL],
        {"a": "text", "b": {"image_url": {"url": DATA_URL}}},
        dspy.Image(url=DATA_URL),
        dspy.File(file_data=f"data:application/pdf;base64,{BASE64}", filename="a.pdf"),
        dspy.Audio(data=BASE64, audio_format="wav"),
        dspy.Audio(data=BASE64, audio_format="wav").format(),
        {"type": "base64", "media_type": "image/png", "data": BASE64},
        {"mime_type": "image/png", "data": BASE64},
        {"data": [{"b64_json": BASE64, "revised_prompt": "a lamp"}]},
        f"Look at {DATA_URL} and at '{DATA_URL}'.",
        str(dspy.Image(url=DATA_URL)),
        {"observation": "x" * 100 + DATA_URL + "y" * 100},
        json.dumps({"url": DATA_URL}),
        type("Text", (str,), {})(f"see {DATA_URL}"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("limit", [100_000, 1_500])
def test_images_audio_and_files_are_never_bytes(value: Any, limit: int) -> None:
    """Wherever binary content stands, in whatever form DSPy has it: its size and SHA-256, and none of it."""
    text = dumps(value, limit)
    for start in range(0, len(BASE64) - 24, 24):
        assert BASE64[start : start + 24] not in text
    assert TOLD["sha256"] in text
    assert str(TOLD["size"]) in text


def test_a_data_url_is_told_by_its_content() -> None:
    """Type, size and SHA-256 are those of the decoded content: what ``sha256sum`` says of the file."""
    assert told(DATA_URL) == TOLD
    assert told(dspy.Image(url=DATA_URL)) == {"url": TOLD}
    parameters = f"data:image/png;charset=utf-8;base64,{BASE64}"
    assert told([parameters]) == [TOLD]
    assert told("data:;base64,aGk=") == {
        "media_type": "text/plain",
        "size": 2,
        "sha256": hashlib.sha256(b"hi").hexdigest(),
    }
    assert without_data(f"<{DATA_URL}>") == f"<[image/png: {len(PNG)} bytes, sha256 {TOLD['sha256']}]>"


@pytest.mark.parametrize(
    "value",
    [
        "data: nothing special",
        {"data": "some text", "format": "markdown"},
        {"data": "c29tZSB0ZXh0", "rows": 3},
        {"data": "x" * 33, "format": "y"},
        "the word ;base64, alone",
        "https://example.org/data:image",
    ],
    ids=str,
)
def test_text_that_only_looks_like_media_is_kept(value: Any) -> None:
    """What is no binary content stays readable."""
    assert told(value) == value


def test_numpy() -> None:
    """Scalars are numbers; of an array shape and type are told, not what may be millions of values."""
    np = pytest.importorskip("numpy")
    values = {
        "int": np.int64(3),
        "float": np.float32(0.5),
        "bool": np.bool_(True),
        "nan": np.float64("nan"),
        "text": np.str_("x"),
        "date": np.datetime64("2026-01-02"),
        "zero-d": np.array(7),
        "array": np.zeros((2, 3), dtype=np.float32),
        "huge": np.zeros(10_000_000, dtype=np.int8),
        "objects": np.array([object()], dtype=object),
    }
    assert told(values) == {
        "int": 3,
        "float": 0.5,
        "bool": True,
        "nan": "nan",
        "text": "x",
        "date": "2026-01-02",
        "zero-d": 7,
        "array": "<numpy.ndarray shape=(2, 3) dtype=float32>",
        "huge": "<numpy.ndarray shape=(10000000,) dtype=int8>",
        "objects": "<numpy.ndarray shape=(1,) dtype=object>",
    }
    assert told({np.int64(3): "key"}) == {"3": "key"}


def test_redact_sees_plain_data_and_has_the_last_word() -> None:
    """It gets the plain form, once, and what it returns is what is told."""
    seen: list[Any] = []

    def redact(value: Any) -> Any:
        seen.append(value)
        return {**value, "city": "***"}

    assert told(Plain("Paris"), redact=redact) == {"city": "***", "inner": None}
    assert seen == [{"city": "Paris", "inner": None}]
    assert type(seen[0]) is dict
    assert told("secret", redact=lambda value: value.replace("secret", "***")) == "***"


@pytest.mark.parametrize("length", [10, 200_000])
def test_redact_is_asked_once(length: int) -> None:
    """It is asked once for each value, even where the result has to be cut."""
    calls: list[Any] = []
    text = dumps({"a": '"' * length}, redact=lambda value: calls.append(value) or value)
    assert len(calls) == 1
    assert len(text) <= 65_536
    assert json.loads(text)["a"].startswith('""')


def test_a_failing_redact_costs_the_value() -> None:
    """Better nothing than what was meant to be hidden."""

    def redact(value: Any) -> Any:
        raise ValueError(f"cannot redact {value}")

    assert dumps({"key": "secret"}, redact=redact) == '"[redact failed]"'


@pytest.mark.parametrize("limit", [100, 65_536])
@pytest.mark.parametrize(
    "given", [object(), {1: {2}}, b"x", "\ud800", float("nan"), "x" * 200_000, [["y"] * 50] * 5_000]
)
def test_whatever_redact_returns_is_valid_json(given: Any, limit: int) -> None:
    """A result that no JSON holds, or too large a one, goes the way of all values."""
    text = dumps("value", limit, lambda value: given)
    json.loads(text)
    assert len(text) <= limit
