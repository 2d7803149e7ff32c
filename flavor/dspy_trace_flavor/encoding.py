"""A program as JSON data: what it is made of, by the names of its classes; no code, no secret, no history.

Plain values are plain JSON. Anything else is an object with the key ``$``, which says what it is; `decoding` reads it.
What has been told once is told again as ``{"$": "ref", "id": ...}``, so that what was one object is one again.
"""

from __future__ import annotations

import base64
import copyreg
import math
import typing
from collections.abc import Mapping
from typing import Any

from dspy_trace.guard import attempt
from dspy_trace.secrets import looks_secret
from dspy_trace_flavor import field_types, lms, plain_values, signatures
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.plain_values import class_path
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Vault

NOT_SAVED = frozenset({"history", "callbacks"})
"""Attributes of DSPy's objects that belong to the process."""

_OWN = frozenset({"signature", "config", "demos", "lm", "traces", "train", "stage", *NOT_SAVED})


class Encoder:
    """Tells of values, each object once.

    Args:
        vault: knows the secrets.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._told: dict[int, tuple[int, Any]] = {}
        """By the id of an object, its number; and the object itself, so that no id is used again."""

    def encode(self, value: Any, where: str, *, named: bool = False) -> Any:
        """Return a value as JSON data.

        Args:
            value: any value.
            where: its path, for errors.
            named: whether its name says that it is a secret.

        Raises:
            CannotSave: it cannot be told in JSON; names the path of what is in the way.
        """
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
        if kind is str:
            parts = self._vault.parts(value, where, named=named)
            return value if parts is None else {"$": "secret", "parts": parts}
        if kind is bytes or kind is bytearray:
            return self._bytes(value, where, named)
        if kind is list:
            return [
                self.encode(item, f"{where}[{index}]", named=named)
                for index, item in enumerate(self._once(value, where))
            ]
        if kind is dict:
            return self._dict(value, where, named)
        return self._object(value, where, named)

    def _once(self, value: Any, where: str) -> Any:
        """Return `value` unless it is being told of already."""
        if len(where) > 4_000:
            raise CannotSave(f"{where[:120]}...", "it holds itself, or is nested too deeply for JSON")
        return value

    def _bytes(self, value: bytes | bytearray, where: str, named: bool) -> Any:
        parts = self._vault.parts(bytes(value).decode("latin-1"), where, named=named)
        if parts is not None:
            return {"$": "secret", "parts": parts, "bytes": True}
        return {"$": "bytes", "value": base64.b64encode(value).decode()}

    def _dict(self, value: Mapping[Any, Any], where: str, named: bool, data: bool = False) -> Any:
        self._once(value, where)
        entries: list[tuple[Any, Any]] = []
        plain = True
        for key, item in value.items():
            told = self.encode(key, f"{where} (a key)")
            plain = plain and isinstance(told, str) and not told.startswith("$")
            secret = named or (isinstance(key, str) and not data and looks_secret(key))
            entries.append((told, self.encode(item, f"{where}[{key!r}]", named=secret)))
        return dict(entries) if plain else {"$": "dict", "items": [list(entry) for entry in entries]}

    def _object(self, value: Any, where: str, named: bool) -> Any:
        if _is_signature(value):
            return self._signature(value, where)
        if isinstance(value, type) or typing.get_origin(value) is not None or value is Any or value is ...:
            return {"$": "type", "type": field_types.told(value, where, self.encode)}
        known = self._told.get(id(value))
        if known is not None:
            return {"$": "ref", "id": known[0]}
        simple = plain_values.told(value, where, named, self.encode)
        if simple is not None:
            return simple
        number = len(self._told) + 1
        self._told[id(value)] = (number, value)
        return {"$": "", "id": number, **self._made(value, where)}

    def _signature(self, value: Any, where: str) -> Any:
        return {"$": "signature", **signatures.told(value, where, self.encode)}

    def _made(self, value: Any, where: str) -> dict[str, Any]:
        """Tell of what has identity, by what it is made of."""
        dspy = untyped("dspy")

        cls = type(value)
        if isinstance(value, dspy.BaseLM if hasattr(dspy, "BaseLM") else dspy.LM):
            state = lms.state_of(value)
            if state is not None:
                return {"$": "lm", "class": class_path(cls, where), **lms.told(state, where, self.encode)}
        if isinstance(value, dspy.Predict):
            return self._predict(value, where)
        if isinstance(value, dspy.Module):
            state = value.__getstate__() if _is_own(cls, "__getstate__") else vars(value)
            return {"$": "module", "class": class_path(cls, where), "attributes": self._state(state, where, dspys=True)}
        if cls is dspy.Example or cls is dspy.Prediction:
            return self._example(value, where)
        if cls is dspy.Tool:
            return self._tool(value, where)
        if cls.__name__ == "FieldInfo" and cls.__module__.startswith("pydantic."):
            return {"$": "field", "field": signatures.field_told("", value, where, self.encode)}
        if cls.__name__ == "Unbatchify" and cls.__module__.startswith("dspy."):
            told = {
                name: self.encode(getattr(value, name), f"{where}.{name}")
                for name in ("max_batch_size", "max_wait_time")
            }
            return {
                "$": "batcher",
                "class": class_path(cls, where),
                "batch_fn": self.encode(value.batch_fn, where),
                **told,
            }
        return self._reduced(value, where)

    def _predict(self, value: Any, where: str) -> dict[str, Any]:
        state = vars(value)
        return {
            "$": "predict",
            "class": class_path(type(value), where),
            "signature": self.encode(value.signature, f"{where}.signature"),
            "config": self.encode(value.config, f"{where}.config"),
            "lm": self.encode(value.lm, f"{where}.lm"),
            "demos": [self._demo(demo, f"{where}.demos[{index}]") for index, demo in enumerate(value.demos)],
            "attributes": self._state({key: item for key, item in state.items() if key not in _OWN}, where, dspys=True),
        }

    def _demo(self, demo: Any, where: str) -> Any:
        return self._dict(demo, where, False, data=True) if type(demo) is dict else self.encode(demo, where)

    def _example(self, value: Any, where: str) -> dict[str, Any]:
        keys = getattr(value, "_input_keys", None)
        return {
            "$": "example",
            "class": type(value).__name__,
            "store": self._dict(dict(value.items(include_dspy=True)), where, False, data=True),
            "inputs": sorted(keys) if keys is not None else None,
        }

    def _tool(self, value: Any, where: str) -> dict[str, Any]:
        types_ = {
            key: field_types.told(kind, f"{where}.{key}", self.encode) for key, kind in (value.arg_types or {}).items()
        }
        told = {name: self.encode(getattr(value, name), f"{where}.{name}") for name in ("func", "name", "desc", "args")}
        return {"$": "tool", **told, "arg_types": types_, "arg_desc": self.encode(value.arg_desc, f"{where}.arg_desc")}

    def _state(self, state: Any, where: str, *, dspys: bool) -> Any:
        if not isinstance(state, dict):
            return self.encode(state, where)
        return {
            key: [] if dspys and key in NOT_SAVED else self.encode(item, f"{where}.{key}", named=looks_secret(key))
            for key, item in state.items()
        }

    def _reduced(self, value: Any, where: str) -> dict[str, Any]:
        """Tell of any other object as ``copy`` would make another one: its class and its attributes."""
        cls = type(value)
        reduced, error = attempt(value.__reduce_ex__, 2)
        if error is not None or not isinstance(reduced, tuple):
            why = str(error) or type(error).__name__
            raise CannotSave(
                where,
                f"{cls.__module__}.{cls.__qualname__} cannot be saved ({why}). Make it where it is used, or leave it "
                "out in the class's __getstate__ and make it again in __setstate__.",
            )
        parts: tuple[Any, ...] = (*reduced, None, None, None)
        function, args, state, items, entries = parts[:5]
        if function is not copyreg.__newobj__ or args[0] is not cls:  # type: ignore[attr-defined]  # typeshed lacks it
            raise CannotSave(
                where,
                f"{cls.__module__}.{cls.__qualname__} can only be saved as a pickle: use format='cloudpickle'.",
            )
        dspys = any(base.__module__.startswith("dspy.") for base in cls.__mro__)
        plain, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        return {
            "$": "object",
            "class": class_path(cls, where),
            "args": [self.encode(one, where) for one in args[1:]],
            "state": self._state(plain, where, dspys=dspys),
            "slots": self._state(slots, where, dspys=dspys),
            "items": [self.encode(item, f"{where}[{index}]") for index, item in enumerate(items or ())],
            "entries": [[self.encode(k, where), self.encode(v, f"{where}[{k!r}]")] for k, v in entries or ()],
        }


def _is_signature(value: Any) -> bool:
    dspy = untyped("dspy")

    return isinstance(value, type) and issubclass(value, dspy.Signature) and value is not dspy.Signature


def _is_own(cls: type, name: str) -> bool:
    """Return whether the program's own classes define a method, not DSPy's or Python's."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return not base.__module__.startswith("dspy.") and base is not object
    return False
