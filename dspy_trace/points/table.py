"""The methods of DSPy that are observed: to observe another one, add a row."""

from __future__ import annotations

from typing import Final

from dspy_trace.facts import Compilation, DecisionCall, Embedding, LMCall, ModuleCall
from dspy_trace.points import Call, Handover, Held, Note, Place, Send, Spread
from dspy_trace.points.adapters import AdapterNotes, FormatReader, ParseNotes, ParseReader
from dspy_trace.points.decisions import DecisionReader, FinishNotes
from dspy_trace.points.evaluate import CompileReader, EvaluateReader, RewardNotes
from dspy_trace.points.lm import (
    AttemptNotes,
    ChunkNotes,
    FailureNotes,
    FinalizeNotes,
    LiteLLMNotes,
    LiteLLMStreamNotes,
    LMReader,
    StreamNotes,
    TransportNotes,
)
from dspy_trace.points.lm_before_34 import CacheNotes, LMReaderBefore34, ResponseNotes, TypedResponseNotes
from dspy_trace.points.modules import ModuleReader
from dspy_trace.points.optimizers import DiscoveryNotes, OwnRunNotes, ProposedNotes
from dspy_trace.points.retrieval import ColBERTReader, EmbedderReader, EmbeddingNotes, KNNReader, RetrieverReader
from dspy_trace.points.tools import InterpreterReader, InvokedToolReader, ToolReader
from dspy_trace.points.transports import headed_httpx, headed_lm15

_MODULE = ModuleReader()
_LM = LMReader()
_LM_BEFORE_34 = LMReaderBefore34()
_DECISION = DecisionReader()
_EMBEDDER = EmbedderReader()
_TOOL = ToolReader()
_RETRIEVER = RetrieverReader()
_INTERPRETER = InterpreterReader()
_INVOKED = InvokedToolReader()
_ADAPTER = AdapterNotes()
_PARSE = ParseNotes()
_ATTEMPT = AttemptNotes()
_STREAM = StreamNotes()
_CHUNK = ChunkNotes()
_TRANSPORT = TransportNotes()
_PROPOSED = ProposedNotes()
_EMBEDDING = EmbeddingNotes()

_EXECUTION = "dspy.clients.execution"
_ADAPTERS = "dspy.adapters.base"
_BASE_LM = "dspy.clients.base_lm"
_EMBEDDINGS = "dspy.retrievers.embeddings"
_MUTATION = "gepa.proposer.reflective_mutation.reflective_mutation"

CALLS: Final[tuple[Call, ...]] = (
    Call("dspy.primitives.module", "Module.__call__", overrides=True, reader=_MODULE),
    Call("dspy.primitives.module", "Module.acall", overrides=True, reader=_MODULE),
    Call(_BASE_LM, "BaseLM.__call__", overrides=True, reader=_LM, sends=True),
    Call(_BASE_LM, "BaseLM.acall", overrides=True, reader=_LM, sends=True),
    Call("dspy.clients.typesafe", "TypeSafe.__call__", overrides=True, reader=_DECISION, sends=True),
    Call("dspy.clients.typesafe", "TypeSafe.acall", overrides=True, reader=_DECISION, sends=True),
    Call("dspy.clients.embedding", "Embedder.__call__", overrides=True, reader=_EMBEDDER, sends=True),
    Call("dspy.clients.embedding", "Embedder.acall", overrides=True, reader=_EMBEDDER, sends=True),
    Call("dspy.adapters.types.tool", "Tool.__call__", overrides=True, reader=_TOOL),
    Call("dspy.adapters.types.tool", "Tool.acall", overrides=True, reader=_TOOL),
    Call("dspy.retrievers.retrieve", "Retrieve.__call__", overrides=True, reader=_RETRIEVER),
    Call(_EMBEDDINGS, "Embeddings.__call__", overrides=True, reader=_RETRIEVER),
    Call("dspy.dsp.colbertv2", "ColBERTv2.__call__", overrides=True, reader=ColBERTReader()),
    Call("dspy.predict.knn", "KNN.__call__", overrides=True, reader=KNNReader()),
    Call(
        "dspy.primitives.python_interpreter", "PythonInterpreter.execute", True, reader=_INTERPRETER, detail="standard"
    ),
    Call("dspy.primitives.local_interpreter", "LocalInterpreter.execute", True, reader=_INTERPRETER, detail="standard"),
    Call("dspy.primitives.python_interpreter", "PythonInterpreter.invoke_tool", True, reader=_INVOKED),
    Call("dspy.primitives.local_interpreter", "LocalInterpreter.invoke_tool", True, reader=_INVOKED),
    Call("dspy.evaluate.evaluate", "Evaluate.__call__", True, reader=EvaluateReader(), detail="standard", runs=True),
    Call(
        "dspy.teleprompt.teleprompt", "Teleprompter.compile", True, reader=CompileReader(), detail="standard", runs=True
    ),
    Call(_ADAPTERS, "Adapter.format", True, redecorated=True, reader=FormatReader(), detail="full"),
    Call(_ADAPTERS, "Adapter.parse", True, redecorated=True, reader=ParseReader(), detail="full"),
)
"""Methods whose calls are observed."""

