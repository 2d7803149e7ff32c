"""Where a trace comes from: the program, its commit and the account, as MLflow's own tracing tells them."""

from __future__ import annotations

import configparser
import getpass
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from dspy_trace.guard import ask
from dspy_trace.vocab import mlflow_keys as mlflow

_LARGEST = 1_000_000
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_USER_INFO = re.compile(r"^([a-z+]+://)[^/@]*@")


@lru_cache(maxsize=1)
def source() -> dict[str, Any]:
    """Return ``source`` and ``user`` for a trace's info. Read once, from files alone: no git command is run."""
    main = getattr(sys.modules.get("__main__"), "__file__", None) or (sys.argv[0] if sys.argv else "")
    told = {mlflow.SOURCE_NAME: Path(main).name or "python", mlflow.SOURCE_TYPE: _kind()}
    told.update(ask(_git, Path(main).resolve().parent if main else Path.cwd(), default={}))
    user = ask(getpass.getuser)
    return {"source": told, "user": user} if user else {"source": told}


def _kind() -> str:
    return "NOTEBOOK" if "ipykernel" in sys.modules else "LOCAL"


def _git(folder: Path) -> dict[str, str]:
    """Return commit, branch and origin of the checkout that `folder` is in; nothing if it is in none."""
    git = next((found for parent in (folder, *folder.parents) if (found := parent / ".git").exists()), None)
    if git is None:
        return {}
    if git.is_file():  # a worktree or submodule: the file names the folder
        git = (git.parent / _read(git).removeprefix("gitdir:").strip()).resolve()
    common = git / _read(git / "commondir").strip() if (git / "commondir").exists() else git
    head = _read(git / "HEAD").strip()
    branch = head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else None
    commit = _commit(git, common, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    told = {mlflow.GIT_COMMIT: commit, mlflow.GIT_BRANCH: branch, mlflow.GIT_REPOSITORY: ask(_origin, common)}
    return {key: value for key, value in told.items() if value}


def _commit(git: Path, common: Path, ref: str) -> str | None:
    for folder in (git, common):
        if (folder / ref).is_file():
            return _valid(_read(folder / ref).strip())
    packed = _read(common / "packed-refs") if (common / "packed-refs").is_file() else ""
    return next((_valid(line.split(" ")[0]) for line in packed.splitlines() if line.endswith(f" {ref}")), None)


def _valid(commit: str) -> str | None:
    return commit if _SHA.fullmatch(commit) else None


def _origin(common: Path) -> str | None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(_read(common / "config"))
    url = parser.get('remote "origin"', "url", fallback=None)
    # A token in a clone's address is a secret like any other.
    return _USER_INFO.sub(r"\1", url) if url else None


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_LARGEST)
