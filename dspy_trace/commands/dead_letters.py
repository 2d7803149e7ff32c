"""What servers have refused for good: `dspy-trace dead-letters`."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dspy_trace.commands.output import columns, screen
from dspy_trace.commands.spooled import age, the_spool

if TYPE_CHECKING:
    from dspy_trace.export.records import DeadLetter
    from dspy_trace.export.spool import Spool

C = TypeVar("C", bound=Callable[..., Any])


@click.group("dead-letters", invoke_without_command=True)
@click.pass_context
def dead_letters(context: click.Context) -> None:
    """List, show, replay or drop what a server has refused for good."""
    if context.invoked_subcommand is None:
        context.invoke(listed)


def some(command: C) -> C:
    """Add what says which letters are meant."""
    command = click.option("--all", "everything", is_flag=True, help="All of them.")(command)
    return click.argument("numbers", type=int, nargs=-1, metavar="[NUMBER]...")(command)


@dead_letters.command("list")
def listed() -> None:
    """List them, oldest first, with what the server said."""
    from rich.table import Table

    with the_spool() as spool:
        letters = _letters(spool)
    if not letters:
        click.echo("There are no dead letters.")
        return
    console = screen()
    table = Table("number", "age", "what", "trace", "target", "reason", box=None, pad_edge=False)
    if columns(console) is None:
        for column in table.columns:
            column.no_wrap = True
    for one in letters.values():
        what = one.kind if one.kind != "spans" else "1 span" if one.spans == 1 else f"{one.spans} spans"
        table.add_row(str(one.id), age(max(time() - one.created, 0)), what, one.trace_id, one.uri, one.reason)
    console.print(table)


@dead_letters.command()
@click.argument("number", type=int)
def show(number: int) -> None:
    """Print what was refused, as JSON."""
    with the_spool() as spool:
        (letter,) = _chosen(_letters(spool), (number,), False)
    try:
        click.echo(json.dumps(json.loads(letter.payload), indent=2, ensure_ascii=False))
    except ValueError:  # it was refused because it is none
        click.echo(repr(letter.payload))


@dead_letters.command()
@some
def replay(numbers: tuple[int, ...], everything: bool) -> None:
    """Let them be delivered once more, by `dspy-trace flush` or the next program that traces there."""
    from dspy_trace.export import records

    _each(numbers, everything, records.replay, "put back. `dspy-trace flush` delivers")


@dead_letters.command()
@some
def drop(numbers: tuple[int, ...], everything: bool) -> None:
    """Forget them; they count as dropped."""
    from dspy_trace.export import records

    _each(numbers, everything, records.drop_dead, "dropped")


def _each(numbers: tuple[int, ...], everything: bool, do: Callable[[Spool, DeadLetter], None], done: str) -> None:
    with the_spool() as spool:
        chosen = _chosen(_letters(spool), numbers, everything)
        for letter in chosen:
            assert spool is not None
            do(spool, letter)
    them = "it" if len(chosen) == 1 else "them"
    letters = "1 dead letter" if len(chosen) == 1 else f"{len(chosen)} dead letters"
    click.echo(f"{letters} {done}{f' {them}' if done.endswith('delivers') else ''}.")


def _letters(spool: Spool | None) -> dict[int, DeadLetter]:
    from dspy_trace.export import records

    return {letter.id: letter for letter in records.dead_letters(spool)} if spool is not None else {}


def _chosen(letters: dict[int, DeadLetter], numbers: tuple[int, ...], everything: bool) -> list[DeadLetter]:
    if everything == bool(numbers):
        raise click.UsageError("Say the numbers that `dspy-trace dead-letters` lists, or --all.")
    if missing := [number for number in numbers if number not in letters]:
        raise click.ClickException(f"there is no dead letter {missing[0]}. `dspy-trace dead-letters` lists them.")
    return list(letters.values()) if everything else [letters[number] for number in dict.fromkeys(numbers)]
