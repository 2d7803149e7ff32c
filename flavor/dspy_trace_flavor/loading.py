"""Loading a saved model: checked first, then made with the keys of the process that loads it."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_trace.guard import ask, attempt
from dspy_trace.points.programs import loaded_from
from dspy_trace_flavor import folder, formats, former
from dspy_trace_flavor.decoding import Decoder
from dspy_trace_flavor.errors import CannotLoad, CannotSave
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Givers

logger = logging.getLogger("dspy_trace_flavor")

CONSTRUCTOR_KEYS = frozenset({"lm", "lm_kwargs"})
"""Keys of a model configuration that are for the LM; all others are arguments of the program's constructor."""

ALLOW_PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


@dataclass(frozen=True)
class Loaded:
    """A program with what it was saved with."""

    program: Any
    settings: dict[str, Any]
    model: Any
    task: str | None

    def __post_init__(self) -> None:
        if self.model.model_id is not None:
            loaded_from(self.program, self.model.model_id)


def fetch(model_uri: str, dst_path: str | None = None) -> Path:
    """Return the folder of a model, downloaded if it is not on this machine."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=str(model_uri), dst_path=dst_path))


def describe(place: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return MLflow's description of a model and the flavor's part of it.

    Raises:
        CannotLoad: there is none, or it is no DSPy program's.
    """
    from mlflow.models import Model

    model, error = attempt(Model.load, str(place))
    if error is not None:
        raise CannotLoad(f"{place} is no MLflow model, or its MLmodel file is damaged: {error}") from error
    conf = model.flavors.get(folder.FLAVOR) or model.flavors.get("dspy")
    if not isinstance(conf, Mapping):
        raise CannotLoad(f"the model holds no DSPy program: its flavors are {', '.join(model.flavors) or 'none'}")
    return model, conf


def load(place: Path, lm: Any = None, lm_kwargs: Mapping[str, Any] | None = None, config: Any = None) -> Loaded:
    """Load the program of a folder.

    Args:
        place: the folder.
        lm: stands for the saved LMs: an LM, the name of a model, or a mapping from saved models to LMs.
        lm_kwargs: laid over the parameters of the saved LMs.
        config: arguments of the program's constructor, by which it is made anew before it gets its saved state.

    Raises:
        CannotLoad: it is damaged, changed, too new, or needs what is not installed.
        TypeError: `lm` or `lm_kwargs` is of the wrong type.
    """
    _check(lm, lm_kwargs)
    model, conf = describe(place)
    if folder.FLAVOR not in model.flavors:
        return _of_mlflow(place, model, conf, (lm, lm_kwargs, config))
    folder.check(place, conf)
    if conf["format"] == "cloudpickle":
        _check_pickles("Save it with format='state', which is JSON.")
    if conf.get("code"):
        _add_to_path(place / conf["code"])
    givers = Givers(os.environ)
    program, settings = formats.read(place, conf["format"], Decoder(givers, _lm(lm, lm_kwargs), lm_kwargs))
    if config:
        program = attempt_construct(program, dict(config))
    if lm is not None and not isinstance(lm, Mapping):
        settings["lm"] = _lm(lm, lm_kwargs)
    if givers.missing:
        logger.warning(
            "The model needs keys that are not here: set the environment variable%s %s, or load it with lm= or "
            "lm_kwargs=.",
            "s" if len(givers.missing) > 1 else "",
            ", ".join(givers.missing),
        )
    return Loaded(program, settings, model, conf.get("inference_task"))


def _check(lm: Any, lm_kwargs: Any) -> None:
    if lm is not None and not callable(lm) and not isinstance(lm, str | Mapping):
        raise TypeError(
            f"lm must be an LM, the name of a model or a mapping from names to LMs, not {type(lm).__name__}"
        )
    if lm_kwargs is not None and not isinstance(lm_kwargs, Mapping):
        raise TypeError(f"lm_kwargs must be a mapping, not {type(lm_kwargs).__name__}")


def _lm(lm: Any, lm_kwargs: Mapping[str, Any] | None) -> Any:
    dspy = untyped("dspy")

    return dspy.LM(lm, **(lm_kwargs or {})) if isinstance(lm, str) else lm


def _add_to_path(code: Path) -> None:
    import sys

    if str(code) not in sys.path:
        sys.path.insert(0, str(code))


def _check_pickles(remedy: str) -> None:
    if os.environ.get(ALLOW_PICKLE, "true").strip().lower() in ("false", "0"):
        raise CannotLoad(f"the model is a pickle, and {ALLOW_PICKLE} forbids to load it. {remedy}")


