"""Trace the programs of programs.py and compare with what this version of DSPy should give.

    python -m tests.versions.program

Exits with 1 and says what differs where a trace, a result, a request or an undo is not as it should be. Run by
tests/integration/test_dspy_versions.py in an environment with each DSPy of its list; works in any.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="dspy-trace-cache-")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

import dspy  # reads the environment when it is imported

from dspy_trace import guard
from dspy_trace.points.table import rows_for
from dspy_trace.testing import Recording, record
from tests.parts.scripted_lm import ScriptedLM
from tests.versions import programs
from tests.versions.programs import Program
from tests.versions.trees import SHOWN, TREES, WITH_ADAPTERS

VERSION = tuple(int(part) for part in dspy.__version__.split(".")[:2])


@dataclass(frozen=True)
class Differs:
    """What is not the same in every DSPy.

    Attributes:
        engine: what serves ``dspy.LM``.
        requests: whether requests and retries are counted: before 3.4 they are LiteLLM's own and not known.
        own: what is told of an LM of the program's own, beside its response.
        dummy: what is told of ``DummyLM``, beside its class.
        stream_usage: whether a stream is asked for its usage.
        lm_error: what an HTTP 400 raises.
        interpreter_error: what an interpreter without Deno raises.
        typed: whether LMs take and give typed requests and responses.
    """

    engine: str = "litellm"
    requests: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)
    dummy: Mapping[str, Any] = field(default_factory=dict)
    stream_usage: bool = False
    lm_error: str = "LMInvalidRequestError"
    interpreter_error: str = "CodeInterpreterError"
    typed: bool = False


ANSWERED = {"dspy.lm.cache_hit": False, "gen_ai.response.finish_reasons": ("stop",), "gen_ai.response.model": "dummy"}
ONE_REQUEST = {"dspy.lm.requests": 1, "dspy.lm.retries": 0}
USAGE = frozenset({"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "dspy.lm.cost"})

TABLE = {
    (2, 6): Differs(lm_error="BadRequestError", interpreter_error="InterpreterError"),
    (3, 0): Differs(lm_error="BadRequestError", interpreter_error="InterpreterError"),
    (3, 1): Differs(lm_error="BadRequestError"),
    (3, 3): Differs(dummy=ANSWERED, typed=True),
    (3, 4): Differs(
        engine="lm15",
        requests=True,
        own={"dspy.lm.engine": "legacy", **ONE_REQUEST},
        dummy={**ANSWERED, "dspy.lm.engine": "custom", **ONE_REQUEST},
        stream_usage=True,
    ),
}
DIFFERS = TABLE.get(VERSION) or TABLE[max(TABLE)]


@dataclass(frozen=True)
class Ran:
    """One run of a program, traced."""

    trace: Recording
    server: ScriptedLM
    input_tokens: int
    output_tokens: int
    """What the server has reported in this run."""

    def attributes(self, name: str, number: int = -1) -> dict[str, Any]:
        return dict(self.trace.named(name)[number].attributes or {})

    def expected(self, **other: Any) -> dict[str, Any]:
        """Return all that is to be told of the run's one chat with ``dspy.LM``, but its cost."""
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 77,
            "gen_ai.response.id": f"chatcmpl-{len(self.server.requests)}",
            "gen_ai.response.model": "gpt-4o-mini",
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": self.input_tokens,
            "gen_ai.usage.output_tokens": self.output_tokens,
            "server.address": "127.0.0.1",
            "server.port": int(self.server.url.split(":")[2].split("/")[0]),
            "dspy.lm.class": "LM",
            "dspy.lm.engine": DIFFERS.engine,
            "dspy.lm.cache_hit": False,
            **(ONE_REQUEST if DIFFERS.requests else {}),
            **other,
        }


def same(found: Any, wanted: Any, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}:\n--- found\n{found}\n--- wanted\n{wanted}")


