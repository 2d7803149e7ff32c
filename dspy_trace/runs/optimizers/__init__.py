"""What is special to one optimizer of DSPy's, a file for each. All others, and a user's own, need none."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from dspy_trace.runs.optimizers.any import Special

_FILES = {
    "GEPA": "gepa",
    "MIPROv2": "mipro",
    "COPRO": "of_student",
    "BootstrapFewShotWithRandomSearch": "of_student",
    "BootstrapFewShotWithOptuna": "of_student",
    "InferRules": "of_student",
    "LabeledFewShot": "of_student",
    "BootstrapFewShot": "of_student",
    "BootstrapFinetune": "of_student",
    "GRPO": "of_student",
    "ReAnchor": "of_student",
}


def special(optimizer: str) -> Special:
    """Return what is special to an optimizer, by the name of its class."""
    name = _FILES.get(optimizer)
    if name is None or find_spec(f"{__name__}.{name}") is None:
        return Special()
    made: Special = import_module(f"{__name__}.{name}").Optimizer()
    return made
