"""Following a compile while it goes on: `dspy-trace watch`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import sleep, time
from typing import Any

import click

from dspy_trace.commands.output import busy, explained, screen
from dspy_trace.commands.stores import where

STEPS = ("eval_full", "eval", "eval_minibatch")
"""Series of scores, under the names that DSPy gives them."""


@click.command()
@click.option("--once", is_flag=True, help="Say how far it is, and end.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds between two looks."
)
@where
def watch(once: bool, every: float, tracking_uri: str | None, experiment: str | None) -> None:
    """Follow the newest compile of an experiment, which `autolog(log_compiles=True)` logs, until it ends."""
    with explained(), busy("looking for a compile"):
        client, found = _looked_up(tracking_uri, experiment)
    console, said = screen(), ""
    while True:
        run = client.get_run(found)
        line = progress(run.info.run_name, run.info.status, run.info.start_time, run.data.metrics, time() * 1000)
        if line != said:
            console.print(line)
            said = line
        if once or run.info.status != "RUNNING":
            return
        sleep(every)


def _looked_up(tracking_uri: str | None, experiment: str | None) -> tuple[Any, str]:
    """Return MLflow's client, and the id of the newest compile."""
    from dspy_trace.export.target import target
    from dspy_trace.settings.surroundings import READER_SETS
    from dspy_trace.vocab import run_keys as keys

    place, credential = target(tracking_uri, experiment)
    for name, value in READER_SETS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise click.ClickException("MLflow is not installed: pip install 'dspy-trace[mlflow]'") from error
    uri = credential.uri if credential is not None and credential.uri is not None else place.uri
    if uri.startswith("sqlite:///") and not os.path.exists(uri.removeprefix("sqlite:///")):
        raise click.ClickException(f"There is no database {uri}: nothing has been logged there yet.")
    client = MlflowClient(uri)
    wanted = place.experiment_id or "0"
    if place.experiment_name is not None:
        named = client.get_experiment_by_name(place.experiment_name)
        if named is None:
            raise click.ClickException(f"There is no experiment {place.experiment_name}.")
        wanted = named.experiment_id
    condition = f"tags.`{keys.KIND}` = 'compile'"
    runs = client.search_runs([wanted], condition, max_results=1, order_by=["attributes.start_time DESC"])
    if not runs:
        raise click.ClickException(f"There is no compile in experiment {place.experiment}: autolog(log_compiles=True)")
    return client, runs[0].info.run_id


def progress(name: str, status: str, start: int, metrics: Mapping[str, float], now: float) -> str:
    """Return one line on how far a compile is: evaluations, last score, best, usage and the time that is left.

    Args:
        name: of the run.
        status: of the run.
        start: when it began, in milliseconds.
        metrics: the last value of each of its metrics.
        now: in milliseconds.
    """
    parts = [name if status == "RUNNING" else f"{name}: {status.lower()}"]
    parts += [f"{step} {metrics[step]:g}" for step in STEPS if step in metrics]
    parts += [f"{key} {metrics[key]:g}" for key in ("baseline", "best", "final") if key in metrics]
    tokens = metrics.get("usage_input_tokens", 0) + metrics.get("usage_output_tokens", 0)
    parts.append(f"{metrics.get('usage_lm_calls', 0):.0f} LM calls, {tokens:,.0f} tokens")
    if metrics.get("usage_cost"):
        parts.append(f"{metrics['usage_cost']:.4f} USD")
    done = metrics.get("progress")
    if status == "RUNNING" and done:
        left = (now - start) / 1000 * (1 - done) / done
        parts.append(f"{done:.0%}, about {left:.0f} s left")
    return "  ".join(parts)
