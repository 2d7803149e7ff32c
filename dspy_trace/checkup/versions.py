"""What is installed, and what Python finds of it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from packaging.version import Version

from dspy_trace._version import __version__
from dspy_trace.checkup import Finding
from dspy_trace.instrumentor import OLDEST
from dspy_trace.observing.neighbours import PACKAGES

BESIDE = ("opentelemetry-sdk", "wrapt", "litellm", "mlflow", "mlflow-skinny")
"""Packages whose version matters when something is wrong."""

ENTRY_POINTS = {"opentelemetry_instrumentor": "dspy_trace", "opentelemetry_traces_exporter": "mlflow"}
"""What makes the zero-code form work."""

INSTALLED = "installed"


def look() -> Iterator[Finding]:
    """Yield versions, and what of an installation is missing or stands beside it."""
    found = {name: version for name in BESIDE if (version := version_of(name)) is not None}
    others = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Finding(INSTALLED, "ok", f"dspy-trace {__version__}, Python {platform.python_version()} ({sys.executable})")
    yield _dspy()
    yield Finding(INSTALLED, "ok", others)
    for group, name in ENTRY_POINTS.items():
        if not importlib.metadata.entry_points(group=group, name=name):
            yield Finding(
                INSTALLED,
                "wrong",
                f"the entry point {name} of {group} is not there: opentelemetry-instrument does not find dspy-trace",
                "Install it again: pip install --force-reinstall --no-deps dspy-trace",
            )
    for package in PACKAGES:
        if version_of(package) is not None:
            yield Finding(
                INSTALLED,
                "note",
                f"{package} instruments DSPy as well; under opentelemetry-instrument, calls make two sets of spans",
                "To keep dspy-trace alone, set OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=dspy",
            )


def _dspy() -> Finding:
    version = version_of("dspy")
    if version is None:
        return Finding(INSTALLED, "wrong", "DSPy is not installed", f"pip install 'dspy>={OLDEST}'")
    if Version(version) < Version(OLDEST):
        upgrade = f"pip install --upgrade 'dspy>={OLDEST}'"
        return Finding(INSTALLED, "wrong", f"DSPy {version} is older than {OLDEST}, the oldest that is traced", upgrade)
    return Finding(INSTALLED, "ok", f"DSPy {version}")


def version_of(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
