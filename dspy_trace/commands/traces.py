"""Looking at stored traces: `dspy-trace ls` and `dspy-trace show`."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dspy_trace.commands.output import columns, screen
from dspy_trace.commands.stores import elsewhere, looking_into, name_of, on_the_way, where

if TYPE_CHECKING:
    from rich.console import Console

    from dspy_trace.store import Store
    from dspy_trace.store.traces import Trace


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases only
    """A moment: how long ago, such as 30m, 2h or 7d, or a date with or without a time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        text = str(value).strip()
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}.get(text[-1:].lower())
        try:
            if unit is not None:
                return datetime.now() - timedelta(**{unit: float(text[:-1])})
            return datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no moment: say 30m, 2h, 7d or 2026-11-26 or '2026-11-26 14:30'", param, ctx)


@click.command()
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most traces to list.")
@click.option("--errors", is_flag=True, help="Only traces that failed.")
@click.option("--name", metavar="NAME", help="Only traces of that name; * stands for anything.")
@click.option("--session", metavar="ID", help="Only traces of that session.")
@click.option("--since", type=Moment(), metavar="MOMENT", help="Only traces since: 30m, 2h, 7d ago, or a date.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@where
def ls(limit: int, as_json: bool, tracking_uri: str | None, experiment: str | None, **wanted: Any) -> None:
    """List the newest traces of an experiment."""
    from dspy_trace.store.wanted import Wanted

    only = Wanted(**wanted)
    with looking_into(tracking_uri, experiment) as (target, store):
        from dspy_trace.terminal.listing import table

        found = store.newest(limit, only.condition())
        console = screen()
        if as_json:
            for one in found:
                _print_json(dataclasses.asdict(one))
        else:
            for line in table(found, columns(console)):
                console.print(line)
        if not found:
            what = "such traces" if only else "traces"
            _say(f"There are no {what} in {name_of(target)}.{'' if only else elsewhere(store)}")
        if (waiting := on_the_way(target)) is not None:
            _say(f"{waiting}.")


@click.command()
@click.argument("trace", required=False)
@click.option("--content", is_flag=True, help="Show what each span was given and gave: prompts, answers, arguments.")
@click.option("--bars/--no-bars", default=True, help="Show the time axis beside the tree, if there is room.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all that is known of each span.")
@where
def show(
    trace: str | None, content: bool, bars: bool, as_json: bool, tracking_uri: str | None, experiment: str | None
) -> None:
    """Draw a trace as a tree, beside it the time axis, if there is room.

    TRACE is OpenTelemetry's or MLflow's id of it, or the beginning of one; without it, the newest of the experiment is
    drawn.
    """
    with looking_into(tracking_uri, experiment) as (target, store):
        found = find(store, trace, name_of(target))
        if as_json:
            _print_json(dataclasses.asdict(found))
        else:
            _draw(screen(), found, target.uri, content, bars)


def find(store: Store, trace: str | None, called: str) -> Trace:
    """Return the trace that an argument means, by default the newest of the experiment that is `called` so."""
    from dspy_trace import store as stores

    try:
        return stores.find(store, trace)
    except stores.Unknown as unknown:
        if trace is not None:
            raise
        raise stores.Unreadable(f"{unknown} in {called}.{elsewhere(store)}") from None


def _draw(console: Console, trace: Trace, uri: str, content: bool, bars: bool) -> None:
    from dspy_trace.terminal.listing import heading
    from dspy_trace.terminal.tree import draw

    for line in heading(trace.summary, uri):
        # An id that is cut could not be copied.
        console.print(line, overflow="ellipsis" if line.no_wrap else "fold", no_wrap=line.no_wrap)
    console.print()
    console.print(draw(trace.spans, content, bars))


def _print_json(told: Any) -> None:
    import orjson

    click.echo(orjson.dumps(told, default=str, option=orjson.OPT_NON_STR_KEYS))


def _say(text: str) -> None:
    screen(stderr=True).print(text, style="dim")