def check_chat(ran: Ran) -> None:
    facts = ran.attributes("chat gpt-4o-mini")
    if not facts.pop("dspy.lm.cost", 0.0) > 0:
        raise AssertionError("the call has no cost")
    same(facts, ran.expected(), "facts of an LM call")


def check_sums(ran: Ran) -> None:
    root = ran.attributes("invoke_workflow Search")
    sums = {key: value for key, value in root.items() if key.startswith("dspy.usage.") and key != "dspy.usage.cost"}
    wanted = {"input_tokens": ran.input_tokens, "output_tokens": ran.output_tokens, "lm_calls": 2, "cache_hits": 0}
    same(sums, {f"dspy.usage.{key}": value for key, value in wanted.items()}, "sums of a program")


def check_stream(ran: Ran) -> None:
    facts = ran.attributes("chat gpt-4o-mini")
    same(facts.get("gen_ai.request.stream"), True, "a streamed call says so")
    same({*facts} & USAGE, USAGE if DIFFERS.stream_usage else set(), "usage of a stream")
    same(facts["gen_ai.response.id"], f"chatcmpl-{len(ran.server.requests)}", "id of a streamed response")


def check_hit(ran: Ran) -> None:
    hit = ran.attributes("chat gpt-4o-mini")
    same({*hit} & USAGE, set(), "a cache hit has no usage")
    same(hit["gen_ai.response.id"], f"chatcmpl-{len(ran.server.requests)}", "a cache hit is told as the first response")
    paid = ran.attributes("invoke_workflow Predict")
    same([paid["dspy.usage.input_tokens"], paid["dspy.usage.output_tokens"]], [0, 0], "a cache hit adds nothing")


def check_text(ran: Ran) -> None:
    facts = ran.attributes("text_completion gpt-4o-mini")
    wanted = {"gen_ai.operation.name": "text_completion", "dspy.lm.engine": "litellm"}
    wanted["gen_ai.response.id"] = f"cmpl-{len(ran.server.requests)}"
    facts.pop("dspy.lm.cost", None)  # LiteLLM has no price for this model's text completions
    same(facts, ran.expected(**wanted), "facts of a text completion")


def check_own(ran: Ran) -> None:
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "OwnLM",
        "gen_ai.request.model": "own",
        "gen_ai.request.max_tokens": 99,
        "gen_ai.response.id": "own-id",
        "gen_ai.response.model": "own-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "dspy.lm.class": "OwnLM",
        "dspy.lm.cache_hit": False,
    }
    facts = ran.attributes("chat own")
    facts.pop("gen_ai.request.temperature", None)  # a default of BaseLM, before 3.3
    same(facts, {**wanted, **DIFFERS.own}, "facts of an LM of the program's own")


def check_dummy(ran: Ran) -> None:
    facts = {key: value for key, value in ran.attributes("chat dummy").items() if ".request." not in key}
    wanted = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "DummyLM", "dspy.lm.class": "DummyLM"}
    same(facts, {**wanted, **DIFFERS.dummy}, "facts of DummyLM")


def check_typed(ran: Ran) -> None:
    own = {
        "gen_ai.response.id": "own-id",
        "gen_ai.response.model": "own-2",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 1,
        "dspy.lm.cost": 0.5,
        "dspy.lm.cache_hit": False,
    }
    found = ran.attributes("chat own")
    same({key: found.get(key) for key in own}, own, "facts of a typed LM of the program's own")


CHECKS: dict[Program, Callable[[Ran], None]] = {
    programs.nested: check_sums,
    programs.call_by_acall: check_chat,
    programs.streaming: check_stream,
    programs.cache: check_hit,
    programs.cache_async: check_hit,
    programs.text_completion: check_text,
    programs.own_lm: check_own,
    programs.dummy_lm: check_dummy,
    programs.dummy_lm_async: check_dummy,
    programs.typed_lm: check_typed,
}
"""What else is looked at, beside the tree."""


