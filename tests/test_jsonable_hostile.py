"""Values that raise, loop, lie or change while they are read: bounded JSON all the same, and none of their code run."""

from __future__ import annotations

import enum
import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import dspy
import pydantic
import pytest

from dspy_trace.values.jsonable import LIMIT, dumps
from dspy_trace.values.media import digest


class Called(BaseException):
    """Code of the host's was run. Nothing of ours swallows it: it is no ``Exception``."""


def trap(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise Called


METHODS = (
    "__repr__ __str__ __format__ __bytes__ __bool__ __len__ __length_hint__ __iter__ __next__ __contains__ __getitem__ "
    "__missing__ __eq__ __ne__ __lt__ __gt__ __getattr__ __getattribute__ __getstate__ __reduce_ex__ __copy__ "
    "__deepcopy__ __int__ __float__ __index__ __sizeof__ __call__"
)
TRAPS: dict[str, Any] = {
    **dict.fromkeys(METHODS.split(), trap),
    **dict.fromkeys(("items", "keys", "values", "get", "copy", "encode", "startswith", "find", "toDict"), trap),
    **dict.fromkeys(("model_dump", "json", "dict", "format", "tobytes", "shape"), property(trap)),
    "__class__": property(trap),
}


def trapped(*bases: type, **more: Any) -> Any:
    """Return a class all of whose methods and properties are traps."""
    return type("Trapped", bases, {**TRAPS, "__hash__": object.__hash__, "__module__": "host", **more})


class Level(enum.Enum):
    LOW = 1


# Later, since making an enumeration uses what is set here.
for _name in ("__str__", "__repr__", "__eq__", "__getattribute__"):
    setattr(Level, _name, trap)


class Model(pydantic.BaseModel):
    city: str
    __str__ = __repr__ = __eq__ = __iter__ = model_dump = trap  # type: ignore[assignment]


@attrs.define(eq=False, repr=False)
class Record:
    city: str
    __str__ = __repr__ = __eq__ = trap  # type: ignore[assignment]


class Row(dspy.Example):
    __str__ = __repr__ = __eq__ = __len__ = __iter__ = toDict = items = keys = trap  # type: ignore[assignment]


HOSTILE: dict[str, tuple[Callable[[], Any], Any]] = {
    "object": (trapped(), "<host.Trapped>"),
    "slots": (trapped(object, __slots__=("a",)), "<host.Trapped>"),
    "dict": (lambda: trapped(dict)({"a": 1}), {"a": 1}),
    "list": (lambda: trapped(list)([1, 2]), [1, 2]),
    "tuple": (lambda: trapped(tuple)((1, 2)), [1, 2]),
    "set": (lambda: trapped(set)([1]), [1]),
    "deque": (lambda: trapped(deque)([1]), [1]),
    "str": (lambda: trapped(str)("text"), "text"),
    "int": (lambda: trapped(int)(7), 7),
    "huge int": (lambda: trapped(int)(2**70), str(2**70)),
    "float": (lambda: trapped(float)(0.5), 0.5),
    "infinity": (lambda: trapped(float)("inf"), "inf"),
    "bytes": (lambda: trapped(bytes)(b"ab"), digest(b"ab")),
    "enum": (lambda: Level.LOW, 1),
    "pydantic": (lambda: Model(city="Paris"), {"city": "Paris"}),
    "attrs": (lambda: Record("Paris"), {"city": "Paris"}),
    "example": (lambda: Row(city="Paris"), {"city": "Paris"}),
    "key": (lambda: {trapped()(): 1}, {"<host.Trapped>": 1}),
    "key with the hash of another": (
        lambda: {trapped(__hash__=lambda self: hash("data"))(): "x"},
        {"<host.Trapped>": "x"},
    ),
    "str key": (
        lambda: {trapped(str, __hash__=str.__hash__)("data"): "x" * 40, "format": "y"},
        {"data": "x" * 40, "format": "y"},
    ),
    "number keys": (
        lambda: {trapped(float, __hash__=float.__hash__)(1.5): 1, trapped(int, __hash__=int.__hash__)(3): 2},
        {"1.5": 1, "3": 2},
    ),
    "class": (lambda: trapped(type)("Meta", (), {"__module__": "host"}), "<class host.Meta>"),
    "nested": (lambda: {"nested": [{"deep": trapped()()}]}, {"nested": [{"deep": "<host.Trapped>"}]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_code_of_the_host_is_run(name: str) -> None:
    """No repr, property, comparison, length, iteration or conversion of the value's own: only what it holds."""
    make, expected = HOSTILE[name]
    value = make()
    assert json.loads(dumps(value)) == expected
    assert json.loads(dumps({"a": [value]}, 300)) == {"a": [expected]}


@pytest.mark.parametrize("limit", [1, 30, LIMIT])
def test_iterators_are_left_alone(limit: int) -> None:
    """What can be read only once is not read: the program gets every item."""
    values = {
        "generator": (number for number in range(3)),
        "endless": itertools.count(),
        "map": map(str, range(3)),
        "file": iter(["line"]),
    }
    text = dumps(values, limit)
    if limit == LIMIT:
        assert json.loads(text) == {
            "generator": "<builtins.generator>",
            "endless": "<itertools.count>",
            "map": "<builtins.map>",
            "file": "<builtins.list_iterator>",
        }
    assert [next(value) for value in values.values()] == [0, 0, "0", "line"]  # type: ignore[call-overload]


class Odd(Mapping[Any, Any]):
    """A mapping whose iteration and look-up are given."""

    def __init__(self, keys: Callable[[], Iterator[Any]], get: Callable[[Any], Any] = lambda key: 1) -> None:
        self._keys, self._get = keys, get

    def __iter__(self) -> Iterator[Any]:
        return self._keys()

    def __getitem__(self, key: Any) -> Any:
        return self._get(key)

    def __len__(self) -> int:
        raise Called


def _fails(key: Any) -> Any:
    raise OSError(f"no {key}")


def _keys_then_failure() -> Iterator[str]:
    yield "a"
    raise RuntimeError("gone")


def test_mappings_that_fail_or_never_end() -> None:
    """A failing key costs that value; an endless mapping is cut; a failing iteration keeps what it gave before."""
    assert json.loads(dumps({"m": Odd(lambda: iter("ab"), lambda key: {"a": 1}.get(key) or _fails(key)), "n": 2})) == {
        "m": {"a": 1, "b": "[unreadable]"},
        "n": 2,
    }
    endless = json.loads(dumps(Odd(itertools.count)))
    assert endless["[cut]"] == "more entries"
    assert endless["3"] == 1
    same_key = json.loads(dumps(Odd(lambda: itertools.repeat("")), 2_000))
    assert same_key["[cut]"] == "more entries"
    growing = Odd(lambda: iter(["next"]), lambda key: growing)
    assert "[cut: too deep]" in dumps(growing)
    assert json.loads(dumps(Odd(_keys_then_failure))) == {"a": 1, "[cut]": "changed while it was read"}
    assert json.loads(dumps([Odd(lambda: _fails("keys")), 1])) == ["<Odd>", 1]


def test_an_exception_whose_text_fails() -> None:
    """An exception without a text is told by its type, and a huge text is cut."""

    class Silent(ValueError):
        def __str__(self) -> str:
            raise OSError

    assert dumps(Silent("secret")) == f'"{Silent.__qualname__}: "'
    assert json.loads(dumps(ValueError("x" * 1_000_000))).startswith("ValueError: xxxx")


def test_a_value_that_shares_its_parts() -> None:
    """What is small in memory and astronomical when written out ends at the bound."""
    for empty in ("", [], {}, None):
        value: Any = empty
        for _ in range(20):
            value = [value] * 60
        started = time.perf_counter()
        assert len(dumps(value)) <= LIMIT
        assert time.perf_counter() - started < 2


def test_a_dict_that_changes_while_it_is_read() -> None:
    """What has been read so far is kept, and the change is said: deterministic, by a value that changes its holder."""
    holder: dict[str, Any] = {}
    holder.update(first=1, second=Odd(lambda: iter([holder.setdefault("new", 1)])), third=3)
    found = json.loads(dumps(holder))
    assert found["first"] == 1
    assert found["[cut]"] == "changed while it was read"


@pytest.mark.parametrize("values", [["text"], [1, None, {"a": {"b": "c"}}]], ids=["flat", "nested"])
def test_another_thread_changes_the_value_meanwhile(values: list[Any]) -> None:
    """No exception and valid JSON, whatever a second thread does to dicts, lists and sets at that moment."""
    shared: dict[str, Any] = {"list": [], "set": set(), "dict": {}}
    stop = threading.Event()

    def change() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            for target in (shared, shared["dict"]):
                target[f"key {number % 50}"] = values[number % len(values)]
                target.pop(f"key {(number * 7) % 50}", None)
            shared["set"].symmetric_difference_update({number % 50})
            shared["list"][:] = range(number % 50)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            for value in (shared, shared["dict"], [shared["dict"], shared["list"], shared["set"]]):
                json.loads(dumps(value))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


class Text(str):
    pass


HUGE: dict[str, Callable[[int], Any]] = {
    "text": lambda size: "x" * size,
    "text in a dict": lambda size: {"question": "x" * size},
    "text in messages": lambda size: [{"role": "user", "parts": [{"type": "text", "content": "x" * size}]}],
    "text subclass": lambda size: Text("x" * size),
    "two-byte text": lambda size: {"a": "ü" * (size // 2), "b": object()},
    "list": lambda size: [None] * (size // 8),
    "list of texts": lambda size: ["abc"] * (size // 8),
    "dict": lambda size: dict.fromkeys(range(size // 64), "x"),
    "text dict": lambda size: {str(number): "" for number in range(size // 64)},
    "long key": lambda size: {"x" * size: "", "y": 1},
    "long keys of texts": lambda size: {"x" * size: ""},
    "set": lambda size: set(range(size // 64)),
    "data object": lambda size: dspy.Example(text="x" * size, items=[1] * (size // 8)),
    "exception": lambda size: ValueError("x" * size),
    "integer": lambda size: 1 << (size // 4),
}


@pytest.mark.parametrize("make", HUGE.values(), ids=HUGE)
def test_the_time_does_not_grow_with_the_value(make: Callable[[int], Any]) -> None:
    """Beyond the limit, a value of 50 MB costs about what one of 1 MB does: not a tenth of a linear growth."""

    def cost(value: Any) -> float:
        times = []
        for _ in range(7):
            started = time.perf_counter()
            dumps(value)
            times.append(time.perf_counter() - started)
        return min(times)

    small, large = cost(make(1_000_000)), cost(make(50_000_000))
    # Half a millisecond is less than it takes to read 50 MB once.
    assert large < 5 * small + 0.0005
