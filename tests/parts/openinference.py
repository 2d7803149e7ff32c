"""OpenInference's semantic conventions, as its own package has them, and a check of a span against them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

semconv = pytest.importorskip("openinference.semconv.trace")

NAMES = {
    value
    for cls in vars(semconv).values()
    if isinstance(cls, type) and cls.__module__ == semconv.__name__
    for value in vars(cls).values()
    if type(value) is str and "." in value
} | {semconv.SpanAttributes.METADATA}
KINDS = {kind.value for kind in semconv.OpenInferenceSpanKindValues}
MIME_TYPES = {kind.value for kind in semconv.OpenInferenceMimeTypeValues}

OWN = (
    "openinference.",
    "llm.",
    "tool.",
    "retrieval.",
    "embedding.",
    "decision.",
    "agent.",
    "message",
    "input.",
    "output.",
)
"""Beginnings of names that are OpenInference's, and of the parts of numbered ones."""

TYPES: dict[str, type] = {"llm.cost.total": float, "document.score": float}
JSON = {"llm.invocation_parameters", "tool.parameters", "tool.json_schema", "tool_call.function.arguments"}


def parts(key: str) -> list[str]:
    """Return what stands before, between and behind the numbers of a key."""
    return re.split(r"\.\d+\.", key)


def is_known(name: str) -> bool:
    """Return whether OpenInference has a name: as it is, or as one thing inside another, such as an image's address."""
    return name in NAMES or any(
        name[: dot.start()] in NAMES and name[dot.end() :] in NAMES for dot in re.finditer(r"\.", name)
    )


def ours(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span that are in OpenInference's words."""
    return {key: value for key, value in (span.attributes or {}).items() if key.startswith(OWN)}


def type_of(name: str) -> type:
    return TYPES.get(name, int if ".token_count." in name else str)


def problems(span: ReadableSpan) -> Iterator[str]:
    """Yield what is wrong with a span, as text."""
    told = ours(span)
    if told.get("openinference.span.kind") not in KINDS:
        yield f"is of kind {told.get('openinference.span.kind')!r}"
    for key, value in told.items():
        *lists, name = parts(key)
        if not all(map(is_known, [*lists, name])):
            yield f"{key} is no name of OpenInference's"
        if type(value) is not type_of(name):
            yield f"{key} is {value!r}"
        if name.endswith("mime_type") and value not in MIME_TYPES:
            yield f"{key} is {value!r}"
    for value in ("input", "output"):
        if (f"{value}.value" in told) != (f"{value}.mime_type" in told):
            yield f"has {value}.value without its type, or the reverse"
        elif told.get(f"{value}.mime_type") == "application/json":
            json.loads(told[f"{value}.value"])
    yield from gaps(told)


def gaps(told: dict[str, Any]) -> Iterator[str]:
    """Yield the lists whose numbers do not begin with 0, or leave one out."""
    numbers: dict[str, set[int]] = {}
    for key in told:
        for found in re.finditer(r"\.(\d+)\.", key):
            numbers.setdefault(key[: found.start()], set()).add(int(found[1]))
    for prefix, seen in numbers.items():
        if seen != set(range(len(seen))):
            yield f"{prefix} has {sorted(seen)}"
