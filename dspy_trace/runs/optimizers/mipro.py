"""MIPROv2: its trials, each a choice of instructions and demos for every predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspy_trace.guard import ask
from dspy_trace.runs.optimizers import of_student
from dspy_trace.runs.optimizers.any import part

if TYPE_CHECKING:
    from dspy_trace.runs.compiles import CompileRun

_NAMES = {"full_eval_score": "score", "mb_score": "minibatch_score", "total_eval_calls_so_far": "metric_calls"}


class Optimizer(of_student.Optimizer):
    def progress(self, run: CompileRun) -> float | None:
        asked = run.fact.arguments
        trials, every = asked.get("num_trials"), asked.get("minibatch_full_eval_steps")
        if type(trials) is not int:
            return None
        if asked.get("minibatch") and type(every) is int and every > 0:
            trials += trials // every + 1
        return part(run.evaluations, trials + 1)

    def ended(self, run: CompileRun) -> dict[str, Any]:
        logs = ask(getattr, run.fact.result, "trial_logs")
        rows = []
        for number, told in logs.items() if isinstance(logs, dict) else ():
            if isinstance(told, dict):
                row = {"trial": number, **{name: told.get(key) for key, name in _NAMES.items()}}
                row.update({key: value for key, value in told.items() if str(key).endswith(("_instruction", "_demos"))})
                rows.append(["trials", f"{number:06d}" if isinstance(number, int) else str(number), _plain(row)])
        return {"rows": rows}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items() if value is None or type(value) in (int, float, str, bool)}
