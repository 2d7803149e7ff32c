"""Save programs, load them, and compare: what is run with other DSPys and Pythons. No tests of its own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import dspy
import mlflow

import dspy_trace_flavor as flavor
from tests.flavor import bureau
from tests.parts.scripted_lm import ScriptedLM


def main() -> None:
    """Check both formats; raise where something is not as it was."""
    os.environ["OPENAI_API_KEY"] = "another-key"
    for form in ("state", "cloudpickle"):
        with ScriptedLM() as server, tempfile.TemporaryDirectory() as folder:
            place = str(Path(folder) / "model")
            program = bureau.compiled()
            react = dspy.ReAct("question -> answer", tools=[bureau.look_up])
            with dspy.context(lm=server.lm(), adapter=dspy.JSONAdapter()):
                flavor.save_model(program, place, format=form)
                flavor.save_model(react, f"{place}-react", format=form)
                expected = [program(**bureau.LETTER).toDict(), react(question="q").toDict()]
            asked = [json.dumps(request.body) for request in server.requests]
            rows = {"letter": "My lamp is broken.", "sender": {"name": "Bo", "age": 40}}
            given = [
                mlflow.pyfunc.load_model(place).predict(rows),
                mlflow.pyfunc.load_model(f"{place}-react").predict({"question": "q"}),
            ]
            assert json.dumps(given, default=str) == json.dumps(expected, default=str), (given, expected)
            again = [json.dumps(request.body) for request in server.requests][len(asked) :]
            assert again == asked, (again, asked)
            records = list(mlflow.pyfunc.load_model(place).predict_stream(rows))
            assert {record["signature_field_name"] for record in records} == {"reasoning", "answer"}, records
            assert len(mlflow.pyfunc.load_model(place).predict([rows, rows])) == 2
            assert "another-key" not in (Path(place) / "MLmodel").read_text()
    print(f"DSPy {dspy.__version__} on Python {sys.version_info[0]}.{sys.version_info[1]}: the same")


if __name__ == "__main__":
    main()
