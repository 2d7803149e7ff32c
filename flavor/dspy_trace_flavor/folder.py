"""The folder of a saved model: written whole or not at all, and checked before anything of it is executed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dspy_trace_flavor.errors import CannotLoad, SecretFound
from dspy_trace_flavor.formats import NEWEST
from dspy_trace_flavor.vault import Vault, is_searched, shaped

FLAVOR = "dspy_trace"
_CHECKED = ("data", "code")
_TEXT = 4_000_000


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the program and its code, by its path in the folder."""
    files = [path for name in _CHECKED for path in sorted((folder / name).rglob("*")) if _counts(path)]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _counts(path: Path) -> bool:
    return (path.is_file() or path.is_symlink()) and "__pycache__" not in path.parts


def check(folder: Path, conf: Mapping[str, Any]) -> None:
    """Refuse a folder that is not what was saved.

    Raises:
        CannotLoad: it is of a newer layout, or a file was changed, added or lost.
    """
    version = conf.get("version")
    if not isinstance(version, int) or version > NEWEST:
        raise CannotLoad(
            f"the model has layout {version!r}, and this dspy-trace reads up to {NEWEST}: install the version that it "
            "was saved with (see its requirements.txt), or a newer one"
        )
    if conf.get("format") not in ("state", "cloudpickle"):
        raise CannotLoad(f"the model is of format {conf.get('format')!r}, which is neither 'state' nor 'cloudpickle'")
    expected, found = dict(conf.get("files") or {}), digests(folder)
    for kind, names in (
        ("is missing", expected.keys() - found.keys()),
        ("was added", found.keys() - expected.keys()),
        ("was changed", {name for name in expected.keys() & found.keys() if expected[name] != found[name]}),
    ):
        if names:
            raise CannotLoad(
                f"the model folder is not what was saved: {sorted(names)[0]} {kind} since. Nothing of it was executed. "
                "Fetch the model anew, or save it again if the change was meant."
            )


def scan(folder: Path, vault: Vault) -> None:
    """Look for every known secret, and for what looks like one, in every byte of a folder.

    Raises:
        SecretFound: a file holds one; names the attribute that holds it too, if it is known, and the file.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    search(((path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths), vault)


def search(files: Iterable[tuple[str, bytes]], vault: Vault) -> None:
    """Do as :func:`scan` for files that are given by their names and bytes."""
    needles = {
        needle: secret for value, secret in vault.secrets.items() if is_searched(value) for needle in _spellings(value)
    }
    pattern = re.compile(b"|".join(re.escape(needle) for needle in sorted(needles, key=len, reverse=True)) or rb"(?!)")
    for name, content in files:
        for data in (name.encode(), content):
            hit = pattern.search(data)
            if hit is not None:
                where = needles[hit.group()].where
                raise SecretFound(where, f"its secret would be in {name}, so nothing was saved. {_REMEDY}")
            text = data[:_TEXT].decode("utf-8", "replace")
            for value in shaped(text):
                raise SecretFound(name, f"{value[:6]}... in it looks like a secret, so nothing was saved. {_REMEDY}")


_REMEDY = "Take it out, and read it from an environment variable instead."


def _spellings(value: str) -> set[bytes]:
    """Return a secret as the files of a model may spell it."""
    escaped = (
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, safe=""),
        repr(value)[1:-1],
    )
    return {
        value.encode("utf-8", "surrogatepass"),
        value.encode("utf-16-le", "surrogatepass"),
        *(text.encode("utf-8", "replace") for text in escaped),
    }
