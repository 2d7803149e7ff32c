"""Parameters of runs: what the host passes, as texts that MLflow takes."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping
from typing import Any, Final

from dspy_trace.guard import ask
from dspy_trace.secrets import hide, looks_secret, scrub_text
from dspy_trace.values.jsonable import cut, dumps

LONGEST: Final = 6_000
"""Characters of a parameter that MLflow's databases hold."""

LONGEST_NAME: Final = 250

MOST: Final = 500
"""Parameters of one run; of further ones nobody could read."""

LM_SETTINGS: Final = (
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "top_p",
    "top_k",
    "n",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "rollout_id",
)
"""Settings of an LM that are told; whatever else it was made with may be a secret."""

_NOT_ALLOWED: Final = re.compile(r"[^\w\-./ ]")


def params(told: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters under names and in a form that MLflow takes; what is not known is left out."""
    found: dict[str, str] = {}
    for name, value in list(told.items())[:MOST]:
        if value is None:
            continue
        safe = _NOT_ALLOWED.sub("_", str(name))[: LONGEST_NAME - 4].strip() or "_"
        number = 2
        unique = safe
        while unique in found:
            unique, number = f"{safe}_{number}", number + 1
        found[unique] = cut(_without_secrets(str(name), value), LONGEST)
    return found


def _without_secrets(name: str, value: Any) -> str:
    return scrub_text(text_of(hide(name, value) if looks_secret(name.rpartition(".")[2]) else value))


def text_of(value: Any) -> str:
    """Return a setting as text: a name where it has one, else its JSON."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool or kind is float:
        return repr(value)
    if kind in (types.FunctionType, types.MethodType, types.BuiltinFunctionType, type):
        return str(value.__name__)
    if is_lm(value):
        return str(ask(getattr, value, "model", default=kind.__name__))
    if callable(value) and not issubclass(kind, type):
        return kind.__name__
    told = dumps(plain(value), LONGEST)
    return told[1:-1] if told.startswith('"<') else told


def plain(value: Any, depth: int = 3) -> Any:
    """Return lists and dicts with the LMs, functions and programs in them named."""
    kind = type(value)
    if depth and kind is dict:
        return {name: plain(item, depth - 1) for name, item in list(value.items())[:100]}
    if depth and kind in (list, tuple):
        return [plain(item, depth - 1) for item in value[:100]]
    if is_lm(value) or (callable(value) and kind is not type):
        return text_of(value)
    return value


def is_lm(value: Any) -> bool:
    """Return whether `value` is an LM of DSPy's."""
    base: Any = getattr(sys.modules.get("dspy.clients.base_lm"), "BaseLM", None)
    return base is not None and issubclass(type(value), base)


def lm(prefix: str, value: Any) -> dict[str, Any]:
    """Return what is told of an LM."""
    if not is_lm(value):
        return {}
    kwargs = ask(getattr, value, "kwargs", default=None)
    told = {f"{prefix}.model": ask(getattr, value, "model")}
    if isinstance(kwargs, dict):
        told.update({f"{prefix}.{name}": kwargs.get(name) for name in LM_SETTINGS})
    return told


def surroundings() -> dict[str, Any]:
    """Return the LM that is set, and versions."""
    from dspy_trace._version import __version__

    dspy: Any = sys.modules.get("dspy")
    told = lm("lm", ask(lambda: dspy.settings.lm))
    adapter = ask(lambda: dspy.settings.adapter)
    told["adapter"] = type(adapter).__name__ if adapter is not None else None
    told["dspy_version"] = ask(lambda: dspy.__version__)
    told["dspy_trace_version"] = __version__
    told["python_version"] = ".".join(map(str, sys.version_info[:3]))
    return told


def made_with(instance: Any) -> dict[str, Any]:
    """Return what an object was made with, as far as it has kept that under the names of its parameters."""
    names: list[str] = []
    for base in type(instance).__mro__:
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if code is not None:
            names += code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    state = ask(vars, instance, default={})
    found: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        kept = next((one for one in (name, f"_{name}", f"{name}_fn") if one in state), None)
        if kept is not None:
            found[name] = state[kept]
    return found
