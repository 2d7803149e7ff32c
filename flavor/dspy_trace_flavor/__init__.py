"""The MLflow flavor for DSPy programs: models that are safe to share, load where pickle is forbidden, serve and stream.

Where a script says ``mlflow.dspy.save_model``, ``log_model`` or ``load_model``, it can say ``dspy_trace_flavor``.
Importing this package imports neither dspy nor mlflow; its functions do.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspy_trace_flavor.errors import BadInput, CannotLoad, CannotSave, FlavorError, SecretFound
from dspy_trace_flavor.untyped import untyped

__all__ = [
    "BadInput",
    "CannotLoad",
    "CannotSave",
    "FlavorError",
    "SecretFound",
    "get_default_conda_env",
    "get_default_pip_requirements",
    "load_model",
    "log_model",
    "save_model",
    "settings",
]

logger = logging.getLogger("dspy_trace_flavor")

_settings: dict[int, dict[str, Any]] = {}
"""Settings of the programs that have been loaded, by their ids, since programs may be unhashable."""


def get_default_pip_requirements() -> list[str]:
    """Return the pip requirements of every model of this flavor: DSPy and this package as installed here."""
    from dspy_trace_flavor.requirements import default

    return default()


def get_default_conda_env() -> Any:
    """Return the Conda environment of every model of this flavor."""
    from mlflow.utils import environment

    untyped: Any = environment  # what MLflow's flavors share has no types
    return untyped._mlflow_conda_env(additional_pip_deps=get_default_pip_requirements())


def save_model(
    model: Any,
    path: str | Path,
    task: str | None = None,
    model_config: Mapping[str, Any] | None = None,
    code_paths: list[str] | None = None,
    mlflow_model: Any = None,
    conda_env: Any = None,
    signature: Any = None,
    input_example: Any = None,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
    metadata: dict[str, Any] | None = None,
    resources: Any = None,
    use_dspy_model_save: bool = False,
    *,
    format: str = "auto",
    validate_serving_input: bool = False,
) -> None:
    """Save a DSPy program as an MLflow model in a local folder, whole or not at all. No LM is called.

    Keys and other secrets are never saved: the model names the environment variables that they are taken from when it
    is loaded. Neither is the history of LM calls.

    Args:
        model: the program, any ``dspy.Module``.
        path: the folder, which must not exist or be empty.
        task: ``llm/v1/chat`` to serve it behind the chat-completion schema.
        model_config: arguments for the constructor of the program's class; may be changed when the model is loaded.
        code_paths: source files and folders that the program is made of and that are not installed.
        mlflow_model: MLflow's description of the model, to be added to.
        conda_env: Conda environment; made from the requirements by default.
        signature: MLflow's signature; made from the program by default.
        input_example: an input to show; checked against the signature.
        pip_requirements: requirements, in place of those that the program's source tells.
        extra_pip_requirements: requirements beside them.
        metadata: whatever is to stand in the MLmodel file.
        resources: resources that are needed to serve it.
        use_dspy_model_save: without effect; ``mlflow.dspy`` has it.
        format: ``state`` (JSON; classes by name), ``cloudpickle``, or ``auto``: ``state`` where that can hold the
            program, else ``cloudpickle`` with a warning that says why.
        validate_serving_input: without effect; read by ``mlflow.models.Model.log``.

    Raises:
        CannotSave: the program, or an argument, cannot be saved as asked; names the attribute. Nothing is left behind.
        SecretFound: a file would have held a secret; names where it comes from. Nothing is left behind.
    """
    from dspy_trace_flavor.saving import save

    save(
        model,
        path,
        mlflow_model,
        task=task,
        model_config=model_config,
        code_paths=code_paths,
        conda_env=conda_env,
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
        resources=resources,
        format=format,
    )


def log_model(
    dspy_model: Any,
    artifact_path: str | None = None,
    task: str | None = None,
    model_config: Mapping[str, Any] | None = None,
    code_paths: list[str] | None = None,
    conda_env: Any = None,
    signature: Any = None,
    input_example: Any = None,
    registered_model_name: str | None = None,
    await_registration_for: int = 300,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
    metadata: dict[str, Any] | None = None,
    resources: Any = None,
    prompts: list[Any] | None = None,
    name: str | None = None,
    params: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    use_dspy_model_save: bool = False,
    *,
    format: str = "auto",
) -> Any:
    """Log a DSPy program as an MLflow model and return its ``ModelInfo``. No LM is called.

    Args that :func:`save_model` has mean what they mean there, the others what they mean to every flavor of MLflow's.
    """
    given = dict(locals())
    from mlflow.models import Model

    flavor = {"flavor": sys.modules[__name__], "flavor_name": "dspy_trace", "validate_serving_input": False}
    return Model.log(model=given.pop("dspy_model"), **flavor, **given)


def load_model(
    model_uri: str,
    dst_path: str | None = None,
    *,
    lm: Any = None,
    lm_kwargs: Mapping[str, Any] | None = None,
    model_config: Mapping[str, Any] | None = None,
    configure: bool = False,
) -> Any:
    """Load a program that this flavor or ``mlflow.dspy`` has saved. Nothing of the process is changed.

    The program's predictors get the LM that it was saved with, unless they have one of their own. Other settings that
    it was saved with, such as its adapter, are in :func:`settings`.

    Args:
        model_uri: a folder, ``runs:/...``, ``models:/name@alias`` or any other URI of MLflow's.
        dst_path: folder to download to.
        lm: an LM in place of every saved one, the name of a model, or a mapping from saved models' names to LMs.
        lm_kwargs: laid over the parameters of the saved LMs, such as ``{"api_key": ...}``.
        model_config: arguments for the constructor of the program's class.
        configure: call ``dspy.configure`` with the saved settings.

    Raises:
        CannotLoad: the model is damaged, was changed, is too new or needs what is not installed.
        TypeError: `lm` or `lm_kwargs` is of the wrong type.
    """
    from dspy_trace_flavor.loading import fetch, load

    loaded = load(fetch(model_uri, dst_path), lm, lm_kwargs, model_config)
    program, saved = loaded.program, loaded.settings
    if configure:
        dspy = untyped("dspy")

        dspy.configure(**saved)
    elif saved.get("lm") is not None:
        for predictor in program.predictors():
            if predictor.lm is None:
                predictor.lm = saved["lm"]
    others = sorted(key for key in saved if key != "lm")
    if others and not configure:
        logger.info(
            "The model was saved with %s: call it in `with dspy.context(**settings(program))`.", ", ".join(others)
        )
    _settings[id(program)] = saved
    weakref.finalize(program, _settings.pop, id(program), None).atexit = False
    return program


def settings(program: Any) -> dict[str, Any]:
    """Return DSPy's settings that a loaded program was saved with, for ``dspy.context(**settings(program))``."""
    return dict(_settings.get(id(program), {}))


def _load_pyfunc(  # pyright: ignore[reportUnusedFunction]  # MLflow calls it
    path: str, model_config: Mapping[str, Any] | None = None
) -> Any:
    """Load a model for MLflow's ``pyfunc``, which calls this by name."""
    from dspy_trace_flavor.chat import ChatModel
    from dspy_trace_flavor.loading import load
    from dspy_trace_flavor.model import ProgramModel
    from dspy_trace_flavor.running import Runner

    config = {key: value for key, value in (model_config or {}).items() if key not in ("lm", "lm_kwargs")}
    lm, lm_kwargs = (model_config or {}).get("lm"), (model_config or {}).get("lm_kwargs")
    loaded = load(Path(path), lm, lm_kwargs, config)
    runner = Runner(loaded.program, loaded.settings, loaded.model.model_id)
    return (ChatModel if loaded.task else ProgramModel)(runner, loaded.model)
