"""Requests on their way out, and how they take headers along."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def headed_lm15(request: Any, headers: Mapping[str, str]) -> Any:
    """Return a copy of DSPy's own request with `headers`, as far as it has none of that name."""
    present = {name.lower() for name, _ in request.headers}
    added = [(name, value) for name, value in headers.items() if name.lower() not in present]
    return dataclasses.replace(request, headers=[*request.headers, *added])


def headed_httpx(request: Any, headers: Mapping[str, str]) -> Any:
    """Return httpx's request, which LiteLLM has made for one sending, with `headers`, likewise."""
    for name, value in headers.items():
        request.headers.setdefault(name, value)
    return request
