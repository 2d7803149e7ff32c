"""``dspy-trace watch``: one line on how far a compile is, whenever that changes."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from dspy_trace.cli import main
from dspy_trace.commands.watch import progress


def test_a_line_says_how_far_it_is() -> None:
    """Scores of each series, baseline, best, usage, cost, and what is left of the time where that can be told."""
    metrics = {"eval_full": 66.67, "eval_minibatch": 50.0, "baseline": 50.0, "best": 66.67, "usage_lm_calls": 12.0}
    metrics |= {"usage_input_tokens": 1_000.0, "usage_output_tokens": 234.0, "usage_cost": 0.0123, "progress": 0.25}
    assert progress("compile MIPROv2", "RUNNING", 0, metrics, 10_000) == (
        "compile MIPROv2  eval_full 66.67  eval_minibatch 50  baseline 50  best 66.67  "
        "12 LM calls, 1,234 tokens  0.0123 USD  25%, about 30 s left"
    )
    ended = progress("compile MIPROv2", "FINISHED", 0, {**metrics, "final": 66.67}, 10_000)
    assert ended.startswith("compile MIPROv2: finished  eval_full")
    assert "final 66.67" in ended and "left" not in ended
    assert progress("compile Own", "RUNNING", 0, {}, 0) == "compile Own  0 LM calls, 0 tokens"


def test_where_nothing_has_been_logged(tmp_path: Path) -> None:
    """One line says so, and no database is made."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = CliRunner().invoke(main, ["watch", "--tracking-uri", uri])
    assert done.exit_code == 1
    assert done.output == f"Error: There is no database {uri}: nothing has been logged there yet.\n"
    assert list(tmp_path.iterdir()) == []
