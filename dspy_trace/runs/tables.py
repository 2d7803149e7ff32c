"""Tables of a run, in the form that MLflow's page shows: columns that grow with the rows, and values of true types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

MOST_BYTES = 64 * 2**20
"""Largest table; of further rows it is said how many there are."""


def table(payloads: Sequence[bytes], most_bytes: int = MOST_BYTES) -> str:
    """Return rows, each a JSON object, as JSON of ``columns`` and ``data``; a cell that a row lacks is null."""
    columns: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    size = 0
    for payload in payloads:
        size += len(payload)
        if size > most_bytes and rows:
            break
        row = orjson.loads(payload)
        columns.update(dict.fromkeys(row))
        rows.append(row)
    told: dict[str, Any] = {"columns": list(columns), "data": [[row.get(name) for name in columns] for row in rows]}
    if len(rows) < len(payloads):
        told["left_out"] = len(payloads) - len(rows)
    return orjson.dumps(told).decode()
