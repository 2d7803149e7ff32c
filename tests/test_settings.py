"""Settings come from arguments, else from the environment, else they are the defaults; errors say what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_trace import DSPyInstrumentor, settings
from dspy_trace.settings import LIMIT, Settings, resolve

CONTENT = settings.CAPTURE_CONTENT
VARIABLES = (
    settings.CAPTURE_CONTENT,
    settings.STABILITY_OPT_IN,
    settings.DETAIL,
    settings.CONVENTIONS,
    settings.SPAN_VALUE_LIMIT,
    settings.VALUE_LIMIT,
)


def test_the_defaults() -> None:
    """Nothing given: no content, standard detail, the GenAI conventions, values of up to 64 Ki characters."""
    assert resolve(environ={}) == Settings()
    assert Settings() == Settings(
        content="NO_CONTENT",
        content_refused=False,
        detail="standard",
        conventions=("genai",),
        redact=None,
        value_limit=65_536,
        latest_semconv=False,
        traces_from_eval=True,
        traces_from_compile=True,
    )
    assert not Settings().content_on_spans


def test_the_variables_have_the_names_that_are_documented() -> None:
    """OpenTelemetry's variables by their standard names, ours under one prefix."""
    assert VARIABLES == (
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "DSPY_TRACE_DETAIL",
        "DSPY_TRACE_CONVENTIONS",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    )


MODES = [
    (True, "SPAN_ONLY", True),
    (False, "NO_CONTENT", False),
    ("true", "SPAN_ONLY", True),
    ("False", "NO_CONTENT", False),
    ("NO_CONTENT", "NO_CONTENT", False),
    ("SPAN_ONLY", "SPAN_ONLY", True),
    ("EVENT_ONLY", "EVENT_ONLY", False),
    ("SPAN_AND_EVENT", "SPAN_AND_EVENT", True),
    (" span_and_event ", "SPAN_AND_EVENT", True),
]


@pytest.mark.parametrize(("given", "content", "on_spans"), MODES)
def test_content_modes(given: Any, content: str, on_spans: bool) -> None:
    """A bool or a mode of the conventions, as argument or, as a word, in the environment; the case is no matter."""
    resolved = resolve(capture_content=given, environ={})
    assert (resolved.content, resolved.content_on_spans) == (content, on_spans)
    if isinstance(given, str):
        resolved = resolve(environ={CONTENT: given})
        assert (resolved.content, resolved.content_on_spans) == (content, on_spans)


@pytest.mark.parametrize("word", ["", "  ", "yes", "1", "SPAN", "NO_CONTENT,SPAN_ONLY", "\ud800"])
def test_a_wrong_content_word_in_the_environment_means_no_content(word: str) -> None:
    """In doubt nothing is told; no program fails over its environment."""
    assert resolve(environ={CONTENT: word}).content == "NO_CONTENT"


def test_arguments_win_over_the_environment() -> None:
    """What the code asks for holds, whatever the environment says."""
    environ = {CONTENT: "SPAN_ONLY", settings.DETAIL: "full", settings.CONVENTIONS: "nonsense"}
    assert resolve(environ=environ) == Settings(content="SPAN_ONLY", detail="full")
    assert resolve(capture_content=False, detail="minimal", conventions={"genai"}, environ=environ) == Settings(
        content_refused=True, detail="minimal"
    )
    assert resolve(capture_content=True, environ={CONTENT: "NO_CONTENT"}).content == "SPAN_ONLY"
    assert resolve(capture_content="EVENT_ONLY", environ=environ).content == "EVENT_ONLY"


@pytest.mark.parametrize(
    ("argument", "word", "for_mlflow"),
    [
        (None, "", True),
        (None, "SPAN_ONLY", True),
        (None, "EVENT_ONLY", True),
        (True, "NO_CONTENT", True),
        ("EVENT_ONLY", "false", True),
        (None, "NO_CONTENT", False),
        (None, "false", False),
        (None, "nonsense", False),
        (False, "", False),
        ("no_content", "SPAN_ONLY", False),
    ],
)
def test_no_content_in_so_many_words_means_none_anywhere(argument: Any, word: str, for_mlflow: bool) -> None:
    """Content goes into the user's own MLflow experiment unless it was refused, or nobody can tell what was meant."""
    assert resolve(capture_content=argument, environ={CONTENT: word}).content_for_mlflow is for_mlflow


@pytest.mark.parametrize("detail", ["minimal", "standard", "full"])
def test_detail(detail: str) -> None:
    """Three levels, from either side; a wrong word in the environment means the default."""
    assert resolve(detail=detail, environ={}).detail == detail
    assert resolve(detail=f" {detail.upper()}", environ={}).detail == detail
    assert resolve(environ={settings.DETAIL: f" {detail.upper()} "}).detail == detail
    assert resolve(environ={settings.DETAIL: "most"}).detail == "standard"


@pytest.mark.parametrize(
    ("words", "conventions"),
    [
        ("genai", ("genai",)),
        (" GenAI , genai,", ("genai",)),
        ("", ("genai",)),
        ("unknown", ("genai",)),
        ("unknown,genai", ("genai",)),
    ],
)
def test_conventions_in_the_environment(words: str, conventions: tuple[str, ...]) -> None:
    """Names in any order and case, each once; unknown ones are passed over, and without a known one it is GenAI."""
    assert resolve(environ={settings.CONVENTIONS: words}).conventions == conventions


