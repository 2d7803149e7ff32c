"""What is in a program, for people: predictors with their instructions, fields and demos, LMs, settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.points.programs import modules_in
from dspy_trace_flavor.encoding import Encoder
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Vault


def summary(program: Any, settings: dict[str, Any], vault: Vault) -> dict[str, Any]:
    """Return what to show of a program without loading it; it holds no secret."""
    dspy = untyped("dspy")

    found = [(path, module) for path, module in modules_in(program) if isinstance(module, dspy.Predict)]
    lms = {id(lm): lm for _, module in found if (lm := module.lm) is not None}
    main = settings.get("lm")
    return {
        "class": f"{type(program).__module__}.{type(program).__qualname__}",
        "predictors": [_predictor(path or "self", module, vault) for path, module in found],
        "lms": [
            _lm(lm, vault)
            for lm in ([main] if main is not None else []) + [lm for lm in lms.values() if lm is not main]
        ],
        "settings": {key: _short(value, vault) for key, value in settings.items() if key != "lm"},
    }


def _predictor(path: str, module: Any, vault: Vault) -> dict[str, Any]:
    fields = list(_fields(module.signature))
    return {
        "path": path,
        "class": type(module).__name__,
        "signature": ask(getattr, module.signature, "signature", default=""),
        "instructions": _text(module.signature.instructions, vault),
        "fields": fields,
        "demos": [{str(key): _short(value, vault) for key, value in dict(demo).items()} for demo in module.demos],
        "config": {key: _short(value, vault) for key, value in module.config.items()},
        "lm": None if module.lm is None else str(module.lm.model),
    }


def _fields(signature: Any) -> Iterator[dict[str, str]]:
    for kind, fields in (("input", signature.input_fields), ("output", signature.output_fields)):
        for name, field in fields.items():
            annotation = field.annotation
            told = annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")
            yield {"name": name, "kind": kind, "type": told}


def _lm(lm: Any, vault: Vault) -> dict[str, Any]:
    told = ask(Encoder(vault).encode, lm, "lm", default={}) or {}
    state = told.get("state") or {}
    return {
        "class": f"{type(lm).__module__}.{type(lm).__qualname__}",
        "model": _text(str(getattr(lm, "model", "")), vault),
        "parameters": {
            key: _plain(value) for key, value in state.items() if key != "model" and value not in (None, {})
        },
        "key": told.get("needs") or next((part["env"] for part in (state.get("api_key") or {}).get("parts", ())), None),
    }


def _plain(value: Any) -> Any:
    """Return JSON data with the names of variables in place of secrets, as one reads them."""
    if isinstance(value, dict) and value.get("$") == "secret":
        return "".join(part if isinstance(part, str) else f"${{{part['env']}}}" for part in value["parts"])
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _text(text: str, vault: Vault) -> str:
    parts = vault.parts(text, "program")
    return text if parts is None else str(_plain({"$": "secret", "parts": parts}))


def _short(value: Any, vault: Vault) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    told = value if isinstance(value, str) else ask(str, value, default=type(value).__name__)
    if not isinstance(value, str | list | dict | tuple) and told.startswith("<"):
        told = type(value).__name__
    return _text(told[:2_000], vault)
