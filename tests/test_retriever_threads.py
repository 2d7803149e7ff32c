"""``dspy.Embeddings`` embeds queries on a thread of its own, which nobody's context reaches: the trace reaches it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.utils import DummyLM
from dspy.utils.unbatchify import Unbatchify
from opentelemetry.instrumentation.utils import suppress_instrumentation

from tests.balanced import balanced, traces

CORPUS = ["lamps are lit", "doors are shut", "cats are fed"]


def letters(texts: list[str]) -> Any:
    """Embed texts by how often each letter occurs."""
    return np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], dtype=float)


def retriever(embedder: Any = None) -> dspy.Embeddings:
    return dspy.Embeddings(CORPUS, embedder or dspy.Embedder(letters), k=1)


class Finds(dspy.Module):
    """Retrieves, as DSPy's tutorials do."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.find = found

    def forward(self, query: str) -> Any:
        return self.find(query)


FOUND = """
invoke_workflow Finds
  retrieval Embeddings
    embeddings letters
"""


def test_a_retriever_built_before_tracing_embeds_in_its_callers_trace() -> None:
    """The retriever's thread is older than the instrumentation; the span of its embedder is beneath the retrieval."""
    program = Finds(retriever())
    untraced = program(query="a lamp")
    with balanced() as trace:
        assert program(query="a lamp").toDict() == untraced.toDict()
    assert trace.tree() == FOUND
    assert traces(trace) == 1


def test_a_retriever_built_while_tracing_embeds_its_corpus_where_it_is_built() -> None:
    """The corpus is embedded by whoever builds the retriever, on the builder's own thread."""

    class Builds(dspy.Module):
        def forward(self, query: str) -> Any:
            return retriever()(query)

    with balanced() as trace:
        Builds()(query="a door")
        Finds(dspy.retrievers.EmbeddingsWithScores(CORPUS, dspy.Embedder(letters), k=1))(query="a cat")
    assert trace.tree() == dedent("""
        invoke_workflow Builds
          embeddings letters
          retrieval Embeddings
            embeddings letters
        embeddings letters
        invoke_workflow Finds
          retrieval EmbeddingsWithScores
            embeddings letters
    """)


def test_an_embedder_behind_a_function_is_found_as_well() -> None:
    """A retriever's embedder may be any function, such as one that puts a word before each query."""
    embedder = dspy.Embedder(letters)
    program = Finds(retriever(lambda texts: embedder([f"query: {text}" for text in texts])))
    with balanced() as trace:
        program(query="a lamp")
    assert trace.tree() == FOUND


def test_a_failing_embedder_fails_the_retrieval() -> None:
    """The error passes through the thread to the caller; both spans say so."""

    def broken(texts: list[str]) -> Any:
        if texts == CORPUS:
            return letters(texts)
        raise ConnectionError("no embedding today")

    program = Finds(retriever(dspy.Embedder(broken)))
    with balanced() as trace, pytest.raises(ConnectionError, match="no embedding today"):
        program(query="a lamp")
    assert trace.tree() == dedent("""
        invoke_workflow Finds !ConnectionError
          retrieval Embeddings !ConnectionError
            embeddings broken !ConnectionError
    """)


def test_queries_that_are_embedded_together() -> None:
    """One embedding of several traces' queries is in one of these, while that waits for it; no trace of its own."""
    found = retriever()
    queries = [f"query number {index}" for index in range(80)]
    start = threading.Barrier(40)

    def ask(query: str) -> Any:
        if queries.index(query) < 40:
            start.wait(30)
        return Finds(found)(query=query).passages

    with ThreadPoolExecutor(40) as pool:
        untraced = list(pool.map(ask, queries))
        with balanced(capture_content=True) as trace:
            assert list(pool.map(ask, queries)) == untraced
    retrievals = {span.context.span_id: span for span in trace.named("retrieval Embeddings")}
    embeddings = trace.named("embeddings letters")
    assert traces(trace) == len(retrievals) == 80 > len(embeddings)
    for span in embeddings:
        above = retrievals[span.parent.span_id]
        assert above.attributes["gen_ai.retrieval.query.text"] in json.loads(span.attributes["input.value"])
        assert above.start_time <= span.start_time <= span.end_time <= above.end_time


def test_the_thread_serves_one_trace_after_another() -> None:
    """Nothing of one call stays on the thread for the next; what is suppressed stays unseen there as well."""
    program = Finds(retriever())
    with balanced() as trace:
        program(query="one")
        with suppress_instrumentation():
            program(query="unseen")
        program(query="two")
    assert trace.tree() == FOUND + FOUND.lstrip("\n")
    assert traces(trace) == 2


def test_any_work_that_is_batched_so_finds_its_caller() -> None:
    """``Unbatchify`` may run anything, for a span of the application's as well."""
    predict = dspy.Predict("question -> answer")
    lm = DummyLM([{"answer": str(index)} for index in range(9)])
    batch = Unbatchify(lambda items: [predict(question=item, lm=lm).answer for item in items])
    with balanced() as trace, trace.provider.get_tracer("app").start_as_current_span("request"):
        assert batch("?") == "0"
    batch.close()
    assert trace.tree() == dedent("""
        request
          invoke_workflow Predict
            chat dummy
    """)
