"""Looking for secrets in everything that a program holds, by name and by looks."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.secrets import looks_secret
from dspy_trace_flavor.importing import path_of
from dspy_trace_flavor.providers import key_variable
from dspy_trace_flavor.vault import Vault

_DEEPEST = 40
_SKIPPED = frozenset({"history", "callbacks", "traces"})
_DATA = frozenset({"demos", "train", "_store"})
"""What holds data of the user's fields, which may be called ``password`` without being one."""

_PLAIN = (int, float, complex, bool, types.ModuleType, types.BuiltinFunctionType)


def search(vault: Vault, root: Any, where: str) -> None:
    """Add to `vault` what is secret in `root`: values by the names they have, texts by their looks."""
    _Search(vault).see(root, where, None, named=False, data=False, depth=0)


def is_larger(root: Any, most: int) -> bool:
    """Return whether what `root` holds and would be saved is of more than about so many bytes; looks no further."""
    size, waiting = 0, [root]
    seen: dict[int, Any] = {}
    while waiting and size <= most:
        value = waiting.pop()
        size += 8 + (len(value) if isinstance(value, str | bytes | bytearray) else 0)
        if type(value).__module__ == "numpy":
            size += ask(getattr, value, "nbytes", default=0)
        if value is None or isinstance(value, (str, bytes, bytearray, *_PLAIN)) or id(value) in seen:
            continue
        seen[id(value)] = value
        waiting += [held for name, _, held in _held(value, "") if name not in _SKIPPED or isinstance(value, Mapping)]
    return size > most


class _Search:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._seen: dict[int, Any] = {}
        """By id, what has been seen; kept, so that no id is used again."""

    def see(self, value: Any, where: str, variable: str | None, *, named: bool, data: bool, depth: int) -> None:
        if isinstance(value, bytes | bytearray):
            value = bytes(value).decode("latin-1")
        if isinstance(value, str):
            if named:
                self._vault.add(str(value), where, variable)
            else:
                self._vault.look(value, where)
            return
        if value is None or isinstance(value, _PLAIN) or depth > _DEEPEST or (id(value) in self._seen and not named):
            return
        self._seen[id(value)] = value
        variable = key_variable(value)
        for name, path, held in _held(value, where):
            if name in _SKIPPED and not isinstance(value, Mapping):
                continue
            inner_data = data or name in _DATA
            inner = (named or looks_secret(name)) if not inner_data else False
            if isinstance(held, dict) and variable is not None and isinstance(key := held.get("api_key"), str):
                self._vault.add(key, f"{path}['api_key']", variable)
            self.see(held, path, variable if name == "api_key" else None, named=inner, data=inner_data, depth=depth + 1)


def _held(value: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the name, path and value of each thing that `value` holds and that is saved with it."""
    if isinstance(value, Mapping):
        for key, item in list(ask(value.items, default=())):
            yield str(key) if isinstance(key, str) else "", f"{where}[{key!r}]", item
            yield "", f"{where} (a key)", key
    elif isinstance(value, list | tuple | set | frozenset):
        items = list(value)
        if len(items) == 2 and isinstance(value, tuple) and isinstance(items[0], str) and isinstance(items[1], str):
            yield items[0], f"{where}[{items[0]!r}]", items[1]
        for index, item in enumerate(items):
            yield "", f"{where}[{index}]", item
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value, where)
    elif isinstance(value, types.MethodType):
        yield "", f"{where}.__self__", value.__self__
        yield "", where, value.__func__
    elif isinstance(value, type):
        if path_of(value) is None:
            yield from ((name, f"{where}.{name}", held) for name, held in list(vars(value).items()))
    else:
        if isinstance(value, functools.partial):
            yield "", f"{where}.func", value.func
            yield "", f"{where}.args", value.args
            yield from ((name, f"{where}.{name}", held) for name, held in value.keywords.items())
        if path_of(type(value)) is None:
            yield "", f"{where}.__class__", type(value)
        yield from ((name, f"{where}.{name}", held) for name, held in _attributes(value))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from list(ask(vars, value, default={}).items())
    for name in ("__pydantic_extra__", "__pydantic_private__"):
        held = ask(object.__getattribute__, value, name)
        if isinstance(held, dict):
            yield from held.items()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and not name.startswith("__pydantic"):
                yield name, ask(getattr, value, name)


def _of_function(function: types.FunctionType, where: str) -> Iterator[tuple[str, str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        yield name, f"{where}.{name} (in its closure)", ask(lambda cell=cell: cell.cell_contents)
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    yield from (
        (name, f"{where}({name}=...)", held) for name, held in zip(names[-len(defaults) :], defaults, strict=False)
    )
    yield from ((name, f"{where}({name}=...)", held) for name, held in (function.__kwdefaults__ or {}).items())
    yield from ((name, f"{where}.{name}", held) for name, held in vars(function).items())
    if path_of(function) is not None:
        return
    # Pickled by value, it takes along its constants and the globals that it names.
    for inner in _codes(code):
        for constant in inner.co_consts:
            if isinstance(constant, str | bytes | tuple):
                yield "", f"{where} (a constant of its code)", constant
        for name in inner.co_names:
            if name in function.__globals__:
                yield name, f"{where}.{name} (a global of its module)", function.__globals__[name]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