def _by_mlflow(place: Path) -> Any:
    """Have MLflow load what DSPy itself has saved, without the mark that it leaves on the process."""
    mlflow = untyped("mlflow")

    before = mlflow.get_active_model_id()
    wrapper = untyped("mlflow.dspy")._load_pyfunc(str(place))
    if before is None:
        mlflow.clear_active_model()
    return wrapper


def _of_other_versions(place: Path, error: Exception) -> str:
    needed = ask((place / "requirements.txt").read_text, default="")
    saved = ", ".join(line for line in needed.split() if line.startswith(("dspy==", "mlflow==")))
    return (
        f"the program that mlflow.dspy has saved cannot be made again by DSPy {untyped('dspy').__version__}: "
        f"{type(error).__name__}: {error}. Where {saved or 'what it was saved with'} is installed, load it and save it "
        "with dspy_trace_flavor: format='state' depends less on versions."
    )


def _of_mlflow(place: Path, model: Any, conf: Mapping[str, Any], given: tuple[Any, Any, Any]) -> Loaded:
    """Load what ``mlflow.dspy`` has saved, with what of its settings is not the saving process's own."""
    if conf.get("code"):
        _add_to_path(place / conf["code"])
    path = place / conf.get("model_path", former.PICKLE)
    if path.suffix == ".pkl":
        _check_pickles("Save it anew, with dspy_trace_flavor and format='state', which is JSON.")
        wrapper, error = attempt(former.unpickled, path)
    else:
        wrapper, error = attempt(_by_mlflow, place)
    if error is not None:
        raise CannotLoad(_of_other_versions(place, error)) from error
    settings = formats.without_process(dict(wrapper.dspy_settings))
    former.renew(wrapper.model, settings)
    lm, lm_kwargs, config = given
    saved = settings.get("lm")
    lm = lm.get(getattr(saved, "model", None)) if isinstance(lm, Mapping) else _lm(lm, lm_kwargs)
    if lm is None and saved is not None and lm_kwargs:
        lm = saved.copy(**lm_kwargs)
    settings.update({"lm": lm} if lm is not None else {})
    program = attempt_construct(wrapper.model, dict(config)) if config else wrapper.model
    return Loaded(program, settings, model, conf.get("inference_task"))


def construct(program: Any, config: Mapping[str, Any]) -> Any:
    """Return a program of the same class, made with the arguments of a model configuration, in the same state.

    Raises:
        CannotSave: its constructor does not take them.
    """
    given = {key: value for key, value in config.items() if key not in CONSTRUCTOR_KEYS}
    if not given:
        return program
    cls = type(program)
    parameters = inspect.signature(cls.__init__).parameters
    unknown = [key for key in given if key not in parameters]
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        taken = ", ".join(list(parameters)[1:]) or "nothing"
        raise CannotSave("model_config", f"{cls.__name__}() does not take {unknown[0]!r}: it takes {taken}")
    made, error = attempt(lambda: cls(**given))
    if error is not None:
        raise CannotSave("model_config", f"{cls.__name__}({', '.join(given)}) fails: {error}") from error
    old, new = dict(program.named_predictors()), dict(made.named_predictors())
    for name in old.keys() & new.keys():
        new[name].signature, new[name].demos = old[name].signature, old[name].demos
        new[name].lm, new[name].config = old[name].lm, old[name].config
    return made


def attempt_construct(program: Any, config: Mapping[str, Any]) -> Any:
    """Do as :func:`construct` for a program that is being loaded."""
    try:
        return construct(program, config)
    except CannotSave as refused:
        raise CannotLoad(str(refused)) from refused


def read_summary(place: Path) -> dict[str, Any]:
    """Return what is in a saved model, for people; nothing of it is executed.

    Raises:
        CannotLoad: it was not saved by this flavor, or is damaged.
    """
    model, conf = describe(place)
    if folder.FLAVOR not in model.flavors:
        raise CannotLoad("the model was saved by mlflow.dspy: its pickle cannot be looked into without running it")
    folder.check(place, conf)
    told: dict[str, Any] = json.loads((place / formats.SUMMARY).read_text("utf-8"))
    needed = place / "requirements.txt"
    return {
        **told,
        "format": conf["format"],
        "task": conf.get("inference_task"),
        "versions": dict(conf.get("versions") or {}),
        "inputs": str(model.signature.inputs) if model.signature else None,
        "outputs": str(model.signature.outputs) if model.signature else None,
        "streams": bool(model.flavors["python_function"].get("streamable")),
        "requirements": needed.read_text().split() if needed.exists() else [],
        "model_id": model.model_id,
    }