NOTES: Final[tuple[Note, ...]] = (
    Note(_ADAPTERS, "Adapter.parse", True, redecorated=True, within=ModuleCall, notes=_PARSE),
    Note(_ADAPTERS, "Adapter._call_postprocess", True, within=ModuleCall, notes=_PARSE),
    Note(_ADAPTERS, "Adapter.__call__", True, within=ModuleCall, notes=_ADAPTER),
    Note(_ADAPTERS, "Adapter.acall", True, within=ModuleCall, notes=_ADAPTER),
    Note(_EXECUTION, "_attempt", within=LMCall, notes=_ATTEMPT),
    Note(_EXECUTION, "_aattempt", within=LMCall, notes=_ATTEMPT),
    Note(_EXECUTION, "finalize", within=LMCall, notes=FinalizeNotes()),
    Note(_EXECUTION, "_account_failed_call", within=LMCall, notes=FailureNotes()),
    Note(_EXECUTION, "checked_stream", within=LMCall, notes=_STREAM),
    Note(_EXECUTION, "achecked_stream", within=LMCall, notes=_STREAM),
    Note("dspy._vendor.lm15.result", "StreamAccumulator.push", within=LMCall, notes=_CHUNK),
    Note("dspy.clients.lm", "_get_litellm", within=LMCall, notes=LiteLLMNotes()),
    Note("dspy.clients.lm", "stream_emitted", within=LMCall, notes=_CHUNK),
    Note("dspy._vendor.lm15.transports._sync", "StdlibTransport.stream", within=LMCall, notes=_TRANSPORT),
    Note("dspy._vendor.lm15.transports._async", "StdlibAsyncTransport.stream", within=LMCall, notes=_TRANSPORT),
    Note("dspy.clients.lm", "_get_stream_completion_fn", within=LMCall, notes=LiteLLMStreamNotes()),
    Note("gepa.core.state", "GEPAState.update_state_with_new_program", within=Compilation, notes=DiscoveryNotes()),
    Note(_MUTATION, "ReflectiveMutationProposer.propose", within=Compilation, notes=_PROPOSED),
    Note("gepa.proposer.merge", "MergeProposer.propose", within=Compilation, notes=_PROPOSED),
    Note("gepa.logging.experiment_tracker", "ExperimentTracker.start_run", within=Compilation, notes=OwnRunNotes()),
    Note("litellm", "embedding", within=Embedding, notes=_EMBEDDING),
    Note("litellm", "aembedding", within=Embedding, notes=_EMBEDDING),
    Note("dspy.clients.typesafe", "TypeSafe._finish", within=DecisionCall, notes=FinishNotes()),
)
"""Methods that tell something about a call that is going on."""

