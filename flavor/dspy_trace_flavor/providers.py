"""Which environment variable holds the key of an LM, by the conventions of DSPy's clients."""

from __future__ import annotations

import re
from typing import Any

_SHARED = {"text-completion-openai": "OPENAI", "vertex_ai": "GOOGLE", "together_ai": "TOGETHERAI"}


def key_variable(client: Any) -> str | None:
    """Return the variable with the key of an LM or an embedder; ``None`` for anything else."""
    model = getattr(client, "model", None)
    parameters = getattr(client, "kwargs", None) or getattr(client, "default_kwargs", None)
    if not isinstance(model, str) or not isinstance(parameters, dict):
        return None
    return variable_of(model)


def variable_of(model: str) -> str:
    """Return the variable with the key for a model, named as DSPy names it: ``openai/gpt-4o-mini``."""
    provider, slash, _ = model.partition("/")
    provider = provider if slash else "openai"
    return f"{_SHARED.get(provider) or re.sub(r'[^A-Za-z0-9]+', '_', provider).upper()}_API_KEY"
