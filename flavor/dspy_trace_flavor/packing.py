"""A program as data: its files, MLflow's signature of it, what it needs. Made where the program is, without MLflow."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_trace.secrets import known
from dspy_trace_flavor import folder, formats, requirements, schema
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.searching import is_larger, search
from dspy_trace_flavor.streams import streamed
from dspy_trace_flavor.summary import summary
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Vault

logger = logging.getLogger("dspy_trace_flavor")

MOST_BYTES = 2 * 2**20
"""Of a program that is packed unasked: looking for secrets takes a third of a second for each million."""


@dataclass(frozen=True)
class Packed:
    """A program that is about to be saved.

    Attributes:
        kind: the format.
        files: bytes by path.
        versions: what it was made with.
        streams: whether some of its outputs can be streamed.
        vault: its secrets.
        sources: the files that its classes and functions are defined in.
    """

    kind: str
    files: dict[str, bytes]
    versions: dict[str, str]
    streams: bool
    vault: Vault
    sources: tuple[Path, ...] = ()

    def write(self, place: Path) -> None:
        """Write the files into a folder."""
        for name, data in self.files.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(data)


def pack(program: Any, wanted: str = "auto") -> Packed:
    """Return a program, with the settings in force, in a format.

    Raises:
        CannotSave: it is none, or something in it cannot be saved; names the attribute.
    """
    dspy = untyped("dspy")

    if not isinstance(program, dspy.Module):
        raise CannotSave("program", f"it must be a dspy.Module, not {type(program).__name__}")
    settings = formats.settings_to_save()
    vault = Vault(os.environ)
    for value, where in known().items():
        vault.add(value, where)
    search(vault, program, "program")
    search(vault, settings, "settings")
    kind, files = _files(program, settings, vault, wanted)
    files[formats.SUMMARY] = json.dumps(summary(program, settings, vault), indent=1).encode()
    found = tuple(requirements.sources(program, settings))
    return Packed(kind, files, formats.versions(), bool(streamed(program)), vault, found)


def _files(program: Any, settings: dict[str, Any], vault: Vault, wanted: str) -> tuple[str, dict[str, bytes]]:
    if wanted == "cloudpickle":
        return wanted, formats.as_pickle(program, settings, vault)
    try:
        return "state", formats.as_json(program, settings, vault)
    except CannotSave as refused:
        if wanted == "state":
            raise
        files = formats.as_pickle(program, settings, vault)
        logger.warning(
            "The program is saved as a pickle, which runs code when it is loaded and is refused where "
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false. It cannot be saved as JSON because of %s",
            refused,
        )
        return "cloudpickle", files


class Parcel:
    """A program on its way to another process, which saves it.

    Args:
        program: the program; it may change afterwards.

    Raises:
        CannotSave: it cannot be saved, is too large, or holds a secret that would be saved.
    """

    def __init__(self, program: Any) -> None:
        if is_larger(program, MOST_BYTES):
            raise CannotSave("program", f"it holds more than {MOST_BYTES:,} bytes. Log it by log_model().")
        self._packed = pack(program)
        self._signature = schema.told(program)
        folder.search(self._packed.files.items(), self._packed.vault)

    def told(self) -> dict[str, Any]:
        """Return it as JSON data. Reads source files, which takes a moment."""
        packed = self._packed
        return {
            "kind": packed.kind,
            "files": {name: _text(data) for name, data in packed.files.items()},
            "versions": packed.versions,
            "streams": packed.streams,
            "signature": self._signature,
            "requirements": requirements.of_sources(packed.sources),
        }


def _text(data: bytes) -> str:
    # In short words, none of which can be taken for a key and be replaced on the way.
    whole = base64.b64encode(data).decode()
    return " ".join(whole[start : start + 12] for start in range(0, len(whole), 12))


def unpacked(told: Mapping[str, Any]) -> Packed:
    """Return what :meth:`Parcel.told` has told of, in the process that saves it."""
    files = {name: base64.b64decode(data) for name, data in told["files"].items()}
    return Packed(told["kind"], files, told["versions"], told["streams"], Vault(os.environ))
