"""Looking into saved models: `dspy-trace model inspect` and `dspy-trace model diff`."""

from __future__ import annotations

import json
import os
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import click

from dspy_trace.commands.output import busy, columns, screen
from dspy_trace.settings.surroundings import READER_SETS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@click.group()
def model() -> None:
    """Look into models that `dspy_trace_flavor` has saved."""


@model.command()
@click.argument("uri")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(uri: str, as_json: bool) -> None:
    """Show what is in a saved model, without running anything of it.

    URI is a folder, or what MLflow takes: runs:/..., models:/NAME/VERSION, models:/NAME@ALIAS.
    """
    told = _summary(uri)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    console = screen()
    _heading(console, told)
    for predictor in told["predictors"]:
        console.print()
        console.print(f"{predictor['path']}  {predictor['class']}", style="bold")
        for name, text in _lines(predictor):
            _entry(console, f"  {name}", text)


@model.command()
@click.argument("before")
@click.argument("after")
def diff(before: str, after: str) -> None:
    """Show what differs between two saved models: instructions and demos side by side."""
    one, two = _summary(before), _summary(after)
    console = screen()
    pairs = [("", _facts(one), _facts(two))]
    first, second = ({one["path"]: one for one in told["predictors"]} for told in (one, two))
    for path in dict.fromkeys((*first, *second)):
        left, right = (dict(_lines(side[path])) if path in side else {} for side in (first, second))
        pairs.append((path, left, right))
    shown = False
    for path, left, right in pairs:
        table = _changes(left, right, path, (before, after))
        if table is not None:
            console.print(table)
            shown = True
    if not shown:
        console.print("The two models are the same in instructions, fields, demos, LMs, settings and requirements.")


@model.command()
@click.argument("uri")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, help="Port to listen on.")
def serve(uri: str, host: str, port: int) -> None:
    """Serve a saved model as `mlflow models serve` does, with streams.

    POST /invocations/stream streams the outputs, and POST /v1/chat/completions is for models of the chat task.
    """
    for name, value in READER_SETS.items():
        os.environ.setdefault(name, value)
    try:
        import uvicorn
        from mlflow.exceptions import MlflowException

        from dspy_trace_flavor.errors import FlavorError
        from dspy_trace_flavor.serving import app_of
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed, and models cannot be served without it: pip install 'dspy-trace[mlflow]'"
        ) from error
    try:
        app = app_of(uri)
    except (FlavorError, MlflowException) as error:
        raise click.ClickException(str(error)) from error
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _summary(uri: str) -> dict[str, Any]:
    for name, value in READER_SETS.items():
        os.environ.setdefault(name, value)
    try:
        with busy("MLflow is being loaded ..."):
            from mlflow.exceptions import MlflowException

            from dspy_trace_flavor.errors import FlavorError
            from dspy_trace_flavor.loading import fetch, read_summary
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed, and models cannot be read without it: pip install 'dspy-trace[mlflow]'"
        ) from error
    try:
        with busy(f"Reading {uri} ..."):
            return read_summary(fetch(uri))
    except (FlavorError, MlflowException) as error:
        raise click.ClickException(str(error)) from error


def _facts(told: dict[str, Any]) -> dict[str, str]:
    """Return what is said of a model as a whole."""
    facts = {
        "class": told["class"],
        "format": told["format"],
        "task": told["task"] or "",
        "inputs": told["inputs"] or "",
        "outputs": told["outputs"] or "",
        "streams": "yes" if told["streams"] else "no",
    }
    for number, lm in enumerate(told["lms"]):
        given = ", ".join(f"{key}={value}" for key, value in lm["parameters"].items() if key != "api_key")
        key = f"; key from {lm['key']}" if lm["key"] else ""
        facts["lm" if number == 0 else f"lm {number + 1}"] = f"{lm['model']} ({given}){key}"
    facts |= {f"setting {key}": str(value) for key, value in told["settings"].items()}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    facts["requirements"] = ", ".join(told["requirements"])
    return {key: value for key, value in facts.items() if value}


def _lines(predictor: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is said of one predictor, as names and texts."""
    fields = [f"{field['name']}: {field['type']}" for field in predictor["fields"] if field["kind"] == "input"]
    given = [f"{field['name']}: {field['type']}" for field in predictor["fields"] if field["kind"] == "output"]
    lines = [("signature", f"{', '.join(fields)} -> {', '.join(given)}"), ("instructions", predictor["instructions"])]
    if predictor["lm"]:
        lines.append(("lm", predictor["lm"]))
    if predictor["config"]:
        lines.append(("config", ", ".join(f"{key}={value}" for key, value in predictor["config"].items())))
    for number, demo in enumerate(predictor["demos"], 1):
        lines.append((f"demo {number}", "\n".join(f"{key}: {value}" for key, value in demo.items())))
    return lines


def _heading(console: Console, told: dict[str, Any]) -> None:
    for name, text in _facts(told).items():
        _entry(console, name, text)


def _entry(console: Console, name: str, text: str) -> None:
    from rich.padding import Padding
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(width=16, style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(name, text)
    console.print(Padding(table, 0), width=columns(console))


def _changes(left: dict[str, str], right: dict[str, str], title: str, names: tuple[str, str]) -> Table | None:
    """Return a table of what differs, the parts that do in colour; ``None`` where nothing does."""
    from rich.table import Table

    table = Table(title=title or "model", title_justify="left", show_lines=True, expand=False)
    table.add_column("")
    for name in names:
        table.add_column(name, overflow="fold")
    for key in dict.fromkeys((*left, *right)):
        one, two = left.get(key, ""), right.get(key, "")
        if one != two:
            table.add_row(key, *_marked(one, two))
    return table if table.row_count else None


def _marked(one: str, two: str) -> tuple[Any, Any]:
    """Return two texts with what only one of them has in its colour."""
    from rich.text import Text

    left, right = Text(), Text()
    first, second = one.split(" "), two.split(" ")
    for kind, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        same = kind == "equal"
        left.append(" ".join(first[a:b]) + (" " if b < len(first) and a < b else ""), style="" if same else "red")
        right.append(" ".join(second[c:d]) + (" " if d < len(second) and c < d else ""), style="" if same else "green")
    return left, right
