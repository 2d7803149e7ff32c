"""`dspy-trace doctor` and `dspy_trace.doctor()`: each thing that can be wrong is found, and said with its remedy."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import dspy
import pytest
import wrapt
from dspy.utils import DummyLM
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from rich.console import Console

import dspy_trace
from dspy_trace import guard
from dspy_trace.checkup import Finding, Report, variables, versions
from dspy_trace.checkup.process import look
from dspy_trace.export import launch
from dspy_trace.export.places import spool_file
from dspy_trace.export.target import Target
from dspy_trace.instrumentor import DSPyInstrumentor
from dspy_trace.testing import record
from tests.delivery import trace
from tests.parts.scripted_mlflow import Fault, ScriptedMlflow
from tests.test_cli import Command, command, put

__all__ = ["command"]


def wrong(findings: Iterable[Finding]) -> list[str]:
    """Return what is wrong."""
    return [one.text for one in findings if one.level == "wrong"]


def told(command: Command, *words: str, **environ: str) -> tuple[int, list[Finding]]:
    """Return the code of the command, and what it found."""
    result = command("doctor", "--json", *words, **environ)
    return result.exit_code, [Finding(**json.loads(line)) for line in result.stdout.splitlines()]


def test_nothing_is_wrong_in_an_empty_folder(command: Command) -> None:
    """Looking makes nothing."""
    code, findings = told(command)
    assert (code, wrong(findings)) == (0, [])
    texts = [one.text for one in findings]
    made = "a database that will be made with the first trace"
    assert f"traces go to sqlite:///{Path.cwd()}/mlflow.db, experiment Default, {made}" in texts
    assert any("not yet made" in text for text in texts)
    assert list(Path.cwd().iterdir()) == []
    assert command("doctor", COLUMNS="80").stdout.endswith("Nothing is wrong.\n")


@pytest.mark.parametrize(
    ("environ", "said", "remedy"),
    [
        ({"DSPY_TRACE_DETIAL": "full"}, "DSPY_TRACE_DETIAL is no variable", "Is DSPY_TRACE_DETAIL meant?"),
        ({"DSPY_TRACE_DETAIL": "ful"}, "DSPY_TRACE_DETAIL=ful means nothing", "Say minimal, standard, full."),
        ({"DSPY_TRACE_EXIT_WAIT": "soon"}, "DSPY_TRACE_EXIT_WAIT=soon means nothing", "Say a number of seconds."),
        ({"DSPY_TRACE_SPOOL_BYTES": "1 GB"}, "DSPY_TRACE_SPOOL_BYTES=1 GB means nothing", "Say a number of bytes."),
        ({"DSPY_TRACE_CONVENTIONS": "genai,oi"}, "DSPY_TRACE_CONVENTIONS=genai,oi means", "Say genai, openinference."),
        ({"DSPY_TRACE_PROPAGATE": "no"}, "DSPY_TRACE_PROPAGATE=no means nothing", "Say on or off."),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-3"}, "OTEL_BSP_MAX_QUEUE_SIZE=-3 means nothing", "Say a number of spans."),
        (
            {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "yes"},
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=yes means nothing, and no content is told, in MLflow",
            "Say NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT.",
        ),
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED=true", "Unset it."),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "OTEL_TRACES_SAMPLER=always_off", "Unset it."),
        (
            {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, dspy_trace"},
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS leaves dspy_trace out",
            "Take it out of that list.",
        ),
        ({"MLFLOW_TRACKING_URI": "file:///tmp/x"}, "traces go nowhere", ""),
        (
            {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
            "traces go to http://127.0.0.1:1, experiment Default, which",
            "",
        ),
        (
            {"MLFLOW_TRACKING_URI": "postgresql://me:hunter2@127.0.0.1:1/db"},
            "traces go to postgresql://127.0.0.1:1/db",
            "",
        ),
        ({"MLFLOW_TRACKING_URI": "sqlite:////no/such/folder/x.db"}, "traces go to sqlite:////no/such/folder/x.db", ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@127.0.0.1:1", "OTEL_TRACES_EXPORTER": "otlp"},
            "nothing listens at the OTLP endpoint http://127.0.0.1:1",
            "Start the collector, or mend OTEL_EXPORTER_OTLP_ENDPOINT.",
        ),
        ({"DSPY_TRACE_SPOOL_DIR": "/dev/null/x"}, "/dev/null/x cannot be made", "Set DSPY_TRACE_SPOOL_DIR."),
    ],
)
def test_what_is_wrong_around_a_program(command: Command, environ: dict[str, str], said: str, remedy: str) -> None:
    """It is said in a line, with what to do and without secrets, and the code is 1."""
    code, findings = told(command, **environ)
    (found,) = [one for one in findings if one.level == "wrong"]
    assert code == 1
    assert found.text.startswith(said)
    assert found.remedy == remedy
    assert "hunter2" not in str(Report(tuple(findings)))


def test_an_exporter_that_lacks_otlp(command: Command) -> None:
    """An endpoint that is set in vain is a mistake that nothing else would tell."""
    with socket.create_server(("127.0.0.1", 0)) as collector:
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        assert wrong(told(command, **given)[1]) == []
        (text,) = wrong(told(command, OTEL_TRACES_EXPORTER="mlflow", **given)[1])
    assert text.endswith("lacks otlp: nothing goes there")


def test_servers_are_asked(command: Command, scripted_mlflow: ScriptedMlflow) -> None:
    """One that refuses us is told from one that is there."""
    scripted_mlflow.fault = lambda request: Fault(200, b'{"experiments": []}')
    code, findings = told(command, "--tracking-uri", scripted_mlflow.url)
    assert (code, wrong(findings)) == (0, [])
    scripted_mlflow.fault = lambda request: Fault(401, b"no")
    code, findings = told(command, "--tracking-uri", scripted_mlflow.url)
    assert code == 1
    assert "401: no. Set MLFLOW_TRACKING_USERNAME" in wrong(findings)[0]


def test_what_waits(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted; why it waits is told once somebody has tried."""
    put(tmp_path, trace(Target(f"sqlite:///{tmp_path}/mlflow.db")))
    code, findings = told(command)
    assert code == 0
    assert any(one.text.startswith("3 spans wait") for one in findings)
    monkeypatch.setattr(launch, "_is_installed", lambda package: False)
    command("flush", "--timeout", "1")
    code, findings = told(command)
    assert code == 1
    assert "MLflow is not installed" in wrong(findings)[0]


