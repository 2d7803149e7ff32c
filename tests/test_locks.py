"""Locks between processes."""

from __future__ import annotations

from pathlib import Path

from dspy_trace.export.locks import ProcessLock, is_free


def test_locks_are_between_processes_and_die_with_their_holder(tmp_path: Path) -> None:
    """Many may share a lock while nobody has it exclusively, and the other way round."""
    path = tmp_path / "lock"
    one, two, three = (ProcessLock(path) for _ in range(3))
    assert is_free(path)
    assert one.acquire(shared=True)
    assert two.acquire(shared=True)
    assert not three.acquire()
    assert not is_free(path)
    one.release()
    two.release()
    assert three.acquire()
    assert not one.acquire(shared=True)
    three.release()
    assert is_free(path)
