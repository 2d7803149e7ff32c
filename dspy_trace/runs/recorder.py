"""What turns evaluations and compiles into runs: which of them is one, and beneath which.

Parenthood travels with the call: whatever carries the context across threads carries it along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from dspy_trace import facts
from dspy_trace.observing.observer import capture_of
from dspy_trace.points.optimizers import Finding
from dspy_trace.runs import models
from dspy_trace.runs.compiles import CompileRun
from dspy_trace.runs.evaluations import EvaluationRun, Minibatch
from dspy_trace.settings import Settings

if TYPE_CHECKING:
    from dspy_trace.export.outlet import Outlet
    from dspy_trace.observing.call import Call


class Recorder:
    """Logs runs for one instrumentation; what goes on keeps its own when another takes over.

    Args:
        outlet: where they go.
        settings: what was asked for.
    """

    def __init__(self, outlet: Outlet, settings: Settings) -> None:
        self.outlet = outlet
        self.settings = settings
        self.capture: Callable[[Any], str] | None = capture_of(settings) if settings.content_for_mlflow else None
        self.redact = settings.redact

    def words(self, error: BaseException) -> str:
        """Return what is told of an error: of one whose text is content, only the type where that is not wanted."""
        name = type(error).__name__
        if self.capture is None:
            return name
        told: str = orjson.loads(self.capture(error))
        return told.removesuffix(": ") if isinstance(told, str) else name

    def begin(self, call: Call) -> None:
        """Begin a run where a call is one."""
        kind = type(call.fact)
        if kind is facts.Evaluation:
            self._evaluation(call, call.fact)
        elif kind is facts.Compilation and self.settings.log_compiles and call.run is None and not _within(call):
            call.run = CompileRun(self, call.fact)

    def _evaluation(self, call: Call, fact: facts.Evaluation) -> None:
        above: Any = call.run
        inner = above.compile if above is not None else None
        if inner is not None and fact.metadata.get("disable_logging"):
            call.run = Minibatch(inner, fact)
        elif (inner is not None or self.settings.log_evals) and not fact.metadata.get("disable_logging"):
            call.run = EvaluationRun(self, fact, inner if isinstance(above, Minibatch) else above)

    def end(self, call: Call, error: BaseException | None) -> None:
        """End the run of a call, or tell the run that it is beneath of its example."""
        run: Any = call.run
        if run is None:
            return
        if type(call.fact) is facts.ExampleRun:
            run.example(call, error)
        elif run.fact is call.fact:
            if error is None and self.settings.log_models and type(call.fact) is facts.Compilation:
                models.tell(run, call.fact.result)
            run.finish(error)

    def found(self, call: Call, fact: Finding) -> None:
        """Tell a compile of what its optimizer tells."""
        run: Any = call.run
        if run is not None and run.compile is not None:
            run.compile.found(fact)


def _within(call: Call) -> bool:
    """Return whether a call is a part of a program's own work, as KNNFewShot's compile at each inference is."""
    above = call.above
    while above is not None and type(above.fact) is not facts.ModuleCall:
        above = above.above
    return above is not None
