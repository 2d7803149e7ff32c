"""What the environment says, and what it says in vain: a wrong word in a variable is passed over in silence."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import get_args

from dspy_trace import settings
from dspy_trace.checkup import Finding
from dspy_trace.guard import ask
from dspy_trace.settings.words import words as words_in

AREA = "environment"

OURS = "DSPY_TRACE_"


def look(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the content mode, and variables that do not mean what they seem to."""
    yield _content(environ)
    yield from _words(environ)
    yield from _unknown(environ)
    yield from _switched_off(environ)
    if environ.get(settings.EXPERIMENT_ID) and environ.get(settings.EXPERIMENT_NAME):
        said = f"{settings.EXPERIMENT_ID} and {settings.EXPERIMENT_NAME} are both set: the id decides"
        yield Finding(AREA, "note", said, "Set one of them.")


def _content(environ: Mapping[str, str]) -> Finding:
    found = settings.resolve(environ=environ)
    mlflow = "in MLflow" if found.content_for_mlflow else "not in MLflow"
    return Finding(AREA, "ok", f"content: {found.content} on spans, {mlflow}; detail: {found.detail}")


def _is_number(text: str) -> bool:
    number = ask(float, text)
    return number is not None and isfinite(number) and number >= 0


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda text: text.lower() in [word.lower() for word in words]


def _all_of(*words: str) -> Callable[[str], bool]:
    return lambda text: set(words_in(text)) <= set(words)


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


_SWITCH = ("on", "off", "true", "false", "1", "0")

CHECKS: dict[str, tuple[Callable[[str], bool], str]] = {
    settings.CAPTURE_CONTENT: (
        _one_of(*get_args(settings.Content), "true", "false"),
        ", ".join(get_args(settings.Content)),
    ),
    settings.DETAIL: (_one_of(*get_args(settings.Detail)), ", ".join(get_args(settings.Detail))),
    settings.CONVENTIONS: (_all_of(*settings.KNOWN_CONVENTIONS), ", ".join(settings.KNOWN_CONVENTIONS)),
    settings.PROPAGATE: (_one_of(*_SWITCH), "on or off"),
    settings.EMIT_EVENT: (_one_of(*_SWITCH), "true or false"),
    settings.WORKER: (_one_of(*_SWITCH, "yes", "no"), "off"),
    settings.DURABILITY: (_one_of("async", "sync", "none"), "async, sync or none"),
    settings.FOREIGN: (_one_of("all", "none", "ours"), "all"),
    settings.EXIT_WAIT: (_is_number, "a number of seconds"),
    settings.SPOOL_BYTES: (str.isdecimal, "a number of bytes"),
    settings.SPOOL_SECONDS: (str.isdecimal, "a number of seconds"),
    settings.WORKER_IDLE: (_is_number, "a number of seconds"),
    settings.SPAN_VALUE_LIMIT: (str.isdecimal, "a number of characters"),
    settings.VALUE_LIMIT: (str.isdecimal, "a number of characters"),
    settings.BSP_QUEUE: (_is_count, "a number of spans"),
    settings.BSP_BATCH: (_is_count, "a number of spans"),
    settings.BSP_DELAY: (_is_count, "a number of milliseconds"),
}
"""For each variable: whether a value is one that has an effect, and what would be."""


def _words(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name, (fits, wanted) in CHECKS.items():
        value = environ.get(name, "").strip()
        if value and not fits(value):
            # Who has said something of content, and be it misspelled, has not left it to us.
            holds = "no content is told, in MLflow neither" if name == settings.CAPTURE_CONTENT else "the default holds"
            yield Finding(AREA, "wrong", f"{name}={value} means nothing, and {holds}", f"Say {wanted}.")


def _unknown(environ: Mapping[str, str]) -> Iterator[Finding]:
    known = {value for value in vars(settings).values() if isinstance(value, str) and value.startswith(OURS)}
    for name in sorted(environ):
        if name.startswith(OURS) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"Is {near[0]} meant?" if near else f"There are: {', '.join(sorted(known))}"
            yield Finding(AREA, "wrong", f"{name} is no variable of dspy-trace's", meant)


def _switched_off(environ: Mapping[str, str]) -> Iterator[Finding]:
    def says(name: str, *words: str) -> bool:
        return bool({word.strip().lower() for word in environ.get(name, "").split(",")} & set(words))

    if says(settings.SDK_DISABLED, "true"):
        yield Finding(AREA, "wrong", f"{settings.SDK_DISABLED}=true: nothing is recorded at all", "Unset it.")
    if says(settings.SAMPLER, "always_off", "parentbased_always_off"):
        yield Finding(AREA, "wrong", f"{settings.SAMPLER}={environ[settings.SAMPLER]}: nothing is sampled", "Unset it.")
    if says(settings.DISABLED_INSTRUMENTATIONS, "dspy_trace", "*"):
        said = f"{settings.DISABLED_INSTRUMENTATIONS} leaves dspy_trace out under opentelemetry-instrument"
        yield Finding(AREA, "wrong", said, "Take it out of that list.")
    if says(settings.WORKER, "off", "0", "false", "no"):
        said = f"{settings.WORKER}={environ[settings.WORKER]}: what goes to a database waits in the spool"
        yield Finding(AREA, "note", said, "Deliver it with `dspy-trace flush`.")
    exporters = environ.get(settings.TRACES_EXPORTER, "")
    endpoint = next((name for name in settings.OTLP_ENDPOINTS if environ.get(name)), None)
    if endpoint is not None and exporters and not says(settings.TRACES_EXPORTER, "otlp"):
        said = f"{endpoint} is set, but {settings.TRACES_EXPORTER}={exporters} lacks otlp: nothing goes there"
        yield Finding(AREA, "wrong", said, f"Say {settings.TRACES_EXPORTER}={exporters},otlp, or unset it.")
