"""Hosts and models, out of the strings that DSPy has for them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "watsonx": "ibm.watsonx.ai",
    "moonshot": "moonshot_ai",
    "cohere_chat": "cohere",
    "text-completion-openai": "openai",
}
"""Provider prefixes of DSPy and LiteLLM that the GenAI conventions spell otherwise."""


@lru_cache(maxsize=1024)
def provider_and_model(model: str, default: str) -> tuple[str, str]:
    """Split ``openai/gpt-4o-mini`` into provider, as the conventions spell it, and model."""
    prefix, slash, rest = model.partition("/")
    if not slash or not rest:
        return default, model
    return PROVIDERS.get(prefix, prefix), rest


def host_and_port(url: Any) -> tuple[str | None, int | None]:
    """Return host and port of a URL without its credentials, or ``(None, None)``."""
    return _host_and_port(url) if isinstance(url, str) and len(url) < 4096 else (None, None)


@lru_cache(maxsize=256)
def _host_and_port(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None, None
