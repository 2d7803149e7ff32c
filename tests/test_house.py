"""House rules that can be read off the source: where names stand, who swallows exceptions, how long things are."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dspy_trace
from dspy_trace import settings
from dspy_trace.points.table import POINTS
from dspy_trace.settings import surroundings
from dspy_trace.settings import table as settings_table
from dspy_trace.vocab import instruments, keys, table

PACKAGE = Path(dspy_trace.__file__).parent
HERE = Path(__file__).parent
FOLDERS = [
    folder
    for folder in (PACKAGE, HERE, HERE.parent / "flavor", HERE.parent / "benchmarks")
    if folder.is_dir()  # what tests an installed wheel has no flavor and no benchmarks beside it
]
FILES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
OURS = sorted(PACKAGE.rglob("*.py"))
KEYS = {value for name, value in vars(keys).items() if name.isupper()}
ATTRIBUTE = re.compile(r"(gen_ai|openinference|mlflow|llm|dspy)\.[\w.]+|openinference")


def name_of(path: Path) -> str:
    return str(path.relative_to(next(folder for folder in FOLDERS if folder in path.parents).parent))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield every string but docstrings, which no program reads."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node


def is_another_name(text: str) -> bool:
    """Return whether a string names a module, a class or a file, and no attribute."""
    others = ("openinference.instrumentation", "mlflow.dspy", "mlflow.db")
    if text.startswith(others) or text in {row.module for row in POINTS}:
        return True
    _, _, rest = text.partition("dspy.")
    spec = importlib.util.find_spec("dspy")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    return text.startswith("dspy.") and (rest[:1].isupper() or (folder / rest.partition(".")[0]).exists())


@pytest.mark.parametrize("path", [path for path in OURS if "vocab" not in path.parts], ids=name_of)
def test_attribute_names_stand_in_the_vocabulary(path: Path) -> None:
    """A name of an attribute, event or metric is spelled in ``vocab/`` and nowhere else.

    Names of environment variables, loggers and modules are none.
    """
    # The last two are ordinary words as well.
    allowed = {value for value in vars(settings).values() if isinstance(value, str)} | {"exception", "metadata"}
    found = []
    for node in strings(parsed(path)):
        text = str(node.value)
        if text not in allowed and (text in KEYS or (ATTRIBUTE.fullmatch(text) and not is_another_name(text))):
            found.append(f"line {node.lineno}: {text}")
    assert not found


def handlers(tree: ast.Module) -> Iterator[tuple[ast.ExceptHandler, set[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = {found.id for found in ast.walk(node.type) if isinstance(found, ast.Name)} if node.type else {""}
            yield node, names


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_only_the_guard_swallows(path: Path) -> None:
    """``except Exception`` and ``suppress(Exception)`` stand in ``guard.py`` alone; none catches everything.

    ``except BaseException`` raises again, but in a driver of streams, which hands the error on to the stream.
    """
    tree = parsed(path)
    for node, names in handlers(tree):
        assert "" not in names, f"line {node.lineno}: a bare except"
        if "Exception" in names:
            assert path.name == "guard.py", f"line {node.lineno}: except Exception"
        if "BaseException" in names and path.name != "streams.py":
            assert any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), (
                f"line {node.lineno}: not raised again"
            )
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name | ast.Attribute) and "suppress" in ast.unparse(call.func).split("."):
            swallowed = {ast.unparse(argument) for argument in call.args}
            assert not swallowed & {"Exception", "BaseException"}, f"line {call.lineno}: suppress"


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    docstring = len(str(ast.get_docstring(function, clean=False)).splitlines()) if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    """No file is over 300 lines and no function over 40, its docstring not counted."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 300
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {node.name: length for node in functions if (length := lines_of(node)) > 40} == {}


@pytest.mark.parametrize("module", sorted(path.stem for path in (PACKAGE / "vocab").glob("*keys.py")))
def test_every_key_has_a_docstring_with_an_example(module: str) -> None:
    """Each constant is described, with an example; no two have the same value, and each is used."""
    found = list(table.entries(PACKAGE / "vocab" / f"{module}.py"))
    told = vars(importlib.import_module(f"dspy_trace.vocab.{module}"))
    assert {entry.constant: entry.name for entry in found} == {
        name: value for name, value in told.items() if name.isupper()
    }
    assert len({entry.name for entry in found}) == len(found)
    for entry in found:
        assert entry.value
        assert entry.example.startswith("`")
    source = "".join(path.read_text("utf-8") for path in OURS)
    assert [entry.constant for entry in found if not re.search(rf"\b\w+\.{entry.constant}\b", source)] == []


def test_a_key_without_an_example_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is not made from half a description."""
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, *args: real(self, *args).replace("Example: ``chat``", "No"))
    with pytest.raises(ValueError, match="OPERATION_NAME needs a docstring that ends in"):
        table.table()


def test_the_table_is_markdown() -> None:
    """Attributes and events, each row of three cells, whatever an example has in it."""
    lines = table.table().splitlines()
    assert lines[0] == "| attribute | value | example |"
    assert "| `gen_ai.operation.name` | What kind of operation this is | `chat` |" in lines
    events = lines[lines.index("| event | what happened | attributes |") :]
    assert any(line.startswith("| `dspy.adapter.fallback` |") for line in events)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line} == {4}


def test_the_readme_has_the_metrics() -> None:
    """The same for metrics; no two have a name in common but where one spelling has one name for both."""
    readme = (HERE.parent / "README.md").read_text("utf-8") if (HERE.parent / "README.md").exists() else None
    if readme is None:
        pytest.skip("there is no README here")
    assert readme.partition("<!-- metrics -->\n")[2].partition("<!-- /metrics -->")[0] == table.metrics()
    latest = [one.latest for one in instruments.ALL if one.latest is not None]
    assert len(set(latest)) == len(latest)


@pytest.mark.parametrize(
    ("mark", "made", "command"),
    [
        ("attributes", table.table, "python -m dspy_trace.vocab.table"),
        ("settings", settings_table.table, "python -m dspy_trace.settings.table"),
    ],
)
def test_the_readme_has_the_tables(mark: str, made: Callable[[], str], command: str) -> None:
    """What the README says of attributes and variables is what the commands print."""
    readme = HERE.parent / "README.md"
    if not readme.exists():
        pytest.skip("an installed package has no README beside it")
    told = readme.read_text("utf-8").partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0]
    assert told.strip() == made().strip(), f"paste what `{command}` prints"


def test_every_variable_is_in_the_table() -> None:
    """Each constant of the settings that names variables, with an example; our own come first."""
    lines = settings_table.table().splitlines()[2:]
    named = [name for line in lines for name in re.findall(r"`([A-Z_0-9]+)`", line.split(" | ")[0])]
    values = [value for name, value in (vars(settings) | vars(surroundings)).items() if name.isupper()]
    known = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    assert sorted(named) == sorted(
        one for one in known if isinstance(one, str) and re.fullmatch("[A-Z][A-Z0-9_]+", one)
    )
    ours = [name.startswith("DSPY_TRACE_") for name in named]
    assert ours == sorted(ours, reverse=True)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}


def test_a_variable_without_an_example_is_refused(tmp_path: Path) -> None:
    """The table is not made from half a description."""
    half = tmp_path / "settings.py"
    half.write_text('DETAIL = "DSPY_TRACE_DETAIL"\n"""Which calls become spans."""\n')
    with pytest.raises(ValueError, match="DETAIL needs a docstring"):
        list(settings_table.rows(half))
