"""The command ``dspy-trace``."""

from __future__ import annotations

import errno
from typing import Any

import click

from dspy_trace.commands.dead_letters import dead_letters
from dspy_trace.commands.demo import demo
from dspy_trace.commands.doctor import doctor
from dspy_trace.commands.flush import flush
from dspy_trace.commands.model import model
from dspy_trace.commands.run import run
from dspy_trace.commands.stats import stats
from dspy_trace.commands.traces import ls, show
from dspy_trace.commands.ui import ui
from dspy_trace.commands.watch import watch


class Commands(click.Group):
    """Commands that end with one line on stderr where the system does not let them do something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            # Click knows what to do when nobody reads any more: nothing.
            if error.errno == errno.EPIPE or not error.strerror:
                raise
            raise click.ClickException(f"{error.filename or 'output'}: {error.strerror}") from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dspy-trace")
def main() -> None:
    """Tracing for DSPy programs."""


for command in (dead_letters, demo, doctor, flush, ls, model, run, show, stats, ui, watch):
    main.add_command(command)

if __name__ == "__main__":
    main()