def outcome(program: Program, server: ScriptedLM) -> tuple[str, list[str]]:
    """Return what a program gives or raises, and what it asked the server."""
    dspy.cache.reset_memory_cache()
    before = len(server.requests)
    try:
        result = repr(program(server))
    except Exception as error:  # noqa: BLE001  # compared
        result = f"{type(error).__name__}: {error}"
    asked = sorted(json.dumps([request.path, request.body], sort_keys=True) for request in server.requests[before:])
    return result, asked


def in_place() -> list[Any]:
    """Return what stands where a row of the table puts something."""
    found = []
    for row in rows_for(("full", False), VERSION):
        module = sys.modules.get(row.module)
        cls, _, name = row.target.rpartition(".")
        owner = getattr(module, cls, None) if cls else module
        found.append(vars(owner).get(name) if owner is not None else None)
    return found


def check(program: Program, server: ScriptedLM) -> None:
    """Run a program without tracing and with it, and compare.

    Raises:
        AssertionError: something is not as it should be.
    """
    untraced, before, reported = outcome(program, server), in_place(), server.reported
    with record() as trace:
        traced = outcome(program, server)
    now = server.reported
    same(traced, untraced, "what the program gives and asks is the same with tracing")
    same([a is b for a, b in zip(in_place(), before, strict=True)], [True] * len(before), "undone")
    words = {"{lm_error}": DIFFERS.lm_error, "{interpreter_error}": DIFFERS.interpreter_error}
    wanted = TREES[program]
    for word, value in words.items():
        wanted = wanted.replace(word, value)
    same(trace.tree(*SHOWN.get(program, ())), wanted, "tree")
    ran = Ran(trace, server, now.input_tokens - reported.input_tokens, now.output_tokens - reported.output_tokens)
    CHECKS.get(program, lambda ran: None)(ran)


def check_content(server: ScriptedLM) -> None:
    """Messages and adapters are told where they are asked for."""
    with record(capture_content=True, detail="full") as trace:
        result = programs.fallback(server)
    same(trace.tree(), WITH_ADAPTERS, "tree with adapters")
    facts = dict(trace.named("chat gpt-4o-mini")[-1].attributes or {})
    roles = [message["role"] for message in json.loads(str(facts["gen_ai.input.messages"]))]
    same(roles, ["system", "user"], "roles")
    said = json.loads(str(facts["gen_ai.output.messages"]))
    part = {"type": "text", "content": json.dumps({"answer": result.answer})}
    same(said, [{"role": "assistant", "parts": [part], "finish_reason": "stop"}], "output messages")
    if DIFFERS.typed:
        with record(capture_content=True) as trace:
            programs.typed_lm(server)
        told = [json.loads(str((span.attributes or {})["gen_ai.input.messages"])) for span in trace.spans]
        roles = [[message["role"] for message in messages] for messages in told]
        same(roles, [["system", "user"], ["user"], ["user"], ["user", "assistant"]], "roles of typed messages")
        same(told[0][0]["parts"], [{"type": "text", "content": "Be brief."}], "a typed message")


def main() -> int:
    failed = 0
    with ScriptedLM(programs.answer) as server:
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
        dspy.configure(lm=server.lm(temperature=0.5, max_tokens=77))
        cases = [program for program in TREES if DIFFERS.typed or program is not programs.typed_lm]
        for name, run in [(case.__name__, lambda case=case: check(case, server)) for case in cases] + [
            ("content", lambda: check_content(server))
        ]:
            try:
                run()
            except Exception:  # noqa: BLE001  # printed, and the rest is run
                failed += 1
                print(f"FAILED {name}\n{traceback.format_exc()}")
        same(server.failures, [], "the server")
    same(dict(guard.failures), {}, "what our own code has failed at")
    print(f"DSPy {dspy.__version__}: {len(cases) + 1 - failed} of {len(cases) + 1} traces are as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
