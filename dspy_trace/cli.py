"""The command ``dspy-trace``."""

from __future__ import annotations

import click

from dspy_trace.commands.demo import demo
from dspy_trace.commands.flush import flush
from dspy_trace.commands.traces import ls, show


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dspy-trace")
def main() -> None:
    """Tracing for DSPy programs."""


for command in (demo, flush, ls, show):
    main.add_command(command)

if __name__ == "__main__":
    main()
