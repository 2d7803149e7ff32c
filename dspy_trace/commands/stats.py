"""Accounts of the spool: `dspy-trace stats`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dspy_trace.commands.output import columns, screen
from dspy_trace.commands.spooled import age, size, spans, the_spool

if TYPE_CHECKING:
    from dspy_trace.export.spool import Spool


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(as_json: bool) -> None:
    """Say what waits for whom and why, and what has become of all spans that programs of this user have spooled."""
    with the_spool() as spool:
        if spool is None:
            told: dict[str, Any] = {"waiting": [], "delivered": 0, "dead": 0, "dropped": {}}
        else:
            told = _told(spool)
    if as_json:
        click.echo(json.dumps(told))
        return
    _print(told)


def _told(spool: Spool) -> dict[str, Any]:
    from dspy_trace.export import records

    with spool.reading():
        counts = records.accounts(spool)
        problems = {one.uri: one.message for one in reversed(records.problems(spool))}
        waiting = []
        for uri in sorted({target.uri for _, target, _, _ in spool.targets()}):
            found = records.waiting(spool, uris=frozenset((uri,)))
            if found or found.dead:
                entry = {"uri": uri, "spans": found.spans, "bytes": found.bytes, "notes": found.followups}
                entry |= {"oldest_seconds": round(found.oldest_age), "dead": found.dead, "problem": problems.get(uri)}
                waiting.append(entry)
    dropped = {name.partition(": ")[2]: n for name, n in counts.items() if name.startswith("dropped: ") and n}
    return {
        "waiting": waiting,
        "delivered": counts.get("delivered", 0),
        "dead": counts.get("dead", 0),
        "dropped": dropped,
    }


def _print(told: dict[str, Any]) -> None:
    from rich.table import Table

    console = screen()
    if told["waiting"]:
        table = Table("target", "waiting", "size", "oldest", "notes", "dead", "problem", box=None, pad_edge=False)
        if columns(console) is None:  # who reads lines wants them whole
            for column in table.columns:
                column.no_wrap = True
        for one in told["waiting"]:
            waits = one["spans"] or one["notes"]
            cells = (one["spans"], size(one["bytes"]), age(one["oldest_seconds"]) if waits else "", one["notes"])
            table.add_row(one["uri"], *map(str, cells), str(one["dead"]), one["problem"] or "")
        console.print(table)
    else:
        console.print("Nothing waits.")
    dropped = sum(told["dropped"].values())
    why = ", ".join(f"{n} {reason}" for reason, n in told["dropped"].items())
    console.print(
        f"{spans(told['delivered'])} delivered, {told['dead']} dead, {dropped} dropped{f' ({why})' if why else ''}."
    )
