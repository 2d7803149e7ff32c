"""What is asked of delivery by hand: feedback on a trace, and waiting for it; wrong arguments say what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

import dspy_trace
from tests.outlets import Kept, kept  # noqa: F401  # a fixture

TRACE = "ab" * 16


def told(kept: Kept) -> list[dict[str, Any]]:
    """Return the feedback in the spool, without its time."""
    found = [orjson.loads(payload) for (payload,) in kept.out.delivery.file().read("SELECT payload FROM followups")]
    return [{key: value for key, value in one.items() if key != "time"} for one in found]


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"trace_id": None}, TypeError, r"trace_id must be a string, not NoneType; last_trace_id\(\) gives None"),
    ({"trace_id": b"ab" * 16}, TypeError, "trace_id must be a string, not bytes"),
    ({"trace_id": "tr-12"}, ValueError, "trace_id must be 32 hexadecimal digits, not '12'"),
    ({"name": None}, TypeError, "name must be a string"),
    ({"name": ""}, ValueError, "name must not be empty"),
    ({"value": None}, TypeError, "value must be a number, text, bool, list or dict, not NoneType"),
    ({"value": object()}, TypeError, "value must be .* not object"),
    ({"value": np.array([1, 2])}, TypeError, "value must be .* not ndarray"),
    ({"value": float("nan")}, ValueError, "value must be finite"),
    ({"rationale": 3}, TypeError, "rationale must be a string"),
    ({"source_type": "ROBOT"}, ValueError, "source_type must be one of .*LLM_JUDGE.* not 'ROBOT'"),
    ({"source_id": 7}, TypeError, "source_id must be a string"),
    ({"metadata": ["page"]}, TypeError, "metadata must be a mapping, not list"),
    ({"span_id": 7}, TypeError, "span_id must be a string"),
    ({"span_id": "xy" * 8}, ValueError, "span_id must be 16 hexadecimal digits"),
]


@pytest.mark.parametrize(("asked", "error", "says"), WRONG, ids=lambda value: str(value)[:30])
def test_wrong_feedback_is_an_error_that_names_it(
    kept: Kept, asked: dict[str, Any], error: type[Exception], says: str
) -> None:
    """Whatever would be refused later, where nobody sees it, is said at once; nothing of it is kept."""
    with pytest.raises(error, match=says):
        dspy_trace.log_feedback(**{"trace_id": TRACE, "name": "helpful", "value": True, **asked})
    dspy_trace.log_feedback(TRACE, "helpful", True)
    assert [one["name"] for one in told(kept)] == ["helpful"]


@pytest.mark.parametrize(
    ("value", "kept_as"),
    [(0, 0), (False, False), ("", ""), ([], []), ({}, {}), (np.float64(0.5), 0.5), (np.int64(3), 3), ("\ud83d", "?")],
    ids=repr,
)
def test_what_is_said_is_kept_as_it_is(kept: Kept, value: Any, kept_as: Any) -> None:
    """Values that are false are values, numbers of NumPy are numbers, and what UTF-8 cannot hold costs itself alone."""
    about: dict[str, Any] = {"metadata": {"page": 2}, "span_id": "AB" * 8}
    dspy_trace.log_feedback("tr-" + TRACE.upper(), "score", value, "so\udc80", **about)
    assert told(kept) == [
        {
            "name": "score",
            "value": kept_as,
            "source_type": "HUMAN",
            "source_id": "default",
            "rationale": "so?",
            "metadata": {"page": "2"},
            "span_id": "ab" * 8,
        }
    ]


@pytest.mark.parametrize("wait", [dspy_trace.flush, dspy_trace.shutdown])
@pytest.mark.parametrize("timeout", [None, "3", True, float("nan")], ids=repr)
def test_a_wrong_timeout_is_an_error_and_ends_nothing(kept: Kept, wait: Any, timeout: Any) -> None:
    """What is no number of seconds is said before anything is ended."""
    dspy_trace.autolog()
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        wait(timeout)
    assert dspy_trace.DSPyInstrumentor().is_instrumented_by_opentelemetry


def test_any_number_of_seconds_will_do(kept: Kept) -> None:
    """Less than none is none, and no end is as long as it takes."""
    dspy_trace.autolog()
    assert dspy_trace.flush(float("inf"))
    assert dspy_trace.flush(-1)
