"""Libraries whose types say less than is true of them, or nothing."""

from __future__ import annotations

import importlib
from typing import Any


def untyped(name: str) -> Any:
    """Import a module as one whose contents may be anything."""
    return importlib.import_module(name)
