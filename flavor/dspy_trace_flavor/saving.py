"""Saving a program as an MLflow model: built beside its place, searched for secrets, then moved there whole."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import sysconfig
import tempfile
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dspy_trace.secrets import known
from dspy_trace_flavor import folder, formats, requirements, schema
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.loading import CONSTRUCTOR_KEYS, construct
from dspy_trace_flavor.rows import rows_of
from dspy_trace_flavor.searching import search
from dspy_trace_flavor.summary import summary
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Vault

logger = logging.getLogger("dspy_trace_flavor")

FORMATS = ("auto", "state", "cloudpickle")
LOADER = "dspy_trace_flavor"
TASKS = (None, "llm/v1/chat")


def save(program: Any, path: str | Path, mlflow_model: Any = None, **options: Any) -> None:
    """Save `program`; see :func:`dspy_trace_flavor.save_model`, whose arguments these are."""
    target = Path(path).absolute()
    _check(program, target, options)
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _build(program, building, mlflow_model, options)
        os.chmod(building, 0o755)
        if target.exists():
            target.rmdir()
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check(program: Any, target: Path, options: Mapping[str, Any]) -> None:
    dspy = untyped("dspy")

    if not isinstance(program, dspy.Module):
        raise CannotSave("program", f"it must be a dspy.Module, not {type(program).__name__}")
    if options["format"] not in FORMATS:
        raise CannotSave("format", f"it must be one of {FORMATS}, not {options['format']!r}")
    if options["task"] not in TASKS:
        raise CannotSave("task", f"it must be one of {TASKS}, not {options['task']!r}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CannotSave("path", f"{target} exists already and is not an empty folder")
    for one in options["code_paths"] or ():
        if not Path(one).exists():
            raise CannotSave("code_paths", f"there is no {one}")
    if options["model_config"] and not isinstance(options["model_config"], Mapping):
        raise CannotSave("model_config", "it must be a dict of keyword arguments")


def _build(program: Any, place: Path, mlflow_model: Any, options: Mapping[str, Any]) -> None:
    from mlflow.models import Model

    config = dict(options["model_config"] or {})
    if set(config) - CONSTRUCTOR_KEYS:
        program = construct(program, config)
    settings = formats.settings_to_save()
    vault = Vault(os.environ)
    for value, where in known().items():
        vault.add(value, where)
    search(vault, program, "program")
    search(vault, settings, "settings")
    kind, files = _files(program, settings, vault, options["format"])
    files[formats.SUMMARY] = json.dumps(summary(program, settings, vault), indent=1).encode()
    for name, data in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    code = _copy_code(options["code_paths"], place)
    model = mlflow_model if mlflow_model is not None else Model()
    _describe(model, program, place, options)
    _add_flavors(model, program, place, kind, code, config, options)
    _write_environment(program, settings, place, options)
    model.save(str(place / "MLmodel"))
    folder.scan(place, vault)
    _say(program, kind, vault, options)


def _files(program: Any, settings: dict[str, Any], vault: Vault, wanted: str) -> tuple[str, dict[str, bytes]]:
    if wanted == "cloudpickle":
        return wanted, formats.as_pickle(program, settings, vault)
    try:
        return "state", formats.as_json(program, settings, vault)
    except CannotSave as refused:
        if wanted == "state":
            raise
        files = formats.as_pickle(program, settings, vault)
        logger.warning(
            "The program is saved as a pickle, which runs code when it is loaded and is refused where "
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false. It cannot be saved as JSON because of %s",
            refused,
        )
        return "cloudpickle", files


def _copy_code(code_paths: Iterable[str | Path] | None, place: Path) -> str | None:
    """Copy shipped source, without what Python and editors leave beside it."""
    if not code_paths:
        return None
    (place / "code").mkdir()
    for one in map(Path, code_paths):
        source = one.resolve()
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".DS_Store")
            shutil.copytree(source, place / "code" / source.name, ignore=ignored)
        else:
            shutil.copy(source, place / "code")
    return "code"


def _describe(model: Any, program: Any, place: Path, options: Mapping[str, Any]) -> None:
    """Set signature, example, metadata and resources."""
    from mlflow.models import validate_schema
    from mlflow.models.resources import _ResourceBuilder  # pyright: ignore[reportPrivateUsage]  # as MLflow's flavors do
    from mlflow.models.utils import _save_example  # pyright: ignore[reportPrivateUsage]  # as above

    chat = options["task"] is not None
    if options["signature"] is not None:
        if not chat:
            schema.check(options["signature"], program)
        model.signature = options["signature"]
    elif model.signature is None:
        model.signature = schema.chat() if chat else schema.infer(program)
    if options["metadata"]:
        model.metadata = {**(model.metadata or {}), **options["metadata"]}
    example = options["input_example"]
    if example is not None:
        data = example[0] if isinstance(example, tuple) else example
        if not chat:
            from dspy_trace_flavor.fields import inputs

            rows_of(data, inputs(program))
        if model.signature is not None and model.signature.inputs is not None and not isinstance(data, str):
            validate_schema(data, model.signature.inputs)
        _save_example(model, example, str(place))
    if options["resources"] is not None:
        given = options["resources"]
        from_file = isinstance(given, str | Path)
        build = _ResourceBuilder.from_yaml_file if from_file else _ResourceBuilder.from_resources
        model.resources = build(given)


def _add_flavors(
    model: Any,
    program: Any,
    place: Path,
    kind: str,
    code: str | None,
    config: dict[str, Any],
    options: Mapping[str, Any],
) -> None:
    from mlflow import pyfunc

    from dspy_trace_flavor.streams import streamed

    more = {"inference_task": options["task"]} if options["task"] else {}
    files = folder.digests(place)
    model.add_flavor(
        folder.FLAVOR, format=kind, version=formats.NEWEST, code=code, versions=formats.versions(), files=files, **more
    )
    pyfunc.add_to_model(
        model,
        loader_module=LOADER,
        code=code,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        # MLflow lets only those keys be overridden later that are there when a model is saved.
        model_config={"lm": None, "lm_kwargs": None, **config},
        streamable=bool(streamed(program)),
    )
    model.model_size_bytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def _write_environment(program: Any, settings: dict[str, Any], place: Path, options: Mapping[str, Any]) -> None:
    yaml = untyped("yaml")
    from mlflow.utils import environment

    shared: Any = environment  # what MLflow's flavors share has no types
    default = requirements.of_program(program, settings, place / "code")
    if options["conda_env"] is None:
        given = options["pip_requirements"]
        conda, pip, constraints = shared._process_pip_requirements(
            default if given is None else None, given, options["extra_pip_requirements"]
        )
    else:
        conda, pip, constraints = shared._process_conda_env(options["conda_env"])
    (place / "conda.yaml").write_text(yaml.safe_dump(conda, default_flow_style=False))
    (place / "requirements.txt").write_text("\n".join(pip) + "\n")
    if constraints:
        (place / "constraints.txt").write_text("\n".join(constraints) + "\n")
    shared._PythonEnv.current().to_yaml(str(place / "python_env.yaml"))


def _say(program: Any, kind: str, vault: Vault, options: Mapping[str, Any]) -> None:
    """Say what whoever loads the model has to know."""
    lacking = sorted({secret.variable: secret.where for secret in vault.used.values() if not secret.given}.items())
    if lacking:
        told = ", ".join(f"{variable} ({where})" for variable, where in lacking)
        logger.warning("Secrets are not saved. Where the model is loaded, set these environment variables: %s", told)
    local = _local_module(program, options["code_paths"] or ())
    if local is not None:
        logger.warning(
            "%s is found where the program was saved, but is not installed: pass code_paths=[%r], or a package with "
            "it, so that the model can be loaded elsewhere.",
            type(program).__module__,
            local,
        )


def _local_module(program: Any, code_paths: Iterable[str | Path]) -> str | None:
    module: types.ModuleType | None = sys.modules.get(type(program).__module__)
    file = getattr(module, "__file__", None)
    if file is None or type(program).__module__ == "__main__":
        return None
    path = Path(file).resolve()
    installed = {Path(found).resolve() for found in sysconfig.get_paths().values()}
    shipped = {Path(one).resolve() for one in code_paths}
    return None if not (installed | shipped).isdisjoint({path, *path.parents}) else file
