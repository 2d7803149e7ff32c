"""Samplers of an application's."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes


class LeavesOut(Sampler):
    """Samples everything but spans whose name begins so, and remembers what it was asked about, in `names`."""

    def __init__(self, *prefixes: str) -> None:
        self.prefixes = prefixes
        self.names: list[str] = []

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        self.names.append(name)
        left_out = name.startswith(self.prefixes)
        return SamplingResult(Decision.DROP if left_out else Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return f"all but {', '.join(self.prefixes)}"