@pytest.mark.parametrize("conventions", [{"genai"}, ["genai"], ("genai", "genai"), frozenset({"genai"}), {"genai": 1}])
def test_conventions_as_any_collection(conventions: Any) -> None:
    """Any collection of names will do."""
    assert resolve(conventions=conventions, environ={}).conventions == ("genai",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"capture_content": 1}, TypeError, "capture_content must be a bool or one of ('NO_CONTENT', 'SPAN_ONLY', "),
        ({"capture_content": "yes"}, ValueError, "capture_content must be one of ('NO_CONTENT', 'SPAN_ONLY', "),
        ({"capture_content": ""}, ValueError, "not ''"),
        ({"detail": "most"}, ValueError, "detail must be one of ('minimal', 'standard', 'full'), not 'most'"),
        ({"detail": 2}, TypeError, "detail must be one of ('minimal', 'standard', 'full'), not int"),
        ({"detail": ["full"]}, TypeError, "not list"),
        ({"conventions": "genai"}, TypeError, "conventions must be a collection of names such as {'genai'}, not 'ge"),
        ({"conventions": 5}, TypeError, "conventions must be a collection of names such as {'genai'}, not 5"),
        ({"conventions": set()}, ValueError, "conventions must be some of ("),
        ({"conventions": ["genai", "nope"]}, ValueError, "not ['genai', 'nope']"),
        ({"conventions": ["genai", 5]}, ValueError, "not ['genai', 5]"),
        ({"redact": "secret"}, TypeError, "redact must be a callable that takes and returns a value, not str"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(arguments: dict[str, Any], error: type, message: str) -> None:
    """The wrong type is a TypeError, the wrong word a ValueError; the message names what is right and what was given.

    The same through the public method, which leaves DSPy as it is.
    """
    with pytest.raises(error) as raised:
        resolve(**arguments, environ={})
    assert message in str(raised.value)
    with pytest.raises(error) as raised:
        DSPyInstrumentor().instrument(**arguments)
    assert message in str(raised.value)
    assert not DSPyInstrumentor().is_instrumented_by_opentelemetry


@pytest.mark.parametrize("arguments", [{"tracer_provider": "console"}, {"capture_contents": True}])
def test_what_is_no_setting_is_a_type_error(arguments: dict[str, Any]) -> None:
    """A provider that is none, or a misspelt name, is said before anything is patched."""
    with pytest.raises(TypeError, match=next(iter(arguments))):
        DSPyInstrumentor().instrument(**arguments)
    assert not DSPyInstrumentor().is_instrumented_by_opentelemetry


def test_a_redact_that_is_callable_is_kept() -> None:
    """Any callable will do."""
    assert resolve(redact=str, environ={}).redact is str


@pytest.mark.parametrize(
    ("environ", "limit"),
    [
        ({}, LIMIT),
        ({settings.SPAN_VALUE_LIMIT: "4096"}, 4096),
        ({settings.VALUE_LIMIT: "4096"}, 4096),
        ({settings.SPAN_VALUE_LIMIT: "100", settings.VALUE_LIMIT: "200"}, 100),
        ({settings.SPAN_VALUE_LIMIT: "300", settings.VALUE_LIMIT: "200"}, 300),
        ({settings.SPAN_VALUE_LIMIT: "", settings.VALUE_LIMIT: "200"}, 200),
        ({settings.SPAN_VALUE_LIMIT: "999999999"}, LIMIT),
        ({settings.SPAN_VALUE_LIMIT: "-1"}, LIMIT),
        ({settings.SPAN_VALUE_LIMIT: "many"}, LIMIT),
        ({settings.SPAN_VALUE_LIMIT: "²"}, LIMIT),
        ({settings.SPAN_VALUE_LIMIT: "1" * 5_000}, LIMIT),
    ],
)
def test_the_limit_is_the_smaller_of_ours_and_the_sdks(environ: dict[str, str], limit: int) -> None:
    """As in the SDK, the variable for spans wins over the general one; what is no number is passed over."""
    assert resolve(environ=environ).value_limit == limit


@pytest.mark.parametrize(
    ("words", "latest"),
    [
        ("", False),
        ("gen_ai_latest_experimental", True),
        ("http, GEN_AI_latest_experimental ,database/dup", True),
        ("gen_ai_latest", False),
    ],
)
def test_the_newest_spelling_is_opted_into(words: str, latest: bool) -> None:
    """The opt-in is one of a comma-separated list, as in all of OpenTelemetry."""
    assert resolve(environ={settings.STABILITY_OPT_IN: words}).latest_semconv is latest


@pytest.mark.parametrize("switch", ["eval", "compile"])
def test_traces_from_evaluations_and_compiles_are_switched_apart(switch: str) -> None:
    """Each switch turns off its own."""
    resolved = resolve(**{f"log_traces_from_{switch}": False}, environ={})  # type: ignore[arg-type]
    assert dataclasses.asdict(resolved) == {**dataclasses.asdict(Settings()), f"traces_from_{switch}": False}


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(st.characters(exclude_categories=()), max_size=30)))
def test_no_environment_makes_it_fail(environ: dict[str, str]) -> None:
    """Whatever stands in the variables, there are settings."""
    assert isinstance(resolve(environ=environ), Settings)


def test_settings_do_not_change() -> None:
    """They are shared by all calls of an instrumentation, so they are frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().content = "SPAN_ONLY"  # type: ignore[misc]
