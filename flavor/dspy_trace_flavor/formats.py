"""A program and its settings as files, and back: JSON, or a pickle without LMs and secrets."""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

from dspy_trace import __version__
from dspy_trace.guard import attempt
from dspy_trace_flavor.decoding import Decoder
from dspy_trace_flavor.encoding import NOT_SAVED, Encoder
from dspy_trace_flavor.errors import CannotLoad, CannotSave
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Vault

NEWEST = 1
"""Version of the layout that is written. A reader refuses newer ones."""

PROGRAM = "data/program.json"
PICKLE = "data/program.pkl"
SUMMARY = "data/summary.json"

PROCESS = frozenset(
    (
        "trace",
        "callbacks",
        "usage_tracker",
        "send_stream",
        "stream_listeners",
        "caller_predict",
        "caller_modules",
        "branch_idx",
        "disable_history",
        "track_usage",
        "max_history_size",
        "max_trace_size",
        "async_max_workers",
        "num_threads",
        "provide_traceback",
        "max_errors",
        "warn_on_type_mismatch",
        # Of DSPy before 3, and without effect there.
        "bypass_assert",
        "bypass_suggest",
        "assert_failures",
        "suggest_failures",
        "backoff_time",
    )
)
"""Settings of DSPy's that belong to the process and do not change results."""


def settings_to_save() -> dict[str, Any]:
    """Return the settings in force that change results: LM, adapter, retriever, and those of the program's own."""
    return without_process(dict(untyped("dspy").settings.config))


def without_process(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that belong to the process or are as DSPy has them from the beginning."""
    from dspy.dsp.utils.settings import DEFAULT_CONFIG

    default = object()
    return {
        key: value
        for key, value in config.items()
        if key not in PROCESS and value is not DEFAULT_CONFIG.get(key, default)
    }


def versions() -> dict[str, str]:
    """Return the versions that a program may depend on."""
    import importlib.metadata

    told = {"python": ".".join(map(str, sys.version_info[:3])), "dspy-trace": __version__}
    for name in ("dspy", "mlflow", "cloudpickle", "pydantic"):
        version, _ = attempt(importlib.metadata.version, name)
        if version:
            told[name] = version
    return told


def as_json(program: Any, settings: dict[str, Any], vault: Vault) -> dict[str, bytes]:
    """Return the files of the `state` format.

    Raises:
        CannotSave: something in the program cannot be told in JSON.
    """
    encoder = Encoder(vault)
    try:
        told = {"program": encoder.encode(program, "program"), "settings": encoder.encode(settings, "settings")}
    except RecursionError:
        raise CannotSave(
            "program", "it is nested too deeply for JSON, or holds a list or dict that holds itself"
        ) from None
    return {PROGRAM: json.dumps(told, indent=1).encode()}


def as_pickle(program: Any, settings: dict[str, Any], vault: Vault) -> dict[str, bytes]:
    """Return the files of the `cloudpickle` format.

    Raises:
        CannotSave: something in the program cannot be pickled; names its path.
    """
    data, error = attempt(_pickled, {"program": program, "settings": settings}, vault)
    if error is not None:
        raise CannotSave(culprit(program, settings, vault), f"it cannot be pickled ({error})") from error
    return {PICKLE: data}


def _pickled(what: Any, vault: Vault) -> bytes:
    buffer = io.BytesIO()
    pickler_class()(buffer, vault).dump(what)
    return buffer.getvalue()


def culprit(program: Any, settings: dict[str, Any], vault: Vault) -> str:
    """Return the path of the innermost thing that cannot be pickled."""
    found, value = "program", program
    for key, item in settings.items():
        if attempt(_pickled, item, vault)[1] is not None:
            found, value = f"settings.{key}", item
    for _ in range(40):
        parts = [(f"{found}[{k!r}]", v) for k, v in value.items()] if isinstance(value, dict) else []
        parts += [(f"{found}[{k}]", v) for k, v in enumerate(value)] if isinstance(value, list | tuple) else []
        parts += [
            (f"{found}.{k}", v) for k, v in (getattr(value, "__dict__", None) or {}).items() if k not in NOT_SAVED
        ]
        failing = next(((path, part) for path, part in parts if attempt(_pickled, part, vault)[1] is not None), None)
        if failing is None:
            return found
        found, value = failing
    return found


def pickler_class() -> Any:
    """Return cloudpickle's pickler, made to write LMs and secrets as JSON data and to leave out histories."""
    cloudpickle = untyped("cloudpickle")
    dspy = untyped("dspy")

    base_lm = getattr(dspy, "BaseLM", dspy.LM)
    base: Any = cloudpickle.Pickler

    class Pickler(base):  # type: ignore[misc]  # it has no types
        def __init__(self, file: Any, vault: Vault) -> None:
            super().__init__(file)
            self._vault, self._encoder = vault, Encoder(vault)
            self._by_value: dict[int, Any] = {}

        def persistent_id(self, value: Any) -> Any:
            kind = type(value)
            if kind is str:
                parts = self._vault.parts(value, "program")
                return None if parts is None else {"$": "secret", "parts": parts}
            if kind is bytes and len(value) < 1_000_000:
                parts = self._vault.parts(value.decode("latin-1"), "program")
                return None if parts is None else {"$": "secret", "parts": parts, "bytes": True}
            if isinstance(value, base_lm) or (kind.__name__ == "Unbatchify" and kind.__module__.startswith("dspy.")):
                return self._as_json(value)
            return None

        def _as_json(self, value: Any) -> Any:
            if id(value) in self._by_value:
                return None
            told, error = attempt(self._encoder.encode, value, "lm")
            if error is not None:
                self._by_value[id(value)] = value
            return told

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, dspy.Predict | base_lm | dspy.Adapter):
                return _empty, (type(value),), _state(value)
            return super().reducer_override(value)

    return Pickler


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of one of DSPy's objects without what belongs to the process."""
    return {key: [] if key in NOT_SAVED or key == "traces" else item for key, item in vars(value).items()}


def _empty(cls: Any) -> Any:
    return cls.__new__(cls)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, decoder: Decoder) -> None:
        super().__init__(file)
        self._decoder = decoder

    def persistent_load(self, pid: Any) -> Any:
        made = self._decoder.decode(pid)
        return "" if made is None else made


def read(folder: Path, kind: str, decoder: Decoder) -> tuple[Any, dict[str, Any]]:
    """Return program and settings from a folder that has been checked.

    Raises:
        CannotLoad: a class is missing, or something cannot be made again; says which.
    """
    if kind == "state":
        told = json.loads((folder / PROGRAM).read_text("utf-8"))
        made, error = attempt(lambda: {key: decoder.decode(told[key]) for key in ("program", "settings")})
    else:
        made, error = attempt(lambda: _Unpickler(io.BytesIO((folder / PICKLE).read_bytes()), decoder).load())
    if isinstance(error, CannotLoad):
        raise error
    if error is not None:
        raise CannotLoad(
            f"the program cannot be made again: {type(error).__name__}: {error}.{_remedy(error)}"
        ) from error
    return made["program"], made["settings"]


def _remedy(error: Exception) -> str:
    if isinstance(error, ImportError | AttributeError):
        return (
            " The model names a class or function that is not installed here, or not under that name any more: install "
            "the package that it was saved with, or save it with its source in code_paths."
        )
    return ""
