"""``DSPyInstrumentor``: DSPy under OpenTelemetry, from code or by ``opentelemetry-instrument``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # untyped
from opentelemetry.trace import get_tracer_provider
from packaging.version import InvalidVersion, Version

from dspy_trace.guard import ask, shielded
from dspy_trace.settings import Settings, resolve

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from dspy_trace.export.outlet import Outlet
    from dspy_trace.observing.patching import Patches

logger = logging.getLogger("dspy_trace")

OLDEST = "2.6.24"
"""The oldest DSPy that is traced."""

SUPPORTED = (f"dspy >= {OLDEST}",)
"""What :meth:`DSPyInstrumentor.instrumentation_dependencies` asks for."""


class DSPyInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # untyped, see the import
    """Turns the calls of DSPy programs into OpenTelemetry spans.

    Patches DSPy when the program imports it, and restores it exactly on :meth:`uninstrument`. One per process.

    Example::

        DSPyInstrumentor().instrument()
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the requirement that an installed DSPy has to meet."""
        return SUPPORTED

    def instrument(self, **kwargs: Any) -> None:
        """Start observing DSPy. Without effect, but for a logged message, where DSPy is missing or too old.

        Args:
            tracer_provider (TracerProvider | None): where spans go; by default the global provider, looked up anew
                whenever a trace starts.
            meter_provider (MeterProvider | None): where metrics go, likewise.
            logger_provider (LoggerProvider | None): where events go, likewise.
            capture_content (bool | str | None): whether prompts, completions, inputs, outputs and exception texts go on
                spans: a bool, or a mode of ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``, which is read where
                this is ``None``. Off by default, as the GenAI conventions ask.
            detail (str | None): ``minimal``, ``standard`` (default) or ``full``.
            conventions (Collection[str] | None): vocabularies to write spans in, ``{"genai"}`` by default, which
                is always one; ``{"genai", "openinference"}`` for Phoenix and Arize.
            redact (Callable[[Any], Any] | None): takes every captured value, as plain data, and returns what may be
                told of it.
            log_traces_from_eval (bool): trace what runs inside ``dspy.Evaluate``; default true.
            log_traces_from_compile (bool | float): trace what runs inside an optimizer's ``compile``, or a share of its
                rollouts, from 0.0 to 1.0; default true.
            propagate (bool | None): send trace context (W3C ``traceparent``) with requests to LMs, so that a gateway
                or a server joins the trace; default true, or ``DSPY_TRACE_PROPAGATE``.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument is none of the words allowed for it.
        """
        if not kwargs.get("skip_dep_check") and not kwargs.get("raise_exception_on_conflict"):
            problem = _problem()
            if problem is not None:
                logger.warning(problem)
                return
            kwargs["skip_dep_check"] = True
        super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        _asked_for.append(_request(**kwargs))
        _when_imported("dspy")

    def change(self, **kwargs: Any) -> None:
        """Go on as if :meth:`instrument` had been called with these arguments, and let no call slip through meanwhile.

        Only where another ``detail`` or ``propagate`` is asked for are the patches made anew.
        """
        request = _request(**kwargs)
        with _lock:
            before, _asked_for[:] = _asked_for[0], [request]
            if _patches and before.rows() == request.rows():
                _observe(request)
                return
            if _patches:
                _patches.pop().undo()
            _when_imported("dspy")

    def _uninstrument(self, **kwargs: Any) -> None:
        with _lock:
            _asked_for.clear()
            if _patches:
                from dspy_trace.observing.observer import activate

                activate(None)
                _patches.pop().undo()


@dataclass(frozen=True, slots=True)
class _Request:
    """What an instrumentation was asked for; `outlet` takes its traces to MLflow."""

    settings: Settings
    providers: Mapping[str, Any]
    outlet: Outlet | None

    def rows(self) -> object:
        """Return what decides which rows are in force."""
        return self.settings.observed, self.settings.propagate


def check(**asked: Any) -> None:
    """Raise what :meth:`DSPyInstrumentor.instrument` would, and do nothing else."""
    _request(**asked)


def _request(*, _outlet: Outlet | None = None, _spare_meter: MeterProvider | None = None, **asked: Any) -> _Request:
    providers: dict[str, Any] = {"spare_meter": _spare_meter}
    for kind in ("tracer", "meter", "logger"):
        name = f"{kind}_provider"
        providers[kind] = provider = asked.pop(name, None)
        if provider is not None and not callable(getattr(provider, f"get_{kind}", None)):
            raise TypeError(f"{name} must be a {kind.capitalize()}Provider, not {type(provider).__name__}")
    return _Request(resolve(**asked), providers, _outlet)


_lock = RLock()
_hooked: set[str] = set()
_asked_for: list[_Request] = []
"""What the instrumentation in force was asked for; empty if there is none."""
_patches: list[Patches] = []
"""The patches in force; empty until the program imports dspy."""


def patches() -> Patches | None:
    """Return the patches in force, ``None`` if there are none."""
    return _patches[0] if _patches else None


def _when_imported(name: str) -> None:
    """Run :func:`_imported` with the module now, if the program has imported it, or else when it does."""
    if name not in _hooked:
        _hooked.add(name)
        wrapt.register_post_import_hook(_imported, name)
    elif name in sys.modules:
        _imported(sys.modules[name])


def _imported(module: ModuleType) -> None:
    with _lock:
        if _asked_for:
            arrived = _start if module.__name__ == "dspy" else _patches[0].module_loaded
            shielded("patching DSPy", arrived, module)


def _start(module: ModuleType) -> None:
    """Observe DSPy. Nothing that this needs is imported in a program that never imports dspy."""
    from dspy_trace.observing.patching import Patches
    from dspy_trace.observing.wrappers import make
    from dspy_trace.points.table import rows_for

    settings = _asked_for[0].settings
    _observe(_asked_for[0])
    rows = rows_for(settings.observed, _dspy_version(module), sends=settings.propagate)
    _patches.append(Patches(rows, make))
    for name in _patches[0].modules():
        _when_imported(name)


def _observe(request: _Request) -> None:
    """Put an observer in force for roots that start from now on."""
    from dspy_trace.observing.observer import Observer, activate
    from dspy_trace.observing.signals import Providers

    observer = Observer(request.settings, Providers(**request.providers))
    outlet = request.outlet or _zero_code_outlet()
    if outlet is not None:
        observer.beside, observer.joined = outlet.beside(request.settings), outlet.join
        # Now, if it is there, so that the first trace is whole: the application's spans above ours begin before them.
        shielded("joining a provider", outlet.join, request.providers["tracer"] or get_tracer_provider())
        if request.settings.log_evals or request.settings.log_compiles:
            from dspy_trace.runs.recorder import Recorder

            observer.runs = Recorder(outlet, request.settings)
    activate(observer)


def _zero_code_outlet() -> Outlet | None:
    """Return the way into MLflow that ``OTEL_TRACES_EXPORTER=mlflow`` has made, if it has."""
    exporter = sys.modules.get("dspy_trace.export.exporter")
    if exporter is None:
        return None
    exporter.MlflowSpanExporter.adopted = True
    made: Outlet = exporter.outlet()
    return made


def _problem() -> str | None:
    """Return why there is nothing to trace and what to do about it, or ``None``."""
    installed = _installed()
    if installed is None and ask(importlib.util.find_spec, "dspy") is None:
        return (
            "dspy-trace: DSPy is not installed in this environment, so nothing is traced. "
            f"Install it, for example with: pip install 'dspy>={OLDEST}'"
        )
    if installed is not None and _version(installed) < Version(OLDEST):
        return (
            f"dspy-trace: DSPy {installed} is older than {OLDEST}, the oldest that can be traced, so nothing is. "
            f"Upgrade it, for example with: pip install --upgrade 'dspy>={OLDEST}'"
        )
    return None


def _installed() -> str | None:
    """Return the version of the installed DSPy. A checkout on the path is not installed, and has none."""
    try:
        return importlib.metadata.version("dspy")
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(text: Any) -> Version:
    """Return `text` as a version; what is none, as a build of somebody's own may have, counts as the newest."""
    try:
        return Version(text)
    except (InvalidVersion, TypeError):
        return Version("9999")


def _dspy_version(dspy: ModuleType) -> tuple[int, int]:
    version = _version(_installed() or getattr(dspy, "__version__", None))
    return version.major, version.minor
