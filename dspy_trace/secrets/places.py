"""Where a DSPy program keeps its secrets: in LMs, clients, retrievers, settings and arguments of calls."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from dspy_trace.guard import ask
from dspy_trace.secrets import SHORTEST, is_known, learn_environment, learn_from, looks_secret

_CONTENT: Final = frozenset(
    ("messages", "prompt", "request", "tools", "functions", "response_format", "tool_choice", "inputs", "query")
)
"""Arguments that are what a call is about, however large, and no settings of its client."""

_NOT_HELD: Final = frozenset(("history", "callbacks", "corpus", "demos", "traces", "train"))

_GLOBALS: Final = {
    "litellm": ("api_key", "openai_key", "azure_key", "anthropic_key", "cohere_key", "groq_key", "huggingface_key"),
    "openai": ("api_key", "azure_ad_token"),
}
"""Attributes of modules that hold keys for a whole process; with them their ``headers``."""

_MOST: Final = 1_024
_PAUSE: Final = 1.0

_seen: dict[int, tuple[Any, Any]] = {}
_looked = [0.0]
_NONE: Mapping[str, Any] = types.MappingProxyType({})


def seen(holder: Any, given: Mapping[str, Any] = _NONE) -> None:
    """Take note of the secrets of an LM, embedder, retriever or the like, once, and of those given with a call."""
    parameters = getattr(holder, "__dict__", _NONE).get("kwargs")
    key = parameters.get("api_key") if type(parameters) is dict else None
    known = _seen.get(id(holder))
    forgotten = type(key) is str and len(key) >= SHORTEST and not is_known(key)
    if known is None or known[0]() is not holder or known[1] is not key or forgotten:
        _look_into(holder, key)
    for name, value in given.items():
        if name not in _CONTENT and (looks_secret(name) or type(value) in (dict, list, tuple, str)):
            learn_from({name: value}, "a call")


def _look_into(holder: Any, key: Any) -> None:
    reference = ask(weakref.ref, holder)
    if reference is not None:
        if len(_seen) >= _MOST:
            _seen.clear()
        _seen[id(holder)] = (reference, key)
    learn_from(_held(holder, deep=True), type(holder).__name__)
    learn_environment()
    if monotonic() - _looked[0] >= _PAUSE:
        _looked[0] = monotonic()
        for module, names in _GLOBALS.items():
            found = vars(sys.modules[module]) if module in sys.modules else {}
            learn_from({name: found.get(name) for name in (*names, "headers")}, module)
            for name in names:
                learn_from({"api_key": found.get(name)}, module)
        learn_from(ask(lambda: dict(sys.modules["dspy"].settings.copy()), default={}), "settings of DSPy")


def _held(holder: Any, deep: bool) -> dict[str, Any]:
    """Return what an object holds as plain data, and what its own parts do, such as a client; no code of it is run."""
    state = ask(object.__getattribute__, holder, "__dict__")
    if type(state) is not dict or isinstance(holder, type | types.ModuleType | types.FunctionType):
        return {}
    held: dict[str, Any] = {}
    for name, value in list(state.items())[:256]:
        if type(name) is not str or name in _NOT_HELD:
            continue
        if type(value) in (str, dict, list, tuple):
            held[name] = value
        elif deep:
            held[name] = _held(value, deep=False)
    return held
