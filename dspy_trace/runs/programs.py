"""What is kept of a program as it is at one moment: the host may change it the next."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import orjson

from dspy_trace.guard import ask
from dspy_trace.points.programs import predictors_of, signature_text, version_of
from dspy_trace.runs.values import LM_SETTINGS
from dspy_trace.secrets import scrub
from dspy_trace.values.jsonable import dumps

_LM_STATE = frozenset({*LM_SETTINGS, "model", "model_type", "cache", "num_retries", "num_rounds"})


class Snapshot:
    """A program at one moment.

    Args:
        program: the program.
        content: whether its instructions and demos may be told.
        redact: takes its state and returns what may be told of it.
    """

    __slots__ = ("cls", "decisions", "demos", "identity", "instructions", "model", "signature", "state", "version")

    def __init__(self, program: Any, content: bool, redact: Callable[[Any], Any] | None = None) -> None:
        predictors = ask(predictors_of, program, default=[])
        self.cls = type(program).__name__
        self.version: str | None = version_of(predictors) if predictors else None
        self.identity: str | None = None
        """What tells it from others of its class: its version, the LMs that it has, and how it reads decisions."""
        self.model: str | None = None
        """The LMs that its predictors have themselves."""
        self.decisions: str | None = None
        """How its predictors read the probabilities of decisions, as JSON, where that is not by default."""
        self.demos = 0
        self.instructions: dict[str, str] = {}
        texts, models = [], []
        decisions = {}
        for path, module in predictors:
            state = vars(module)
            demos, signature = state.get("demos"), state.get("signature")
            self.demos += len(demos) if type(demos) is list else 0
            said = ask(getattr, signature, "instructions")
            if content and isinstance(said, str):
                told = ask(redact, said, default="[redact failed]") if redact is not None else said
                self.instructions[path or "self"] = str(told)
            texts.append(signature_text(signature)[0])
            models.append(model_of(state.get("lm")))
            fields = state.get("fields")
            if type(fields) is dict and fields:
                decisions[path] = fields
        if predictors:
            self.identity = f"{self.version} {models} {dumps(decisions, 2**14)}"
            self.model = ", ".join(dict.fromkeys(model for model in models if model)) or None
        if content and decisions:
            self.decisions = dumps(ask(redact, decisions) if redact is not None else decisions, 2**14)
        self.signature = "; ".join(dict.fromkeys(text for text in texts if text)) or None
        self.state: str | None = ask(state_of, program, redact) if content else None

    @property
    def said(self) -> str:
        """The instructions as one text."""
        if len(self.instructions) == 1:
            return next(iter(self.instructions.values()))
        return "\n\n".join(f"[{path}]\n{text}" for path, text in self.instructions.items())


def model_of(lm: Any) -> str | None:
    """Return the model of an LM that a predictor has itself."""
    told = ask(getattr, lm, "model") if lm is not None else None
    return told if isinstance(told, str) else None


def state_of(program: Any, redact: Callable[[Any], Any] | None = None) -> str | None:
    """Return a program's state as DSPy's ``save`` writes it and its ``load`` reads it, without secrets of its LMs."""
    state = program.dump_state()
    for told in state.values() if isinstance(state, dict) else ():
        lm = told.get("lm") if isinstance(told, dict) else None
        if isinstance(lm, dict):
            told["lm"] = {key: value for key, value in lm.items() if key in _LM_STATE or key.startswith("_")}
    state = scrub(state)
    if redact is not None:
        state = redact(state)
    if not isinstance(state, dict):
        return None
    saving: Any = sys.modules.get("dspy.utils.saving")
    versions = ask(getattr(saving, "get_dependency_versions", dict), default={})
    whole = {**state, "metadata": {"dependency_versions": versions}}
    text = ask(lambda: orjson.dumps(whole, option=orjson.OPT_INDENT_2).decode())
    return text if text is not None else dumps(whole, 2**20)
