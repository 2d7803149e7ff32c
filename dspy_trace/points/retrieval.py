"""Reads retrievers and embedders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dspy_trace.facts import Document, Embedding, Fact, ModuleCall, Retrieval
from dspy_trace.guard import ask
from dspy_trace.points import Args, Kwargs, Notes
from dspy_trace.points.addresses import host_and_port, provider_and_model
from dspy_trace.points.lm import get, tokens
from dspy_trace.secrets.places import seen
from dspy_trace.values.scalars import number, text, whole


class RetrieverReader:
    """Reads ``Retrieve`` and its subclasses, ``Embeddings`` and ``EmbeddingsWithScores``."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        seen(instance)
        fact = Retrieval(type(instance).__name__)
        fact.query = args[0] if args else kwargs.get("query", kwargs.get("query_or_queries"))
        k = kwargs.get("k", args[1] if len(args) > 1 else None)
        fact.top_k = _count(k) or _count(ask(getattr, instance, "k"))
        return fact

    def end(self, fact: Retrieval, instance: Any, result: Any, error: BaseException | None) -> None:
        if error is None:
            fact.documents = ask(documents, result)


class ColBERTReader(RetrieverReader):
    """Reads ``ColBERTv2``, which asks a server."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        fact = super().begin(instance, args, kwargs, within)
        assert isinstance(fact, Retrieval)
        fact.in_process = False
        fact.top_k = fact.top_k or 10
        fact.address, fact.port = host_and_port(ask(getattr, instance, "url"))
        return fact


class KNNReader(RetrieverReader):
    """Reads ``KNN``, whose query is the inputs of an example."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        return Retrieval("KNN", query=kwargs, top_k=_count(ask(getattr, instance, "k")))


def documents(result: Any) -> list[Document] | None:
    """Return passages out of whatever a retriever returned: a Prediction of columns, or a list of anything."""
    store = ask(vars, result, default={}).get("_store") if not isinstance(result, Sequence) else None
    if isinstance(store, dict):
        passages = store.get("passages")
        ids, scores = store.get("indices"), store.get("scores")
        return [
            _document(passage, _at(ids, index), _at(scores, index)) for index, passage in enumerate(_sequence(passages))
        ]
    return [_document(passage, None, None) for passage in _sequence(result)]


def _document(passage: Any, key: Any, score: Any) -> Document:
    content = passage
    if not isinstance(passage, str):
        key = key if key is not None else get(passage, "pid")
        score = score if score is not None else get(passage, "score")
        content = next((found for name in ("long_text", "text") if (found := get(passage, name)) is not None), passage)
    known = number(ask(float, score)) if score is not None else None
    return Document(content, text(key) or (str(place) if (place := whole(key)) is not None else None), known)


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _at(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, Sequence) and index < len(values) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None


class EmbedderReader:
    """Reads ``Embedder``: a hosted model by its name, or a function of the program's."""

    def begin(self, instance: Any, args: Args, kwargs: Kwargs, within: ModuleCall | None) -> Fact:
        seen(instance, kwargs)
        model = ask(getattr, instance, "model")
        if isinstance(model, str):
            provider, name = provider_and_model(model, "openai")
            fact = Embedding(name, provider, in_process=False)
            defaults = ask(getattr, instance, "default_kwargs")
            merged = {**(defaults if isinstance(defaults, dict) else {}), **kwargs}
            fact.address, fact.port = host_and_port(merged.get("api_base") or merged.get("base_url"))
        else:
            fact = Embedding(*_function(model), in_process=True)
        fact.inputs = args[0] if args else kwargs.get("inputs")
        fact.count = 1 if isinstance(fact.inputs, str) else ask(len, fact.inputs)
        return fact

    def end(self, fact: Embedding, instance: Any, result: Any, error: BaseException | None) -> None:
        shape = ask(getattr, result, "shape", default=())
        if isinstance(shape, tuple) and shape:
            fact.dimensions = int(shape[-1])


class EmbeddingNotes(Notes):
    """LiteLLM's answer to one request of an ``Embedder``, of which there is one for each batch."""

    def returned(self, fact: Embedding, instance: Any, result: Any) -> Fact | None:
        fact.response_model = text(get(result, "model")) or fact.response_model
        used = tokens(get(get(result, "usage"), "prompt_tokens"))
        if used:
            fact.input_tokens = (fact.input_tokens or 0) + used
        return None


def _function(model: Callable[..., Any]) -> tuple[str, str]:
    """Return a name for an embedding function, and the package that it comes from as its provider."""
    holder = getattr(model, "__self__", None)
    named = holder if holder is not None and not isinstance(holder, type) else model
    name = type(named).__qualname__ if named is holder else getattr(model, "__qualname__", type(model).__qualname__)
    module = getattr(model, "__module__", None) or type(model).__module__
    return str(name).rpartition(".")[2], str(module).partition(".")[0]
