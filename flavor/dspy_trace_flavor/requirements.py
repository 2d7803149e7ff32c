"""What a saved program needs to be installed: DSPy, this package, and the packages that its source imports."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.points.programs import modules_in

NEEDED = ("dspy", "dspy-trace", "cloudpickle")


def pinned(name: str) -> str:
    """Return the requirement of a package in the version that is installed here."""
    version = ask(importlib.metadata.version, name)
    return f"{name}=={version.partition('+')[0]}" if version else name


def default() -> list[str]:
    """Return what every saved program needs."""
    return [pinned(name) for name in NEEDED]


def of_sources(sources: Iterable[Path], code: Path | None = None) -> list[str]:
    """Return what a program needs, by what its source and its shipped code import.

    Args:
        sources: the files that :func:`sources` has found.
        code: folder with its shipped code, which may not exist.
    """
    code = code or Path("nowhere")
    files = set(code.rglob("*.py")) | set(sources)
    local = {path.stem for path in code.glob("*")} if code.is_dir() else set()
    names = {name for path in files for name in imported(path)} - local
    found = {package for name in names for package in _packages().get(name, ())}
    return sorted(
        {*default(), *(pinned(package) for package in found if package.lower() not in ("mlflow", "mlflow-skinny"))}
    )


def sources(program: Any, settings: dict[str, Any]) -> Iterator[Path]:
    """Yield the source files of the classes and functions that a program is made of, DSPy's own aside."""
    things: list[Any] = [type(value) for value in settings.values()]
    for _, module in modules_in(program):
        things.append(type(module))
        for held in vars(module).values():
            for one in held.values() if type(held) is dict else held if type(held) in (list, tuple) else (held,):
                things += [type(one), getattr(one, "func", one)]
    for name in {ask(getattr, thing, "__module__") for thing in things}:
        module = sys.modules.get(name) if isinstance(name, str) else None
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and name.partition(".")[0] not in ("dspy", "litellm", "mlflow", "builtins"):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names:
                yield Path(file)


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names that a source file imports, and the package that it is in itself."""
    tree = ask(ast.parse, ask(path.read_text, "utf-8", default=""))
    for node in ast.walk(tree) if tree is not None else ():
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = (node.module,)
        yield from {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


@lru_cache(maxsize=1)
def _packages() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
