"""What happened, in DSPy's own words.

A reader in :mod:`dspy_trace.points` fills one of these from a DSPy object; a vocabulary in
:mod:`dspy_trace.vocab` spells it. This file knows neither DSPy nor OpenTelemetry and imports nothing of ours.

A field that could not be known is ``None``: it is left out, never invented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspy_trace.tally import Tally


@dataclass(slots=True, eq=False)
class Fact:
    """One thing that DSPy did. Compared by identity: what it holds may raise on ``==``."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who and what calls belong to, as the program says."""

    session_id: str | None = None
    conversation_id: str | None = None
    user_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class ModuleCall(Fact):
    """A call of a ``dspy.Module``."""

    cls: str
    inputs: Mapping[str, Any]
    path: str | None = None
    outermost: bool = False
    agent: bool = False
    signature: str | None = None
    signature_name: str | None = None
    demos: int | None = None
    program: Any = None
    version: str | None = None
    model_id: str | None = None
    output: Any = None
    steps_before: int = 0
    iterations: int | None = None
    termination: str | None = None
    attempts: int = 0
    adapter: str | None = None
    adapters_running: int = 0
    trouble: BaseException | None = None
    tally: Tally | None = None


@dataclass(slots=True, eq=False)
class LMCall(Fact):
    """A call of a ``dspy.BaseLM``: its request and, when it is over, what came back."""

    cls: str
    model: str
    provider: str
    text_completion: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: Any = None
    tools: Any = None
    json_output: bool = False
    streaming: bool = False
    first_chunk: float | None = None
    stream_opened: float | None = None
    last_chunk: float | None = None
    between_chunks: list[float] | None = None
    address: str | None = None
    port: int | None = None
    lm: Any = None
    within: ModuleCall | None = None
    relays: bool = False
    engine: str | None = None
    cache_hit: bool | None = None
    requests: int = 0
    retries: int = 0
    failed_attempt: BaseException | None = None
    outputs: Any = None
    response_id: str | None = None
    response_model: str | None = None
    finish_reasons: Sequence[str] = ()
    adaptations: Sequence[str] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None


@dataclass(slots=True, eq=False)
class DecisionCall(Fact):
    """A call of a decision LM, which answers questions about a state instead of writing text."""

    cls: str
    model: str
    provider: str
    state: Any = None
    questions: Any = None
    address: str | None = None
    port: int | None = None
    cache_hit: bool | None = None
    answers: Any = None
    response_model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None


@dataclass(slots=True, eq=False)
class Embedding(Fact):
    """A call of a ``dspy.Embedder``."""

    model: str
    provider: str
    in_process: bool
    inputs: Any = None
    count: int | None = None
    dimensions: int | None = None
    address: str | None = None
    port: int | None = None
    response_model: str | None = None
    input_tokens: int | None = None


@dataclass(slots=True, eq=False)
class Document:
    """One passage that a retriever returned."""

    content: Any = None
    id: str | None = None
    score: float | None = None


@dataclass(slots=True, eq=False)
class Retrieval(Fact):
    """A call of a retriever."""

    cls: str
    in_process: bool = True
    source: str | None = None
    query: Any = None
    top_k: int | None = None
    address: str | None = None
    port: int | None = None
    documents: Sequence[Document] | None = None


@dataclass(slots=True, eq=False)
class ToolCall(Fact):
    """A call of a ``dspy.Tool``. `agent` names the agent that makes it, if one does."""

    name: str
    description: str | None = None
    arguments: Any = None
    parameters: Any = None
    result: Any = None
    agent: str | None = None


@dataclass(slots=True, eq=False)
class CodeExecution(Fact):
    """A piece of code run by an interpreter."""

    cls: str
    code: Any = None
    variables: Any = None
    result: Any = None


@dataclass(slots=True, eq=False)
class Formatting(Fact):
    """An adapter turning a signature and its inputs into messages."""

    adapter: str
    inputs: Any = None
    messages: Any = None


@dataclass(slots=True, eq=False)
class Parsing(Fact):
    """An adapter turning a completion into fields."""

    adapter: str
    completion: Any = None
    fields: Any = None


@dataclass(slots=True, eq=False)
class Evaluation(Fact):
    """A call of ``dspy.Evaluate``. ``items_taken`` is set once its own executor has started."""

    program: str
    metric: str | None = None
    examples: int | None = None
    threads: int | None = None
    items_taken: bool = False
    subject: Any = None
    devset: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    tally: Tally | None = None


@dataclass(slots=True, eq=False)
class ExampleRun(Fact):
    """One example of an evaluation, or one rollout of an optimizer, of which `subject` is the program."""

    program: str
    around: Any = None
    subject: Any = None
    round: int = 0
    begun: float = 0.0
    index: int | None = None
    resubmitted: bool = False
    inputs: Any = None
    metric: str | None = None
    output: Any = None
    score: float | None = None
    label: str | None = None
    explanation: str | None = None
    tally: Tally | None = None


@dataclass(slots=True, eq=False)
class Compilation(Fact):
    """An optimizer's ``compile``."""

    optimizer: str
    program: str | None = None
    trainset: int | None = None
    valset: int | None = None
    instance: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    result: Any = None
    tally: Tally | None = None


@dataclass(slots=True, eq=False)
class ParseFailure(Fact):
    """An adapter could not read a completion. Happens within a module call."""

    adapter: str
    error: BaseException


@dataclass(slots=True, eq=False)
class AdapterFallback(Fact):
    """An adapter gave up and another took over. Happens within a module call."""

    from_adapter: str | None
    to_adapter: str


@dataclass(slots=True, eq=False)
class AttemptFailed(Fact):
    """One request of an LM call failed and DSPy tried again."""

    error: BaseException


@dataclass(slots=True, eq=False)
class Rewarded(Fact):
    """One attempt of ``BestOfN`` or ``Refine`` was given its reward. Happens within their call."""

    index: int
    reward: float | None


@dataclass(slots=True, eq=False)
class Scored(Fact):
    """A metric scored one example, in a word as well where it has one, and said why where it does."""

    metric: str
    score: float | None
    label: str | None = None
    explanation: str | None = None


def scored(example: ExampleRun) -> Scored:
    """Return what became of an example as what its metric said."""
    return Scored(example.metric or "metric", example.score, example.label, example.explanation)
