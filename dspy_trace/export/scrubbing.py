"""The last look at what is about to be written to the spool: nothing that is known to be secret goes out.

Most batches hold none: that is found out by one search through their text, before anything is taken apart.
"""

from __future__ import annotations

from typing import Any

import orjson

from dspy_trace.secrets import is_suspicious, scrub_content, scrub_text


def rows_without_secrets(payload: bytes) -> bytes:
    """Return encoded rows without secrets: in names, messages and the values of attributes, whatever they hold."""
    if not is_suspicious(payload.decode()):
        return payload
    return orjson.dumps([_row(row) for row in orjson.loads(payload)])


def without_secrets(payload: bytes) -> bytes:
    """Return what is said of a trace, encoded, without secrets in its values."""
    return payload if not is_suspicious(payload.decode()) else orjson.dumps(_values(orjson.loads(payload)))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "name": scrub_text(row["name"]),
        "message": scrub_text(row["message"]),
        "attributes": {name: scrub_content(value) for name, value in row["attributes"].items()},
        "events": _values(row["events"]),
        "links": _values(row["links"]),
    }


def _values(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _values(item) for name, item in value.items()}
    if kind is list:
        return [_values(item) for item in value]
    return scrub_text(value) if kind is str else value
