"""A small real program under tracing: `dspy-trace demo`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import click

from dspy_trace.settings import DEMO_SETS

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.option("--model", help="A DSPy model string, such as openai/gpt-4o-mini, instead of the LM on this machine.")
def demo(model: str | None) -> None:
    """Run a small real program under tracing and print its trace."""
    from rich.console import Console

    console = Console(highlight=False)
    if model is None:
        for name, value in DEMO_SETS.items():
            os.environ.setdefault(name, value)
    try:
        from dspy_trace.demo import program
    except ModuleNotFoundError as missing:
        if missing.name != "dspy":
            raise
        raise click.ClickException("The demo needs DSPy: pip install 'dspy-trace[instruments]'") from None
    from dspy_trace.store.traces import recorded
    from dspy_trace.terminal import draw
    from dspy_trace.testing import record

    with _lm(console, model) as lm, record() as trace:
        desk = program.build(lm)
        console.print(f"[bold]Q[/] {program.QUESTION}")
        with console.status("The program is running ..."):
            answer = program.ask(desk)
        console.print(f"[bold]A[/] {answer.answer}  [dim](topic: {answer.topic})[/]\n")
        console.print(draw(map(recorded, trace.spans)))


@contextlib.contextmanager
def _lm(console: Console, model: str | None) -> Generator[Any]:
    """Give the LM of the demo: the one asked for, else the one on this machine, else DSPy's scripted one."""
    import dspy

    from dspy_trace.demo import lm_server, program

    if model is not None:
        yield dspy.LM(model, cache=False)
    elif lm_server.available():
        with contextlib.ExitStack() as stack:
            with console.status(f"Starting {lm_server.MODEL} on this machine ..."):
                server = stack.enter_context(lm_server.serve())
            console.print(f"[dim]LM: {server.model} (135 million parameters, real), served on this machine[/]")
            yield program.lm_for(server)
    else:
        console.print(
            "[yellow]LM: DSPy's scripted one, whose answers are made up.[/] Use --model for a real one, "
            "or run this in a checkout."
        )
        yield program.scripted_lm()
