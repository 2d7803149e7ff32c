"""The chat task: a program behind the chat-completion schema, in and out, whole or streamed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from dspy_trace.guard import ask
from dspy_trace_flavor.errors import BadInput
from dspy_trace_flavor.fields import outputs
from dspy_trace_flavor.model import ProgramModel, explained
from dspy_trace_flavor.rows import Row, output, plain
from dspy_trace_flavor.streams import stream, streamed
from dspy_trace_flavor.untyped import untyped

TASK = "llm/v1/chat"

_OF_LM = ("temperature", "max_tokens", "stop", "top_p", "frequency_penalty", "presence_penalty")
_THOUGHTS = frozenset({"reasoning", "rationale", "trajectory"})


class ChatModel(ProgramModel):
    """What MLflow serves for the task ``llm/v1/chat``."""

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a chat completion.

        A program whose first input is a text gets the last message of the user, and what was said before in its input
        of type ``dspy.History``, if it has one; any other gets the list of messages. Of several outputs, the last one
        that is not its reasoning is the answer.
        """
        request = _request(model_input)
        with explained():
            row = self._row(request["messages"])
        with self.runner.context(_parameters(request), track_usage=True):
            given = self.runner.call(row)
        message = _message(output(given), answer_of(self.program))
        return {
            **self._head("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(given),
        }

    async def apredict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Return a chat completion without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.predict, model_input, params)

    def predict_stream(self, model_input: Any, params: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield chat-completion chunks: a role first, then the answer's text in pieces, then the reason of its end."""
        request = _request(model_input)
        with explained():
            row = self._row(request["messages"])
        return self._chunks(row, _parameters(request))

    def _chunks(self, row: Row, lm_kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        head, name = self._head("chat.completion.chunk"), answer_of(self.program)
        yield _chunk(head, {"role": "assistant", "content": ""})
        sent = False
        for item in stream(self.runner, row, lm_kwargs):
            if "prediction" in item:
                if not sent:
                    yield _chunk(head, {"content": _message(item["prediction"], name)["content"]})
            elif item["signature_field_name"] == name and isinstance(item["chunk"], str) and item["chunk"]:
                sent = True
                yield _chunk(head, {"content": item["chunk"]})
        yield _chunk(head, {}, "stop")

    def _head(self, kind: str) -> dict[str, Any]:
        dspy = untyped("dspy")

        lm = self.runner.settings.get("lm") or dspy.settings.lm
        model = str(getattr(lm, "model", None) or type(self.program).__name__)
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}

    def _row(self, messages: list[dict[str, Any]]) -> Row:
        """Return the inputs of the program for a conversation."""
        dspy = untyped("dspy")

        if not self.taken:
            return {"messages": messages}
        history = next((field.name for field in self.taken if field.annotation is dspy.History), None)
        first = next(field for field in self.taken if field.name != history)
        if first.annotation is not str:
            return {first.name: messages}
        last = next(
            (index for index in range(len(messages) - 1, -1, -1) if messages[index].get("role") == "user"), None
        )
        if last is None:
            raise BadInput("the conversation has no message of the user")
        row: Row = {first.name: str(messages[last].get("content") or "")}
        if history is not None:
            row[history] = dspy.History(
                messages=_turns(messages[:last], first.name, answer_of(self.program) or "answer")
            )
        return row


def answer_of(program: Any) -> str | None:
    """Return the output that is a program's answer: the last one that is not its reasoning."""
    names = [field.name for field in outputs(program) or ()] or list(streamed(program))
    return next((name for name in reversed(names) if name not in _THOUGHTS), None)


def _turns(messages: list[dict[str, Any]], question: str, answer: str) -> list[dict[str, Any]]:
    """Return what was said before as DSPy's history has it: one entry for a question with its answer."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        content = str(message.get("content") or "")
        if message.get("role") == "user":
            turns.append({question: content})
        elif message.get("role") == "assistant" and turns:
            turns[-1][answer] = content
    return turns


def _request(data: Any) -> dict[str, Any]:
    pd = untyped("pandas")

    with explained():
        if isinstance(data, pd.DataFrame):
            if len(data) != 1:
                raise BadInput(f"a chat request is one conversation, not {len(data)}")
            data = data.to_dict(orient="records")[0]
        if isinstance(data, list) and len(data) == 1 and isinstance(data[0], Mapping) and "messages" in data[0]:
            data = data[0]
        request = {str(key): plain(value) for key, value in data.items()} if isinstance(data, Mapping) else {}
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise BadInput('a chat request is {"messages": [{"role": "user", "content": "..."}]}')
        request["messages"] = [{key: value for key, value in one.items() if value is not None} for one in messages]
    return request


def _parameters(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: request[name] for name in _OF_LM if request.get(name) is not None}


def _message(given: Any, name: str | None) -> dict[str, Any]:
    if isinstance(given, dict) and isinstance(given.get("content"), str) and given.get("role") in (None, "assistant"):
        return {"role": "assistant", "content": given["content"]}
    answer = given.get(name, given) if isinstance(given, dict) and name is not None else given
    return {"role": "assistant", "content": answer if isinstance(answer, str) else json.dumps(answer, default=str)}


def _usage(given: Any) -> dict[str, int]:
    """Return the tokens of all LM calls, which DSPy has counted."""
    counted = ask(getattr(given, "get_lm_usage", dict), default=None) or {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: sum(int(one.get(name) or 0) for one in counted.values()) for name in names}


def _chunk(head: dict[str, Any], delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
