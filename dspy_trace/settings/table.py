"""The variables in the README, out of docstrings: ``python -m dspy_trace.settings.table``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from dspy_trace.vocab.table import EXAMPLE, docstring, markdown

FILES = [Path(__file__).with_name(name) for name in ("__init__.py", "surroundings.py")]
"""Where every environment variable is named."""

OURS = "DSPY_TRACE_"

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]+")


def rows(source: Path) -> Iterator[tuple[str, str, str]]:
    """Yield variables, meaning and example of each constant that names one or several.

    Raises:
        ValueError: a constant that names a variable has no docstring that ends in an example.
    """
    body = ast.parse(source.read_text("utf-8")).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.Assign):
            continue
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        named = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        if len(named) < len(values) or not all(map(VARIABLE.fullmatch, named)):
            continue
        told = " ".join(docstring(following).split())
        example = EXAMPLE.search(told)
        if example is None:
            raise ValueError(f"settings.{ast.unparse(statement.targets[0])} needs a docstring that ends in an example")
        meaning = markdown(told[: example.start()].rstrip("."))
        yield ", ".join(f"`{name}`" for name in named), meaning, markdown(example[1])


def table() -> str:
    """Return the table as Markdown: our own variables, then those of others that are heeded."""
    found = sorted((row for file in FILES for row in rows(file)), key=lambda row: OURS not in row[0])
    lines = ["| variable | meaning | example |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in found)]) + "\n"


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201  # this is its output
