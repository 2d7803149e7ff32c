"""What spans say of every retriever and embedder: query, count, passages with ids and scores, lengths of vectors."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

from dspy_trace.testing import record
from tests.balanced import balanced
from tests.parts.loopback import Handler, LoopbackServer
from tests.parts.measured import Measured
from tests.parts.scripted_answers import Reply
from tests.parts.scripted_lm import ScriptedLM
from tests.parts.scripted_wire import embedding

pytest.importorskip("numpy", reason="DSPy's retrievers and embedders need it")
CORPUS = ["a lamp", "a desk", "a chair"]


def local() -> dspy.Embedder:
    return dspy.Embedder(lambda texts: [embedding(text) for text in texts])


class Shelf(dspy.Retrieve):
    """A retriever of the program's own, which knows its documents by name."""

    def forward(self, query: str, k: int | None = None, **kwargs: Any) -> Any:
        return [
            {"long_text": "a lamp", "pid": "doc-1", "score": 0.5},
            {"text": "a desk", "score": "0.25"},
            {"long_text": "a chair", "pid": 3, "score": float("nan")},
        ]


def with_rm(query: str) -> Any:
    with dspy.context(rm=lambda query, k, **kwargs: [dspy.Example(long_text=f"{k} of {query}", score=0.5)]):
        return dspy.Retrieve(k=2)(query)


def knn(query: str) -> Any:
    examples = [dspy.Example(question=text, answer="here").with_inputs("question") for text in CORPUS]
    return dspy.KNN(k=1, trainset=examples, vectorizer=local())(question=query)


def in_corpus(cls: str) -> Callable[[str], Any]:
    """Return a search by a retriever of that class, which is made when it is asked: when tests run."""

    def search(query: str) -> Any:
        return getattr(dspy.retrievers, cls)(CORPUS, local(), k=1)(query)

    return search


LAMP = {"id": "0", "content": "a lamp"}
RETRIEVERS: dict[str, tuple[Callable[[str], Any], int, list[dict[str, Any]]]] = {
    "Embeddings": (in_corpus("Embeddings"), 1, [LAMP]),
    "EmbeddingsWithScores": (in_corpus("EmbeddingsWithScores"), 1, [{**LAMP, "score": pytest.approx(1.0)}]),
    "Retrieve": (with_rm, 2, [{"content": "2 of a lamp"}]),
    "Shelf": (
        lambda query: Shelf(k=3)(query, k=7),
        7,
        [
            {"id": "doc-1", "score": 0.5, "content": "a lamp"},
            {"score": 0.25, "content": "a desk"},
            {"id": "3", "content": "a chair"},
        ],
    ),
    "KNN": (knn, 1, [{"content": {"question": "a lamp", "answer": "here"}}]),
}


@pytest.mark.parametrize("name", RETRIEVERS)
def test_what_a_retriever_found(name: str) -> None:
    """Query, how many were asked for, and of each passage what is known of id, score and text."""
    search, top_k, documents = RETRIEVERS[name]
    with balanced(capture_content=True, conventions={"openinference"}) as trace:
        search("a lamp")
    attributes = trace.one(f"retrieval {name}").attributes
    assert attributes["gen_ai.retrieval.query.text"] in ("a lamp", '{"question":"a lamp"}')
    assert attributes["gen_ai.retrieval.top_k"] == top_k
    assert attributes["dspy.retrieval.document.count"] == len(documents)
    assert json.loads(attributes["gen_ai.retrieval.documents"]) == documents
    for index, document in enumerate(documents):
        prefix = f"retrieval.documents.{index}.document."
        told = {key[len(prefix) :]: value for key, value in attributes.items() if key.startswith(prefix)}
        if isinstance(document["content"], dict):
            told["content"] = json.loads(told["content"])
        assert told == document


class _Index(Handler):
    """A ColBERTv2 server, one of whose passages has no score."""

    def do_GET(self) -> None:
        passages = [{"text": "a lamp", "pid": 7, "score": 0.5}, {"text": "a desk", "pid": 8}]
        body = json.dumps({"topk": passages}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = LoopbackServer(_Index)
    yield server.server_port
    server.stop()


@pytest.mark.parametrize("simplify", [False, True])
def test_colbert(simplify: bool, index: int) -> None:
    """A server is asked; without ids and scores where only texts are asked for, or where it has none."""
    with balanced(capture_content=True) as trace:
        search = dspy.ColBERTv2(url="http://127.0.0.1", port=index)
        search(f"a lamp, {simplify}", k=2, simplify=simplify)
    attributes = trace.one("retrieval ColBERTv2").attributes
    assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", index)
    assert attributes["gen_ai.retrieval.top_k"] == 2
    full = [{"id": "7", "score": 0.5, "content": "a lamp"}, {"id": "8", "content": "a desk"}]
    plain = [{"content": document["content"]} for document in full]
    assert json.loads(attributes["gen_ai.retrieval.documents"]) == (plain if simplify else full)


def test_embeddings(scripted_lm: ScriptedLM) -> None:
    """How many texts, and the length of their vectors; one text that is no list is one."""
    with record() as trace:
        scripted_lm.embedder()(["a", "b", "c"])
        local()("alone")
    hosted, own = trace.spans
    keys = ("dspy.embeddings.input.count", "gen_ai.embeddings.dimension.count")
    assert [tuple(span.attributes[key] for key in keys) for span in (hosted, own)] == [(3, 16), (1, 16)]


def test_tokens_of_embeddings(scripted_lm: ScriptedLM) -> None:
    """Of all batches together, and the model that answered; none where nobody was asked, or nobody says."""
    hosted, measured = scripted_lm.embedder(batch_size=2), Measured()
    with record(meter_provider=measured.provider, conventions={"genai", "openinference"}) as trace:
        hosted(["a b", "c", "d e f"])
        asyncio.run(hosted.acall(["a b", "c", "d e f"]))
        local()(["a b"])
        scripted_lm.embed = lambda body: Reply(usage=None)
        hosted("alone")
    keys = ("gen_ai.usage.input_tokens", "llm.token_count.prompt", "gen_ai.response.model")
    told = [tuple(span.attributes.get(key) for key in keys) for span in trace.spans]
    model = "text-embedding-3-small"
    assert told == [(6, 6, model), (6, 6, model), (None, None, None), (None, None, model)]
    assert scripted_lm.reported_embeddings.input_tokens == 12
    (tokens,) = measured.points("gen_ai.client.token.usage")
    assert (tokens.count, tokens.sum, tokens.attributes["gen_ai.token.type"]) == (2, 12, "input")


def test_a_function_that_its_package_hands_on_is_pickled() -> None:
    """What asks for embeddings stands in one module of LiteLLM's and is found in another: it is pickled as it was."""
    import litellm

    plain = litellm.embedding
    with record():
        assert litellm.embedding is not plain
        assert pickle.loads(pickle.dumps(litellm.embedding)) is plain
    assert litellm.embedding is plain
