"""``autolog()``: from where it may be called, what it takes, and which calls its settings hold for."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import dspy
import pytest

import dspy_trace
from dspy_trace.export import spoolfile
from dspy_trace.export.outlet import existing
from dspy_trace.observing.wrapping import leftovers
from tests.delivery import eventually
from tests.outlets import Kept, dummy, kept  # noqa: F401  # a fixture
from tests.pair import TREE as TWO
from tests.pair import Pair
from tests.parts.scripted_mlflow import ScriptedMlflow

ONE = """
> invoke_workflow Predict
  chat dummy
"""


def ask(question: str = "Why?", **settings: Any) -> str:
    """Make one call; return the answer."""
    with dspy.context(lm=dummy(), **settings):
        return str(dspy.Predict("question -> answer")(question=question).answer)


WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"tracking_uri": 7}, TypeError),
    ({"experiment": 7}, TypeError),
    *(
        ({name: "false"}, TypeError)
        for name in ("log_traces", "log_traces_from_eval", "log_evals", "disable", "silent")
    ),
    ({"capture_content": 1.5}, TypeError),
    ({"capture_content": "SOMEWHERE"}, ValueError),
    ({"detail": 3}, TypeError),
    ({"detail": "everything"}, ValueError),
    ({"conventions": "genai"}, TypeError),
    ({"conventions": {"zipkin"}}, ValueError),
    ({"redact": "secrets"}, TypeError),
    ({"tracer_provider": "mine"}, TypeError),
    ({"nonsense": True}, TypeError),
]


@pytest.mark.parametrize(("asked", "error"), WRONG, ids=lambda value: next(iter(value)) if type(value) is dict else "")
def test_a_wrong_argument_raises_and_changes_nothing(kept: Kept, asked: dict[str, Any], error: type[Exception]) -> None:
    """A wrong argument is an error that names it; tracing goes on as it was, or stays off."""
    with pytest.raises(error, match=next(iter(asked))):
        dspy_trace.autolog(**asked)
    assert ask() == "yes"
    assert kept.rows() == []
    dspy_trace.autolog(experiment="first")
    with pytest.raises(error, match=next(iter(asked))):
        dspy_trace.autolog(**asked)
    assert ask() == "yes"
    assert kept.tree() == ONE
    assert kept.targets() == [(kept.uri, "first")]


def test_one_line_is_enough(kept: Kept) -> None:
    """Without arguments, calls go whole into the store and experiment that the environment names."""
    dspy_trace.autolog()
    assert ask() == "yes"
    assert kept.tree() == ONE
    assert kept.targets() == [(kept.uri, "")]
    assert dspy_trace.last_trace_id() == kept.rows()[0]["trace_id"]


def test_arguments_go_before_the_environment(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a trace goes is read when it starts: the arguments, else the environment as it is then."""
    dspy_trace.autolog()
    ask()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "desk")
    ask()
    dspy_trace.autolog(experiment="bench")
    ask()
    dspy_trace.autolog(tracking_uri=kept.uri, experiment="12")
    ask()
    server = "http://127.0.0.1:9"
    assert kept.targets() == [(kept.uri, ""), (server, "desk"), (server, "bench"), (kept.uri, "12")]


def test_the_default_is_a_database_in_the_working_folder(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where nothing names a store, it is ``mlflow.db`` in the folder that is current when the trace starts."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    dspy_trace.autolog()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        ask()
    assert [uri for uri, _ in kept.targets()] == [f"sqlite:///{tmp_path}/{name}/mlflow.db" for name in ("one", "two")]
    assert list((tmp_path / "one").iterdir()) == []


@pytest.mark.parametrize("where", ["thread", "task"])
def test_it_may_be_called_from_anywhere(kept: Kept, where: str) -> None:
    """Called in a thread or a task that is over by then, it holds for every thread and task."""

    async def task() -> None:
        await asyncio.create_task(asyncio.to_thread(ask)) if dspy_trace.autolog() else None

    if where == "thread":
        thread = threading.Thread(target=dspy_trace.autolog)
        thread.start()
        thread.join()
    else:
        asyncio.run(task())
    ask()
    other = threading.Thread(target=ask)
    other.start()
    other.join()
    asyncio.run(asyncio.to_thread(ask))
    assert kept.tree() == ONE + 2 * ONE.lstrip("\n")


def test_it_may_be_called_again(kept: Kept) -> None:
    """Any number of calls is as one: each span is there once, and one ``disable`` ends it."""
    for _ in range(3):
        dspy_trace.autolog()
    ask()
    assert kept.tree() == ONE
    dspy_trace.autolog(disable=True)
    ask()
    assert kept.tree() == ONE
    assert leftovers() == []


def test_the_last_call_wins(kept: Kept) -> None:
    """Settings are those of the last call, not a mixture of all."""
    dspy_trace.autolog(detail="minimal", experiment="first", capture_content=False)
    dspy_trace.autolog(experiment="second")
    with dspy.context(lm=dummy()):
        Pair()(question="Why?")
    assert kept.tree() == TWO
    assert kept.targets() == [(kept.uri, "second")]
    assert all("mlflow.spanInputs" in row["attributes"] for row in kept.rows())


@pytest.mark.parametrize("later", [{"disable": True}, {"experiment": "second", "detail": "minimal"}], ids=["off", "on"])
def test_calls_in_flight_finish_under_their_settings(kept: Kept, later: dict[str, Any]) -> None:
    """A call that has begun goes where it was to go, in the detail and with the content that it began with."""
    dspy_trace.autolog(experiment="first", redact=lambda value: "[redacted]")
    with dspy.context(lm=dummy()):
        Pair(lambda: dspy_trace.autolog(**later))(question="Why?")
    rows = kept.rows()
    root = next(row for row in rows if row["root"])
    assert root["name"] == "invoke_workflow Pair"
    assert root["status"] == "OK"
    assert {row["attributes"]["mlflow.spanInputs"] for row in rows} == {"[redacted]"}
    assert kept.targets() == [(kept.uri, "first")]
    if "disable" not in later:
        assert kept.tree() == TWO
        ask()
        assert kept.targets() == [(kept.uri, "first"), (kept.uri, "second")]


def test_calling_it_again_tears_no_hole(kept: Kept) -> None:
    """While other threads call, it may be called as often as one likes: every trace is there, and whole."""
    dspy_trace.autolog()
    over = threading.Event()

    def call(n: int) -> None:
        program = Pair()
        for _ in range(20):
            with dspy.context(lm=dummy()):
                program(question=str(n))

    def again() -> None:
        while not over.is_set():
            dspy_trace.autolog()

    caller = threading.Thread(target=again)
    caller.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(call, range(4)))
    finally:
        over.set()
        caller.join()
    assert Counter(kept.tree().split("> ")) == Counter({"\n": 1, TWO.split("> ")[1]: 80})


