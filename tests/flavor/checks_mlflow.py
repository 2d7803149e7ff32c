"""What MLflow does with models beside saving and serving: links, evaluates, predicts. Run by `test_with_mlflow`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from click.testing import CliRunner
from mlflow.models.cli import commands

import dspy_trace_flavor as flavor
from tests.flavor import bureau
from tests.flavor.alone import alone, store

__all__ = ["alone", "store"]


def test_mlflows_own_trace_is_linked() -> None:
    """A trace that MLflow makes around the call has the model's id, unless the program has said which is active."""
    info = flavor.log_model(bureau.Echo(), name="echo")
    model = mlflow.pyfunc.load_model(info.model_uri)

    @mlflow.trace
    def ask() -> Any:
        return model.predict({"text": "a"})

    assert ask() == {"echo": "a", "length": 1}
    with mlflow.set_active_model(name="other") as other:
        assert ask() == {"echo": "a", "length": 1}
    mlflow.flush_trace_async_logging()
    found: Any = mlflow.search_traces(return_type="list")
    told = [trace.info.trace_metadata["mlflow.modelId"] for trace in reversed(found)]
    assert told == [info.model_id, other.model_id]


def test_mlflow_evaluates_it() -> None:
    """`mlflow.models.evaluate` and `mlflow.genai.evaluate` take the model as any other."""
    import mlflow.genai
    from mlflow.genai.scorers import scorer

    flavor.save_model(bureau.Echo(), "model")
    data = pd.DataFrame({"text": ["a", "bb"], "expected": ["a", "x"]})
    found = mlflow.models.evaluate(
        "model", data, targets="expected", predictions="echo", extra_metrics=[mlflow.metrics.exact_match()],
        evaluator_config={"col_mapping": {}},
    )  # fmt: skip
    assert found.metrics["exact_match/v1"] == 0.5

    @scorer  # type: ignore[untyped-decorator]
    def right(outputs: Any, expectations: Any) -> bool:
        return bool(outputs["echo"] == expectations["echo"])

    model = mlflow.pyfunc.load_model("model")
    rows = [
        {"inputs": {"text": "a"}, "expectations": {"echo": "a"}},
        {"inputs": {"text": "b"}, "expectations": {"echo": "x"}},
    ]
    told = mlflow.genai.evaluate(data=rows, predict_fn=lambda text: model.predict({"text": text}), scorers=[right])
    assert told.metrics["right/mean"] == 0.5


def test_mlflow_predicts_by_an_alias() -> None:
    """`mlflow models predict` reads rows from a file and writes what the registered model gives."""
    flavor.log_model(bureau.Echo(), name="echo", registered_model_name="echo")
    mlflow.MlflowClient().set_registered_model_alias("echo", "live", 1)
    Path("rows.json").write_text(json.dumps({"dataframe_records": [{"text": "a"}, {"text": "bb"}]}))
    options = ["-m", "models:/echo@live", "-i", "rows.json", "-o", "given.json", "--env-manager", "local"]
    done = CliRunner().invoke(commands, ["predict", *options])
    assert done.exit_code == 0, done.output
    assert json.loads(Path("given.json").read_text()) == {
        "predictions": [{"echo": "a", "length": 1}, {"echo": "bb", "length": 2}]
    }
