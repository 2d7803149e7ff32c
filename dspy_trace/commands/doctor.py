"""Whether tracing works here: `dspy-trace doctor`."""

from __future__ import annotations

import dataclasses
import os
import sys

import click

from dspy_trace.commands.output import busy, screen
from dspy_trace.commands.stores import where


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@where
def doctor(as_json: bool, tracking_uri: str | None, experiment: str | None) -> None:
    """Look at what is installed and set, where traces go, whether they arrive, and what waits; say what to do.

    Ends with 0 when nothing is wrong, else with 1. Of a program that runs, dspy_trace.doctor() says what it patches.
    """
    import orjson

    from dspy_trace.checkup import Report, surroundings

    with busy("Looking at where traces go ..."):
        report = Report(tuple(surroundings(os.environ, tracking_uri, experiment, deep=True)))
    if as_json:
        for one in report.findings:
            click.echo(orjson.dumps(dataclasses.asdict(one)))
    else:
        screen().print(report)
    sys.exit(0 if report.ok else 1)
