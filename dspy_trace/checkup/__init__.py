"""Whether tracing works here, and if not why: what `dspy-trace doctor` and :func:`dspy_trace.doctor` say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: what it is about. Example: ``delivery``.
        level: ``ok``; ``note`` is worth knowing; ``wrong`` loses traces, or will.
        text: what was found, in one line.
        remedy: what to do, if there is something to do.
    """

    area: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order in which it is read."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    @property
    def wrong(self) -> list[Finding]:
        """What is wrong."""
        return [one for one in self.findings if one.level == "wrong"]

    def __str__(self) -> str:
        marks = {"ok": " ", "note": "!", "wrong": "X"}
        lines = []
        for one in self.findings:
            lines.append(f"{marks[one.level]} {one.area:<12} {one.text}")
            if one.remedy:
                lines.append(f"{'':15}{one.remedy}")
        return "\n".join(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from dspy_trace.checkup.drawing import lines

        yield from lines(self, console, options)


def doctor() -> Report:
    """Look at tracing in this process: what is patched, who else is, where spans go and whether they arrive.

    Nothing is changed, sent or imported for it, but for one connection to each place that spans go to.

    Returns:
        what was found. ``print(dspy_trace.doctor())`` shows it; ``.ok`` says whether nothing is wrong.
    """
    from dspy_trace.checkup import process

    return Report((*process.look(), *surroundings(os.environ, *process.destination())))


def surroundings(
    environ: Mapping[str, str], uri: str | None = None, experiment: str | None = None, *, deep: bool = False
) -> Iterable[Finding]:
    """Yield what is found around any process that traces with an environment.

    Args:
        environ: the environment.
        uri: tracking URI, as for ``autolog()``.
        experiment: the same.
        deep: let MLflow open databases, which imports it.
    """
    from dspy_trace.checkup import places, variables, versions

    yield from versions.look()
    yield from variables.look(environ)
    yield from places.look(environ, uri, experiment, deep)
