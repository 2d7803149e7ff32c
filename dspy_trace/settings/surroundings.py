"""What the environment says beside settings, and what processes of ours are told by it."""

from __future__ import annotations

from dspy_trace.settings import EXIT_WAIT

WORKER_SETS = {
    "OTEL_SDK_DISABLED": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}
"""What the worker process is told: to make no spans, and to ask nobody on the network for anything."""

READER_SETS = {"MLFLOW_DISABLE_TELEMETRY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "true"}
"""What a command that reads traces through MLflow tells itself, unless it has been told otherwise: to ask nobody on the
network for anything."""

DEMO_SETS = {"LITELLM_LOCAL_MODEL_COST_MAP": "true", EXIT_WAIT: "0"}
"""What the demo tells itself, likewise: its own LM costs nothing, and DSPy would warn where there is no network; and
who tries it gets the terminal back while the trace is being written."""

PAGE_SETS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""What MLflow's server is told that only shows its page: to start no processes for jobs, of which there are none."""

WORKER_DEFAULTS = {"PGCONNECT_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""What it is told unless the program has been told otherwise: how long and how often clients try."""

WORKER_LACKS = (
    r"(OTEL_|COVERAGE_|COV_CORE_|PYTEST_).*|PYTHONWARNINGS|PYTHONINSPECT|PYTHONSTARTUP|PYTHONBREAKPOINT|MLFLOW_RUN_ID"
)
"""What of the program's environment is not for the worker process: what would trace, measure or steer it."""

COLUMNS = "COLUMNS"
"""Columns that text is laid out for, also where it does not go to a terminal (shells). Example: ``120``."""

UV_RUN = "UV_RUN_RECURSION_DEPTH"
"""Set in what ``uv run`` runs (uv). Example: ``1``."""

PYTHON_PATH = "PYTHONPATH"
"""Folders where Python looks for modules first (Python). Example: ``/home/me/project``."""

STATE_HOME = "XDG_STATE_HOME"
"""Folder for what programs keep between runs (XDG). Example: ``/home/me/.local/state``."""

LOCAL_APP_DATA = "LOCALAPPDATA"
"""The same on Windows (Windows). Example: ``C:\\Users\\me\\AppData\\Local``."""

KUBERNETES = "KUBERNETES_SERVICE_HOST"
"""Set inside a Kubernetes container, which ends with its program (Kubernetes). Example: ``10.0.0.1``."""