def test_a_spool_that_is_none(command: Command) -> None:
    """A broken file is said to be one, and left alone."""
    folder = Path(os.environ["DSPY_TRACE_SPOOL_DIR"])
    folder.mkdir()
    spool_file(folder).write_bytes(b"no database, and long enough" * 100)
    code, findings = told(command)
    assert code == 1
    assert "cannot be used" in wrong(findings)[0]
    assert spool_file(folder).read_bytes().startswith(b"no database")


def test_an_old_dspy_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is an installation that the zero-code form does not find."""
    for version, said in ((None, "DSPy is not installed"), ("2.5", "DSPy 2.5 is older than")):
        monkeypatch.setattr(versions, "version_of", lambda name, version=version: version if name == "dspy" else None)
        assert wrong(versions.look())[0].startswith(said)
    monkeypatch.setattr(versions.importlib.metadata, "entry_points", lambda **asked: ())
    assert sum("entry point" in text for text in wrong(versions.look())) == 2


def test_every_variable_of_ours_that_is_checked_is_one() -> None:
    """The default, where a variable says one, is no mistake."""
    for name, (fits, wanted) in variables.CHECKS.items():
        assert name.startswith(("DSPY_TRACE_", "OTEL_"))
        assert wanted
        assert not fits("nonsense")


def in_process() -> list[Finding]:
    return list(look())


def test_a_program_that_is_not_traced() -> None:
    """Then that is what is wrong."""
    assert wrong(in_process()) == ["DSPy is not instrumented: nothing is traced"]
    assert not dspy_trace.doctor().ok


def test_a_program_that_is_traced() -> None:
    """What is patched, the provider and its processors, and who set them."""
    with record():
        findings = in_process()
    texts = [one.text for one in findings]
    assert wrong(findings) == []
    assert any(text.endswith("methods of DSPy are observed") for text in texts)
    assert "opentelemetry.sdk.trace.TracerProvider, given to dspy-trace" in texts
    assert "processor SimpleSpanProcessor to InMemorySpanExporter" in texts
    assert "content: NO_CONTENT on spans; detail: standard" in texts


def test_a_closure_on_top_of_ours() -> None:
    """It is named, and where; also after tracing has ended, where ours stays beneath as a pass-through."""
    original = vars(dspy.Predict)["__call__"]
    with record():
        inner = dspy.Predict.__call__
        dspy.Predict.__call__ = lambda self, **kwargs: inner(self, **kwargs)  # noqa: PLW0108  # that is the closure
        (found,) = [one for one in in_process() if "stands on top of ours" in one.text]
    assert found.level == "note"
    assert "test_a_closure_on_top_of_ours.<locals>.<lambda> stands on top of ours on Predict.__call__" in found.text
    (left,) = [one for one in in_process() if "stands on top of ours" in one.text]
    assert "Predict.__call__" in left.text
    dspy.Predict.__call__ = original
    assert not [one for one in in_process() if "stands on top of ours" in one.text]


def test_a_wrapper_of_wrapts_on_top_of_ours() -> None:
    """Ours can be taken out from beneath it: nothing to say."""
    with record():
        ours = vars(dspy.Predict)["__call__"]
        wrapt.wrap_function_wrapper(
            "dspy", "Predict.__call__", lambda wrapped, instance, args, kwargs: wrapped(*args, **kwargs)
        )
        found = [one for one in in_process() if "stands on top" in one.text]
        dspy.Predict.__call__ = ours
    assert found == []


def test_no_provider_and_one_that_samples_nothing() -> None:
    """Instrumented, and nothing recorded."""
    DSPyInstrumentor().instrument()
    try:
        assert wrong(in_process()) == ["there is no tracer provider: spans are not recorded"]
    finally:
        DSPyInstrumentor().uninstrument()
    with record(sampler=ALWAYS_OFF):
        assert wrong(in_process()) == ["it samples nothing (AlwaysOffSampler)"]


def test_a_step_of_ours_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the guard has swallowed is not hidden."""
    monkeypatch.setattr(guard, "failures", guard.Counter({"reading a call": 2}))
    with record():
        assert wrong(in_process()) == ["reading a call has failed 2 times; the first is in the log of dspy_trace"]


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_report_in_the_terminal(width: int) -> None:
    """As text, and drawn within a width: areas, marks, a sum at the end; nothing in it steers the terminal."""
    findings = (
        Finding("a", "ok", "fine"),
        Finding("a", "note", "odd " * 30, "Look."),
        Finding("b", "wrong", "bad \x1b[2J", "Mend it."),
    )
    report = Report(findings)
    assert [one.text for one in report.wrong] == ["bad \x1b[2J"]
    console = Console(width=width, color_system=None, record=True, file=io.StringIO())
    console.print(report)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= max(width, 36)
    assert "\x1b" not in "".join(lines)
    assert lines[-1] == "1 thing is wrong."
    assert str(report).splitlines()[-1].strip() == "Mend it."


def test_a_program_is_not_changed_by_looking() -> None:
    """Nor is a span made."""
    with record() as trace, dspy.context(lm=DummyLM([{"answer": "x"}])):
        before = vars(dspy.Predict)["__call__"]
        dspy_trace.doctor()
        assert vars(dspy.Predict)["__call__"] is before
        dspy.Predict("question -> answer")(question="?")
    assert len(trace.spans) == 2