CALLS_BEFORE: Final[tuple[Call, ...]] = (
    Call(_BASE_LM, "BaseLM.__call__", overrides=True, before=(3, 4), reader=_LM_BEFORE_34, sends=True),
    Call(_BASE_LM, "BaseLM.acall", overrides=True, before=(3, 4), reader=_LM_BEFORE_34, sends=True),
    Call("dspy.primitives.program", "Module.__call__", overrides=True, before=(3, 0), reader=_MODULE),
    Call("dspy.primitives.program", "Module.acall", overrides=True, before=(3, 0), reader=_MODULE),
    Call("dspy.primitives.tool", "Tool.__call__", overrides=True, before=(3, 0), reader=_TOOL),
    Call("dspy.primitives.tool", "Tool.acall", overrides=True, before=(3, 0), reader=_TOOL),
    Call("dspy.retrieve.retrieve", "Retrieve.__call__", overrides=True, before=(3, 0), reader=_RETRIEVER),
)
"""The same, where old versions have them, or in their own words: such a row stands in for that of its method above."""

NOTES_BEFORE: Final[tuple[Note, ...]] = (
    Note(_ADAPTERS, "Adapter._call_post_process", True, before=(3, 0), within=ModuleCall, notes=_PARSE),
    Note("dspy.clients.cache", "Cache.get", True, before=(3, 0), within=LMCall, notes=CacheNotes()),
    Note(_BASE_LM, "BaseLM._process_lm_response", True, before=(3, 4), within=LMCall, notes=ResponseNotes()),
    Note(_BASE_LM, "BaseLM._finalize_lm_response", True, before=(3, 4), within=LMCall, notes=TypedResponseNotes()),
)
"""What only old versions have."""

SPREADS: Final[tuple[Spread, ...]] = (Spread("dspy.utils.parallelizer", "ParallelExecutor.execute"),)
"""Methods that run items on threads of DSPy's own."""

HOLDERS: Final[tuple[Held, ...]] = (
    Held("dspy.predict.best_of_n", "BestOfN.reward_fn", notes=RewardNotes()),
    Held("dspy.predict.refine", "Refine.reward_fn", notes=RewardNotes()),
)
"""Functions of the program's, held by DSPy's objects, of which it is told what they return."""

HANDOVERS: Final[tuple[Handover, ...]] = (Handover("dspy.utils.unbatchify", "Unbatchify.__call__"),)
"""Methods that wait for a thread of DSPy's own, which no context reaches."""

_LM15 = "dspy._vendor.lm15.transports"
_ASKING = (LMCall, DecisionCall, Embedding)

SENDS: Final[tuple[Send, ...]] = (
    Send(f"{_LM15}._sync", "StdlibTransport.stream", within=_ASKING, headed=headed_lm15),
    Send(f"{_LM15}._async", "StdlibAsyncTransport.stream", within=_ASKING, headed=headed_lm15),
    # LiteLLM's requests, whichever of its ways they take, and with httpx's successor those of decision LMs.
    Send("httpx", "Client.send", within=_ASKING, headed=headed_httpx),
    Send("httpx", "AsyncClient.send", within=_ASKING, headed=headed_httpx),
    Send("httpx2", "Client.send", within=_ASKING, headed=headed_httpx),
    Send("httpx2", "AsyncClient.send", within=_ASKING, headed=headed_httpx),
)
"""Methods that send requests to LMs."""

POINTS: Final[tuple[Place, ...]] = (
    *(*NOTES, *NOTES_BEFORE, *CALLS, *CALLS_BEFORE),
    *(*SPREADS, *HOLDERS, *HANDOVERS, *SENDS),
)
"""All rows, innermost first where two stand on one method."""

LEVELS: Final = ("minimal", "standard", "full")


def rows_for(asked: tuple[str, bool], version: tuple[int, int], sends: bool = False) -> list[Place]:
    """Return the rows that a detail, with or without runs, and a DSPy of `version` call for, and whether it `sends`."""
    detail, runs = asked
    wanted = LEVELS[: LEVELS.index(detail) + 1]
    old = [point for point in CALLS_BEFORE if point.before is not None and version < point.before]
    replaced = {(point.module, point.target) for point in old}
    calls = [point for point in CALLS if (point.module, point.target) not in replaced]
    others = [point for point in (*NOTES, *NOTES_BEFORE) if point.before is None or version < point.before]
    calls = [point for point in (*calls, *old) if point.detail in wanted or (runs and point.runs)]
    return [*others, *calls, *SPREADS, *HOLDERS, *HANDOVERS, *(SENDS if sends else ())]
