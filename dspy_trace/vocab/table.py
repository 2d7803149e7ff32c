"""The README's tables of attributes, events and metrics: ``python -m dspy_trace.vocab.table``.

Those of attributes and events are made from the docstrings of ``keys.py``, ``agent_keys.py`` and ``log_keys.py``, that
of metrics from ``instruments.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dspy_trace.vocab import instruments

KEYS = Path(__file__).with_name("keys.py")
"""Where the attributes that everybody sees stand."""

LOG_KEYS = KEYS.with_name("log_keys.py")
"""Where the events of the Logs API stand, and the attributes of scores."""

AGENT_KEYS = KEYS.with_name("agent_keys.py")
"""Where those of agents and attempts stand."""

EXAMPLE = re.compile(r"\s*Example(?: attributes?)?:\s*(.+)\.\s*$")
"""The end of a constant's docstring."""


class Entry(NamedTuple):
    """One constant of ``keys.py``."""

    constant: str
    name: str
    value: str
    example: str

    @property
    def is_event(self) -> bool:
        return self.constant.startswith("EVENT_")


def entries(source: Path = KEYS) -> Iterator[Entry]:
    """Yield every constant, as it stands in the file.

    Raises:
        ValueError: a constant has no docstring that ends in an example.
    """
    body = ast.parse(source.read_text("utf-8")).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            constant = statement.target.id
            told = " ".join(docstring(following).split())
            example = EXAMPLE.search(told)
            if example is None or statement.value is None:
                raise ValueError(f"{source.stem}.{constant} needs a docstring that ends in 'Example: ``...``.'")
            value = told[: example.start()].rstrip(".")
            yield Entry(constant, ast.literal_eval(statement.value), markdown(value), markdown(example[1]))


def table() -> str:
    """Return the tables of attributes and of events as Markdown."""
    logged = list(entries(LOG_KEYS))
    found = [*entries(), *entries(AGENT_KEYS), *(entry for entry in logged if not entry.is_event)]
    lines = ["| attribute | value | example |", "|---|---|---|"]
    lines += [f"| `{entry.name}` | {entry.value} | {entry.example} |" for entry in found if not entry.is_event]
    lines += ["", "| event | what happened | attributes |", "|---|---|---|"]
    lines += [f"| `{entry.name}` | {entry.value} | {entry.example} |" for entry in found if entry.is_event]
    lines += ["", "| event of the Logs API | what happened | attributes |", "|---|---|---|"]
    lines += [f"| `{entry.name}` | {entry.value} | {entry.example} |" for entry in logged if entry.is_event]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """Return the table of metrics as Markdown."""
    lines = [
        "| metric | newest name, if another | kind, unit | what is measured | attributes |",
        "|---|---|---|---|---|",
    ]
    for one in instruments.ALL:
        newest = "-" if one.latest is None else f"`{one.latest}`" if one.latest != one.name else ""
        name = "-" if one.name is None else f"`{one.name}`"
        attributes = ", ".join(f"`{key}`" for key in one.attributes)
        lines.append(f"| {name} | {newest} | {one.kind}, `{one.unit}` | {one.description} | {attributes} |")
    return "\n".join(lines) + "\n"


def docstring(statement: ast.stmt | None) -> str:
    """Return what stands beneath a constant."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return ""


def markdown(text: str) -> str:
    """Return a docstring as a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    print(table(), metrics(), sep="\n", end="")  # noqa: T201  # this is its output
