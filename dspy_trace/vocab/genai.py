"""OpenTelemetry's GenAI semantic conventions, and ``dspy.*`` for what they have no name for."""

from __future__ import annotations

from collections.abc import Callable

from dspy_trace import facts
from dspy_trace.values.jsonable import dumps
from dspy_trace.vocab import Attributes, agent_keys, genai_work, keys
from dspy_trace.vocab.genai_calls import LMSpelling, ModuleSpelling
from dspy_trace.vocab.genai_work import score
from dspy_trace.vocab.spelling import Spelling, put


class GenAI:
    """The default vocabulary.

    Args:
        latest: write the newest spelling (``gen_ai_latest_experimental``) instead of that of
            ``opentelemetry-util-genai`` 1.3: finish reasons no longer stand in the output messages.
    """

    def __init__(self, latest: bool = False) -> None:
        self.spellings: dict[type[facts.Fact], Spelling] = {
            facts.ModuleCall: ModuleSpelling(),
            facts.LMCall: LMSpelling(finish_reason_in_message=not latest),
            facts.DecisionCall: genai_work.DecisionSpelling(),
            facts.Embedding: genai_work.EmbeddingSpelling(),
            facts.Retrieval: genai_work.RetrievalSpelling(),
            facts.ToolCall: genai_work.ToolSpelling(),
            facts.CodeExecution: genai_work.CodeSpelling(),
            facts.Formatting: genai_work.FormattingSpelling(),
            facts.Parsing: genai_work.ParsingSpelling(),
            facts.Evaluation: genai_work.EvaluationSpelling(),
            facts.ExampleRun: genai_work.ExampleSpelling(),
            facts.Compilation: genai_work.CompilationSpelling(),
        }

    def of_session(self, session: facts.Session) -> Attributes:
        """Return what the program said of the session, which stands on every span of it."""
        attributes: Attributes = {}
        put(
            attributes,
            (keys.SESSION_ID, session.session_id),
            (keys.CONVERSATION_ID, session.conversation_id or session.session_id),
            (keys.USER_ID, session.user_id),
            (keys.TAGS, [f"{name}:{value}" for name, value in session.tags.items()] or None),
            (keys.METADATA, dumps(dict(session.metadata)) if session.metadata else None),
        )
        return attributes

    def event(self, fact: facts.Fact, text: Callable[[str], str] | None) -> tuple[str, Attributes]:
        """Return the name and attributes of what happened during a call.

        Args:
            fact: what happened.
            text: gives captured text; ``None`` where content is not wanted.
        """
        match fact:
            case facts.ParseFailure():
                return keys.EVENT_PARSE_ERROR, {
                    keys.ADAPTER: fact.adapter,
                    keys.ERROR_TYPE: type(fact.error).__qualname__,
                }
            case facts.AdapterFallback():
                attributes: Attributes = {keys.FALLBACK_TO: fact.to_adapter}
                if fact.from_adapter is not None:
                    attributes[keys.FALLBACK_FROM] = fact.from_adapter
                return keys.EVENT_FALLBACK, attributes
            case facts.AttemptFailed():
                return keys.EVENT_ATTEMPT_FAILED, {keys.ERROR_TYPE: type(fact.error).__qualname__}
            case facts.Rewarded():
                told: Attributes = {agent_keys.ATTEMPT_INDEX: fact.index}
                put(told, (agent_keys.ATTEMPT_REWARD, fact.reward))
                return agent_keys.EVENT_ATTEMPT, told
            case facts.Scored():
                return keys.EVENT_EVALUATION, score(fact, text)
            case _:
                raise TypeError(f"{type(fact).__name__} is not an event")
