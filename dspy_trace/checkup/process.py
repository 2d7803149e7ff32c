"""Tracing in this process: what is patched and what could not be, who else is, and where spans go from here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from dspy_trace import guard
from dspy_trace.checkup import Finding
from dspy_trace.guard import ask
from dspy_trace.instrumentor import DSPyInstrumentor, patches
from dspy_trace.observing import neighbours, observer
from dspy_trace.observing.wrapping import Patch, leftovers

PATCHES, PROVIDER = "patches", "provider"


def look() -> Iterator[Finding]:
    """Yield what is found in this process."""
    yield from _instrumented()
    yield from _patched()
    for package, remedy in neighbours.active().items():
        said = f"{package} instruments DSPy as well: every call makes two sets of spans"
        yield Finding(PATCHES, "wrong", said, f"To keep dspy-trace, {remedy}.")
    yield from _provider()
    yield from _accounts()


def destination() -> tuple[str | None, str | None]:
    """Return the tracking URI and the experiment that ``autolog()`` was given."""
    for out in _outlets():
        return out.uri, out.experiment
    return None, None


def _outlets() -> list[Any]:
    # Who does not use it has not imported it.
    module = sys.modules.get("dspy_trace.export.outlet")
    return list(module.existing()) if module is not None else []


def _instrumented() -> Iterator[Finding]:
    if not DSPyInstrumentor().is_instrumented_by_opentelemetry:
        yield Finding(
            PATCHES,
            "wrong",
            "DSPy is not instrumented: nothing is traced",
            "Call dspy_trace.autolog(), or run the program with `dspy-trace run -- python app.py`.",
        )
        for name in leftovers():
            yield _covered(name, "and what tracing has left there only passes calls on")
    elif "dspy" not in sys.modules:
        yield Finding(PATCHES, "ok", "DSPy is patched as soon as the program imports it")


def _patched() -> Iterator[Finding]:
    found = patches()
    if found is None:
        return
    live = found.live()
    yield Finding(PATCHES, "ok", f"{len(live)} methods of DSPy are observed")
    for patch in live:
        if not patch.can_be_undone():
            yield _covered(_name(patch), "and is taken off by nobody but who put it there", _what(patch))
    if found.missing:
        yield Finding(PATCHES, "note", f"this DSPy has no {', '.join(found.missing)}: they are not observed")


def _covered(name: str, then: str, what: str = "a plain function") -> Finding:
    said = f"{what} stands on top of ours on {name}: ours cannot be taken out from beneath it, {then}"
    return Finding(PATCHES, "note", said, "Patch DSPy before tracing starts, or with wrapt.")


def _name(patch: Patch) -> str:
    owner = patch.owner
    return f"{getattr(owner, '__qualname__', None) or getattr(owner, '__name__', owner)}.{patch.name}"


def _what(patch: Patch) -> str:
    found = vars(patch.owner).get(patch.name)
    function = getattr(found, "__func__", found)
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(found).__qualname__)}"


def _provider() -> Iterator[Finding]:
    active = observer.active()
    given = active.providers.tracer if active is not None else None
    provider: Any = given or trace.get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        yield Finding(
            PROVIDER,
            "wrong" if active is not None else "note",
            "there is no tracer provider: spans are not recorded",
            "Call dspy_trace.autolog(), which brings one, or set one up with OpenTelemetry's SDK.",
        )
        return
    kind = type(provider)
    who = "given to dspy-trace" if given is not None else "set by the application"
    if kind.__module__ == "dspy_trace.offered":
        who = "brought by dspy-trace, until the application sets its own"
    yield Finding(PROVIDER, "ok", f"{kind.__module__}.{kind.__qualname__}, {who}")
    for one in _processors(provider):
        yield Finding(PROVIDER, "ok", f"processor {one}")
    sampler = str(ask(lambda: provider.sampler.get_description(), default=""))  # noqa: PLW0108  # may have no sampler
    if sampler.startswith(("AlwaysOff", "ParentBased{root:AlwaysOff")):
        yield Finding(PROVIDER, "wrong", f"it samples nothing ({sampler})", "Give the provider another sampler.")


def _processors(provider: Any) -> list[str]:
    """Return the processors and exporters of a provider, which the SDK tells by private names only."""
    found = ask(lambda: list(provider._active_span_processor._span_processors), default=[])
    told = []
    for one in found:
        exporter = ask(lambda one=one: one.span_exporter) or ask(lambda one=one: one._batch_processor._exporter)
        told.append(type(one).__qualname__ + (f" to {type(exporter).__qualname__}" if exporter is not None else ""))
    return told


def _accounts() -> Iterator[Finding]:
    active = observer.active()
    if active is not None:
        mode = f"content: {active.settings.content} on spans; detail: {active.settings.detail}"
        yield Finding("recording", "ok", mode)
    if _outlets():
        from dspy_trace.control import stats

        now = stats()
        said = f"{now.observed} spans have ended here: {now.delivered} delivered, {now.queued + now.spooled} waiting"
        yield Finding("recording", "ok", f"{said}, {now.filtered} without a DSPy call")
        lost = {**(now.dropped or {}), **({"refused for good": now.dead} if now.dead else {})}
        if lost:
            reasons = ", ".join(f"{number} {reason}" for reason, number in lost.items())
            yield Finding("recording", "wrong", f"lost here: {reasons}", "The log of dspy_trace says why.")
    for step, number in guard.failures.items():
        said = f"{step} has failed {number} times; the first is in the log of dspy_trace"
        yield Finding("recording", "wrong", said, "Please report it.")
