"""Tags of runs: those that MLflow's page reads, and ours."""

from __future__ import annotations

from typing import Final

RUN: Final = "dspy_trace.run"
"""Our id of the run, by which the worker finds it again. Example: ``5f0c6a1e2b7d4c3f9a8e7d6c5b4a3f2e``."""

KIND: Final = "dspy_trace.kind"
"""What the run is of. Example: ``compile``."""

REASON: Final = "dspy_trace.reason"
"""Why it did not finish. Example: ``KeyboardInterrupt``."""

NOT_WRITTEN: Final = "dspy_trace.not_written"
"""What MLflow has refused of it, in its own words. Example: ``Param value too long``."""

PARENT: Final = "mlflow.parentRunId"
"""MLflow's id of the run above it. Example: ``0f9e8d7c6b5a4938271605f4e3d2c1b0``."""

NOTE: Final = "mlflow.note.content"
"""Description that the page shows above all else, in Markdown. Example: ``**Best 75.0**``."""

TABLES: Final = "mlflow.loggedArtifacts"
"""Artifacts that the page shows as tables, as JSON. Example: ``[{"path":"examples.json","type":"table"}]``."""

CONTEXT: Final = "mlflow.data.context"
"""Tag of a dataset: what it was used for. Example: ``train``."""
