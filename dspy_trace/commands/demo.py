"""A small real program under tracing: `dspy-trace demo`."""

from __future__ import annotations

import contextlib
import logging
import os
import textwrap
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import click

from dspy_trace.commands.output import busy, explained, here, screen
from dspy_trace.settings.surroundings import DEMO_SETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dspy_trace.demo.watching import Watch
    from dspy_trace.export.target import Target


@click.command()
@click.option("--model", help="A DSPy model string, such as openai/gpt-4o-mini, instead of the LM on this machine.")
def demo(model: str | None) -> None:
    """Run a small real program under tracing and print its trace.

    One line traces it, dspy_trace.autolog(): into ./mlflow.db, or wherever MLFLOW_TRACKING_URI says.
    """
    from dspy_trace.export.target import target

    for name, value in DEMO_SETS.items():
        os.environ.setdefault(name, value)
    with explained():
        place, _ = target(None, None, os.environ)
    console = screen()
    with busy("Importing DSPy ..."):
        program = _program()
    try:
        error = _run(console, program, model, place)
    except KeyboardInterrupt:
        click.echo("Aborted!", err=True)
        # What the program has begun in threads of its own is waited for by nobody.
        os._exit(130)
    if error is not None:
        said = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise click.ClickException(f"the program failed, and so does its trace: {type(error).__name__}: {said}")


def _run(console: Console, program: Any, model: str | None, place: Target) -> Exception | None:
    """Run the program and print its trace; return why it failed, if it did."""
    from dspy_trace.guard import attempt

    with _lm(console, model) as lm:
        console.print(f"Q  {program.QUESTION}", style="bold")
        with busy("The program is running ...") as show, _traced(show) as watch:
            answer, error = attempt(program.ask, program.build(lm), program.QUESTION, watch.hear)
        if error is None:
            console.print(f"A  {answer.answer}", style="bold")
        _report(console, watch, place)
    return error


def _program() -> Any:
    """Return the demo's program; DSPy answers twice-asked questions from memory, and leaves our LM's manners to us."""
    try:
        import dspy

        from dspy_trace.demo import program
    except ModuleNotFoundError as missing:
        if missing.name != "dspy":
            raise
        raise click.ClickException("The demo needs DSPy: pip install 'dspy-trace[instruments]'") from None
    # On disk, a second demo would find all its answers.
    dspy.configure_cache(enable_disk_cache=False)
    # That a small LM is cut short, or does not do what it is told, is told by the trace.
    logging.getLogger("dspy").setLevel(logging.CRITICAL)
    return program


@contextlib.contextmanager
def _traced(show: Callable[[str], Any]) -> Generator[Watch]:
    """Trace by the one line that everybody uses, and watch what it records."""
    from opentelemetry import trace

    import dspy_trace
    from dspy_trace.demo.watching import Watch

    dspy_trace.autolog()
    watch = Watch(show)
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(watch)
    yield watch
    dspy_trace.autolog(disable=True)


@contextlib.contextmanager
def _lm(console: Console, model: str | None) -> Generator[Any]:
    """Give the LM of the demo: the one asked for, else the one on this machine, else DSPy's scripted one."""
    import dspy

    from dspy_trace.demo import lm_server, program
    from dspy_trace.guard import attempt

    if model is not None:
        lm, error = attempt(dspy.LM, model)
        if error is not None:
            raise click.BadParameter(f"DSPy does not take {model!r}: {error}", param_hint="--model")
        console.print(f"LM {model}", style="dim")
        yield lm
    elif lm_server.available():
        with contextlib.ExitStack() as stack:
            with busy(f"Starting {lm_server.MODEL} ..."):
                try:
                    server = stack.enter_context(lm_server.serve())
                except lm_server.LMServerUnavailable as error:
                    raise click.ClickException(str(error)) from error
            console.print(f"LM {server.model}, 135 million parameters, real, served on this machine", style="dim")
            yield program.lm_for(server)
    else:
        console.print(
            "LM DSPy's scripted one, whose answers are made up: use --model for a real one, or a checkout of this "
            "project, where the demo brings its own.",
            style="yellow",
        )
        yield program.scripted_lm()


def _report(console: Console, watch: Watch, place: Target) -> None:
    """Print the trace, its sums, where it is, and how to open it."""
    from dspy_trace.store.traces import recorded
    from dspy_trace.terminal.tree import draw

    spans = [recorded(span) for span in watch.spans]
    console.print()
    console.print(draw(spans))
    console.print()
    console.print(watch.sums())
    how = "it is on its way" if place.kind == "http" else "a process of its own is writing it"
    console.print(f"The trace goes to {place.uri}: {how}.", style="dim", soft_wrap=True)
    console.print(f"In the browser   {here('ui')}")
    console.print(f"In the terminal  {here('show')}")
