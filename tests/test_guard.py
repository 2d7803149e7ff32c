"""The guard: what fails in our own code is swallowed, counted, and said once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from dspy_trace import guard


class Bug(Exception):
    """A defect of ours."""


def buggy(*args: Any, **kwargs: Any) -> Any:
    raise Bug("a defect of ours")


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Swallow, as outside of our suite, and count anew."""
    monkeypatch.setattr(guard, "strict", False)
    monkeypatch.setattr(guard, "failures", Counter())
    return guard.failures


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_what_is_no_exception_passes(kind: type[BaseException], failures: Counter[str]) -> None:
    """Interrupts, cancellation and exits are nobody's to swallow."""

    def interrupted() -> None:
        raise kind

    for call in (lambda: guard.shielded("step", interrupted), lambda: guard.ask(interrupted)):
        with pytest.raises(kind):
            call()
    assert not failures


def test_shielded_and_ask(failures: Counter[str], caplog: pytest.LogCaptureFixture) -> None:
    """Both return the function's value; a failure gives nothing, or the default. Only our own is counted and logged."""
    assert guard.shielded("step", divmod, 7, 2) == (3, 1)
    assert guard.ask(divmod, 7, 2) == (3, 1)
    assert guard.ask(buggy) is None
    assert guard.ask(buggy, default="d") == "d"
    assert not failures
    assert not caplog.records
    for step in ("a", "b", "a", "a"):
        assert guard.shielded(step, buggy) is None
    assert failures == {"a": 3, "b": 1}
    assert [entry.args[0] for entry in caplog.records if entry.args] == ["a", "b"]


def test_in_our_own_suite_nothing_is_swallowed() -> None:
    """``strict`` lets a failure of ours fail the test; what the host's objects raise is still theirs."""
    with pytest.raises(Bug):
        guard.shielded("step", buggy)
    assert guard.ask(buggy, default=1) == 1


def test_failures_are_counted_across_threads(failures: Counter[str], caplog: pytest.LogCaptureFixture) -> None:
    """No failure is lost and none is logged twice, however many threads fail at once."""
    start = threading.Barrier(8)

    def fail() -> None:
        start.wait()
        for _ in range(250):
            guard.shielded("step", buggy)

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == {"step": 2_000}
    assert len(caplog.records) == 1