@pytest.mark.parametrize("off", [{"disable": True}, {"log_traces": False}], ids=["disable", "log_traces"])
def test_off_and_on_again(kept: Kept, off: dict[str, Any]) -> None:
    """Switched off, nothing is recorded and DSPy is as it was; switched on again, all is as before."""
    before = dict(vars(dspy.Module)), dict(vars(dspy.Predict)), dict(vars(dspy.LM))
    dspy_trace.autolog(**off)
    dspy_trace.autolog()
    ask()
    dspy_trace.autolog(**off)
    assert (dict(vars(dspy.Module)), dict(vars(dspy.Predict)), dict(vars(dspy.LM))) == before
    assert leftovers() == []
    ask()
    assert kept.tree() == ONE
    dspy_trace.autolog()
    ask()
    assert kept.tree() == ONE + ONE.lstrip("\n")


def test_it_needs_no_callback(kept: Kept) -> None:
    """It is no callback of DSPy's: none that the program sets, globally or for a block, ends it, and it sets none."""
    dspy_trace.autolog()
    assert dspy.settings.callbacks == []
    try:
        dspy.configure(callbacks=[dspy.utils.callback.BaseCallback()])
        ask()
        dspy.configure(callbacks=[])
        ask()
    finally:
        dspy.configure(callbacks=[])
    ask(callbacks=[])
    assert kept.tree() == ONE + 2 * ONE.lstrip("\n")


def test_models_without_compiles(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """A wish that cannot be met is one WARNING, none under ``silent``; traces are logged all the same."""
    dspy_trace.autolog(log_evals=True, log_models=True, silent=True)
    dspy_trace.autolog(log_compiles=True, log_models=True)
    assert caplog.records == []
    dspy_trace.autolog(log_models=True)
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert "log_models=True logs what is compiled" in said.getMessage()
    ask()
    assert kept.tree() == ONE


def test_a_store_that_cannot_be_used_is_said_once(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """A tracking URI that traces cannot be kept in is one WARNING with the remedy; the spans are accounted for."""
    dspy_trace.autolog(tracking_uri=f"file://{kept.folder}/mlruns")
    assert [ask() for _ in range(3)] == ["yes"] * 3
    assert kept.rows() == []
    (said,) = [record for record in caplog.records if record.name == "dspy_trace"]
    assert "sqlite:///mlflow.db" in said.getMessage()
    stats = dspy_trace.stats()
    assert (stats.observed, stats.dropped) == (6, {"tracking URI refused": 6})


def test_shutdown_ends_our_threads(kept: Kept) -> None:
    """``shutdown()`` switches off and leaves no thread of ours; ``autolog()`` begins anew, with the accounts kept."""

    before = set(threading.enumerate())
    dspy_trace.autolog()
    ask()
    assert {thread.name for thread in threading.enumerate()} >= {"dspy-trace-spool"}
    dspy_trace.shutdown(timeout=0.0)
    eventually(lambda: set(threading.enumerate()) <= before, timeout=5)
    ask()
    dspy_trace.autolog()
    ask()
    assert kept.tree() == ONE + ONE.lstrip("\n")
    assert dspy_trace.stats().observed == 4


HOLD = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('BEGIN IMMEDIATE'); print(); input()"


@pytest.mark.parametrize("stop", ["flush", "shutdown"])
def test_flush_and_shutdown_wait_for_no_other_process(
    stop: str, kept: Kept, scripted_mlflow: ScriptedMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process holds the spool's write lock both return in time; what they began goes on behind."""
    monkeypatch.setattr(spoolfile, "BUSY", 60.0)
    dspy_trace.autolog(tracking_uri=scripted_mlflow.url)
    ask()
    assert dspy_trace.flush()
    file = str(existing()[0].delivery.file().path)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, file], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        begun = monotonic()
        assert ask() == "yes"
        assert not getattr(dspy_trace, stop)(timeout=0.5)
        assert monotonic() - begun < 20.0
        assert len(scripted_mlflow.spans) == 2
        holder.communicate("\n")
    eventually(lambda: dspy_trace.stats().queued == 0)
    dspy_trace.autolog(tracking_uri=scripted_mlflow.url)
    ask()
    assert dspy_trace.flush()
    assert dspy_trace.stats().delivered == len(scripted_mlflow.spans) == 6
