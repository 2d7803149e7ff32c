"""Another instrumentation of DSPy beside ours: both observe, and whoever leaves first, DSPy works."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dspy_trace import DSPyInstrumentor
from tests.host import left_on_dspy
from tests.parts.scripted_lm import ScriptedLM

pytestmark = pytest.mark.filterwarnings("ignore")  # what others warn of is theirs

NEIGHBOURS = ["openinference.instrumentation.dspy", "opentelemetry.instrumentation.genai.dspy"]
EXPECTED = sorted(["invoke_workflow ChainOfThought", "Predict predict", "chat gpt-4o-mini", "execute_tool f"])
"""Our spans of one run."""


@pytest.fixture
def dspy_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put DSPy back as it was: neighbours leave wrappers behind, or tear DSPy's own decorators off."""
    owners: dict[int, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "dspy":
            owners[id(module)] = module
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__.startswith("dspy."):
                    owners[id(value)] = value
    before = {key: dict(vars(owner)) for key, owner in owners.items()}
    # OpenInference takes every subclass of Predict, those of other tests too, for an attribute of `dspy`.
    for subclass in dspy.Predict.__subclasses__():
        if not hasattr(dspy, subclass.__name__):
            monkeypatch.setattr(dspy, subclass.__name__, subclass, raising=False)
    yield
    monkeypatch.undo()
    for key, attributes in before.items():
        for name in list(vars(owners[key])):
            if name not in attributes:
                delattr(owners[key], name)
            elif vars(owners[key])[name] is not attributes[name]:
                setattr(owners[key], name, attributes[name])


class Both:
    """Ours and a neighbour's instrumentation, each with a provider of its own."""

    def __init__(self, name: str, server: ScriptedLM) -> None:
        self.neighbour = importlib.import_module(name).DSPyInstrumentor()
        self.ours = DSPyInstrumentor()
        self.server = server
        self._exporters = {"ours": InMemorySpanExporter(), "theirs": InMemorySpanExporter()}

    def instrument(self, who: str) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporters[who]))
        (self.ours if who == "ours" else self.neighbour).instrument(tracer_provider=provider, skip_dep_check=True)

    def uninstrument(self, who: str) -> None:
        (self.ours if who == "ours" else self.neighbour).uninstrument()

    def run(self) -> tuple[list[str], int]:
        """Run a program; return the names of our spans, and how many they have made."""
        with dspy.context(lm=self.server.lm()):
            assert dspy.ChainOfThought("question -> answer")(question="Why?").answer == "answer of Why"
        assert dspy.Tool(lambda x: x + 1, name="f", args={"x": {}}, arg_types={"x": int})(x=1) == 2
        ours = self._exporters["ours"].get_finished_spans()
        theirs = len(self._exporters["theirs"].get_finished_spans())
        for exporter in self._exporters.values():
            exporter.clear()
        return sorted(span.name for span in ours), theirs


@pytest.fixture
def both(request: pytest.FixtureRequest, scripted_lm: ScriptedLM, dspy_restored: None) -> Iterator[Both]:
    pytest.importorskip(request.param)
    pair = Both(request.param, scripted_lm)
    yield pair
    for who in ("theirs", "ours"):
        instrumentor = pair.ours if who == "ours" else pair.neighbour
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


@pytest.mark.parametrize("both", NEIGHBOURS, indirect=True)
@pytest.mark.parametrize("first_out", ["ours", "theirs"])
@pytest.mark.parametrize("first_in", ["ours", "theirs"])
def test_both_come_and_go_in_any_order(both: Both, first_in: str, first_out: str) -> None:
    """Both record while both are there; ours is whole, and gone when it is undone; the program never fails."""
    order = ["ours", "theirs"]
    for who in order if first_in == "ours" else reversed(order):
        both.instrument(who)
    ours, theirs = both.run()
    assert ours == EXPECTED
    assert theirs > 0

    both.uninstrument(first_out)
    ours, theirs = both.run()
    if first_out == "ours":
        assert ours == []
        assert theirs > 0
    both.uninstrument("theirs" if first_out == "ours" else "ours")
    ours, _ = both.run()
    assert ours == []
    assert left_on_dspy() == []


@pytest.mark.parametrize("both", NEIGHBOURS, indirect=True)
@pytest.mark.parametrize("first_out", ["ours", "theirs"])
@pytest.mark.parametrize("first_in", ["ours", "theirs"])
def test_ours_can_come_back(both: Both, first_in: str, first_out: str) -> None:
    """Whatever the neighbour has left of DSPy, our next cycle records every call once."""
    for who in ("ours", "theirs") if first_in == "ours" else ("theirs", "ours"):
        both.instrument(who)
    for who in ("ours", "theirs") if first_out == "ours" else ("theirs", "ours"):
        both.uninstrument(who)
    both.instrument("ours")
    assert both.run()[0] == EXPECTED
    both.uninstrument("ours")
    assert both.run()[0] == []


@pytest.mark.parametrize("both", NEIGHBOURS, indirect=True)
def test_the_neighbour_leaves_while_we_stay(both: Both) -> None:
    """Its undo may tear ours off with its own: DSPy still works, and what is left of us records a call at most once."""
    for first, second in (("ours", "theirs"), ("theirs", "ours")):
        both.instrument(first)
        both.instrument(second)
        both.uninstrument("theirs")
        ours, _ = both.run()
        assert len(ours) == len(set(ours)) <= len(EXPECTED)
        both.uninstrument("ours")
