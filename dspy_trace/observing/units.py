"""Units of work besides modules: evaluations, their examples, and compiles, with sums and runs of their own."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from dspy_trace import facts
from dspy_trace.guard import shielded
from dspy_trace.points.optimizers import Finding

if TYPE_CHECKING:
    from dspy_trace.observing.call import Call

KINDS: Final = frozenset({facts.ExampleRun, facts.Evaluation, facts.Compilation})

ROOTS_BENEATH: Final = frozenset({facts.Evaluation, facts.Compilation})
"""What never has modules beneath it: a module call or an example starts a trace of its own there, with a link."""

ROOTS: Final = frozenset({facts.ModuleCall, facts.ExampleRun})
"""What that is."""

COUNTED: Final = frozenset({facts.LMCall, facts.DecisionCall})
"""What adds to the sums, whether its span is recorded or not."""


READ: Final = COUNTED | KINDS
"""What is read to its end, whether its span is recorded or not."""

_random = Random()
"""Our own: the program's, which may be seeded, is not drawn from."""


def is_left_out(kind: type, above: Call | None, ratio: float) -> bool:
    """Return whether a trace that would begin within a compile is one of those that are not recorded."""
    if above is None or type(above.fact) not in ROOTS_BENEATH or kind not in ROOTS:
        return False
    within: Call | None = above
    while within is not None and type(within.fact) is not facts.Compilation:
        within = within.above
    return within is not None and _random.random() >= ratio


def began(call: Call) -> None:
    """Let the runs know of a unit that is about to begin."""
    if call.observer.runs is not None:
        shielded("beginning a run", call.observer.runs.begin, call)


def linked(call: Call) -> None:
    """Tell the run that a call is beneath of the trace that begins with it."""
    context, above = call.span.get_span_context(), call.above
    goes_on = above is not None and above.span.get_span_context().trace_id == context.trace_id
    if call.run is not None and context.trace_flags.sampled and not goes_on:
        shielded("linking a trace", call.run.link, context.trace_id)


def ended(call: Call, error: BaseException | None) -> None:
    """Let the runs know of the end of a unit, of which all is known by now."""
    if call.observer.runs is not None:
        shielded("ending a run", call.observer.runs.end, call, error)


def found(call: Call, fact: Finding) -> None:
    """Let the runs know of what an optimizer tells."""
    if call.observer.runs is not None:
        shielded("noting a finding", call.observer.runs.found, call, fact)
