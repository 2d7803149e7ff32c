"""Saving a program as an MLflow model: built beside its place, searched for secrets, then moved there whole."""

from __future__ import annotations

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

from dspy_trace_flavor import folder, formats, requirements, schema
from dspy_trace_flavor.errors import CannotSave
from dspy_trace_flavor.loading import CONSTRUCTOR_KEYS, construct
from dspy_trace_flavor.packing import Packed, pack, unpacked
from dspy_trace_flavor.rows import rows_of
from dspy_trace_flavor.untyped import untyped
from dspy_trace_flavor.vault import Vault

logger = logging.getLogger("dspy_trace_flavor")

FORMATS = ("auto", "state", "cloudpickle")
LOADER = "dspy_trace_flavor"
_ENVIRONMENT = ("conda_env", "pip_requirements", "extra_pip_requirements")
TASKS = (None, "llm/v1/chat")


def save(program: Any, path: str | Path, mlflow_model: Any = None, **options: Any) -> None:
    """Save `program`; see :func:`dspy_trace_flavor.save_model`, whose arguments these are."""
    target = Path(path).absolute()
    _check(target, options)
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


def _check(target: Path, options: Mapping[str, Any]) -> None:
    if options["format"] not in FORMATS:
        raise CannotSave("format", f"it must be one of {FORMATS}, not {options['format']!r}")
    if options["task"] not in TASKS:
        raise CannotSave("task", f"it must be one of {TASKS}, not {options['task']!r}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CannotSave("path", f"{target} exists already and is not an empty folder")
    if isinstance(options["code_paths"], str | Path):
        raise CannotSave("code_paths", f"it must be a list, such as [{str(options['code_paths'])!r}]")
    for one in options["code_paths"] or ():
        if not Path(one).exists():
            raise CannotSave("code_paths", f"there is no {one}")
    for name, wanted in (("model_config", "keyword arguments"), ("metadata", "what is to stand in the MLmodel file")):
        if options[name] and not isinstance(options[name], Mapping):
            raise CannotSave(name, f"it must be a dict of {wanted}, not {type(options[name]).__name__}")


def _build(program: Any, place: Path, mlflow_model: Any, options: Mapping[str, Any]) -> None:
    from mlflow.models import Model

    config = dict(options["model_config"] or {})
    if set(config) - CONSTRUCTOR_KEYS:
        program = construct(program, config)
    packed = pack(program, options["format"])
    packed.write(place)
    code = _copy_code(options["code_paths"], place)
    model = mlflow_model if mlflow_model is not None else Model()
    _describe(model, program, place, options)
    describe(model, place, packed, code, {**options, "model_config": config})
    needed = requirements.of_sources(packed.sources, place / "code")
    _write_environment(needed, place, options)
    model.save(str(place / "MLmodel"))
    folder.scan(place, packed.vault)
    _say(program, packed.vault, options)


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


def describe(model: Any, place: Path, packed: Packed, code: str | None, options: Mapping[str, Any]) -> None:
    """Add the flavors to MLflow's description of a model whose files have been written."""
    from mlflow import pyfunc

    more = {"inference_task": options["task"]} if options["task"] else {}
    files = folder.digests(place)
    model.add_flavor(
        folder.FLAVOR,
        format=packed.kind,
        version=formats.NEWEST,
        code=code,
        versions=packed.versions,
        files=files,
        **more,
    )
    pyfunc.add_to_model(
        model,
        loader_module=LOADER,
        code=code,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        # MLflow lets only those keys be overridden later that are there when a model is saved.
        model_config={"lm": None, "lm_kwargs": None, **options["model_config"]},
        streamable=packed.streams,
    )
    model.model_size_bytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def save_packed(told: Mapping[str, Any], place: Path, model: Any) -> None:
    """Save what a :class:`~dspy_trace_flavor.packing.Parcel` has told of in an empty folder.

    Raises:
        SecretFound: a file holds what looks like a secret.
    """
    from mlflow.models import ModelSignature

    packed = unpacked(told)
    packed.write(place)
    if told["signature"] is not None:
        model.signature = ModelSignature.from_dict(told["signature"])
    describe(model, place, packed, None, {"task": None, "model_config": {}})
    _write_environment(told["requirements"], place, dict.fromkeys(_ENVIRONMENT))
    model.save(str(place / "MLmodel"))
    folder.scan(place, packed.vault)


def _write_environment(default: list[str], place: Path, options: Mapping[str, Any]) -> None:
    yaml = untyped("yaml")
    from mlflow.utils import environment

    shared: Any = environment  # what MLflow's flavors share has no types
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


def _say(program: Any, vault: Vault, options: Mapping[str, Any]) -> None:
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
