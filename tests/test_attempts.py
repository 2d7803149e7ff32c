"""BestOfN and Refine: each attempt's reward is told, and the function that gives it is left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import cloudpickle
import dspy
import pytest

from dspy_trace.testing import Recording, record
from tests.balanced import balanced
from tests.parts.scripted_answers import fill, output_fields
from tests.parts.scripted_lm import ScriptedLM

MODULES = [dspy.BestOfN, dspy.Refine]


def rewards(*given: Any) -> Callable[..., Any]:
    """Return a reward function that gives these, one after the other, or raises them."""
    left = list(given)

    def reward(inputs: dict[str, Any], prediction: dspy.Prediction) -> Any:
        reward = left.pop(0)
        if isinstance(reward, Exception):
            raise reward
        return reward

    return reward


def told(trace: Recording, name: str) -> list[tuple[Any, Any]]:
    events = [event for event in trace.one(f"invoke_workflow {name}").events if event.name == "dspy.attempt"]
    keys = ("dspy.attempt.index", "dspy.attempt.reward")
    return [tuple((event.attributes or {}).get(key) for key in keys) for event in events]  # type: ignore[misc]


def reward_first(inputs: dict[str, Any], prediction: dspy.Prediction) -> float:
    return 1.0


@pytest.mark.parametrize("cls", MODULES, ids=lambda cls: cls.__name__)
def test_rewards_are_told(cls: Any, scripted_lm: ScriptedLM) -> None:
    """One event per attempt; the answer, the requests and the number of attempts are those without tracing."""
    seen = []
    for traced in (False, True):
        scripted_lm.answer = lambda body: fill(body, **({"advice": {}} if "advice" in output_fields(body) else {}))
        before = len(scripted_lm.requests)
        module = cls(dspy.Predict("question -> answer"), 3, rewards(0.2, 0, 0.9, 1.0), 0.9)
        with dspy.context(lm=scripted_lm.lm()):
            if traced:
                with balanced() as trace:
                    result = module(question="?")
            else:
                result = module(question="?")
        seen.append((result.toDict(), [request.body for request in scripted_lm.requests[before:]]))
    assert seen[0] == seen[1]
    assert told(trace, cls.__name__) == [(0, 0.2), (1, 0.0), (2, 0.9)]


def test_an_attempt_that_fails_has_no_reward(scripted_lm: ScriptedLM, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither one whose reward function raises; what DSPy makes of that is its own affair. No number is no reward."""
    given = rewards(ValueError("none"), "much", True, float("nan"))
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.BestOfN(dspy.Predict("question -> answer"), 4, given, 2.0, fail_count=4)(question="?")
    assert told(trace, "BestOfN") == [(0, None), (1, 1.0), (2, None)]
    assert "Attempt 1 failed with rollout id 0: none" in capsys.readouterr().out


class Mine(dspy.BestOfN):
    """A subclass that calls the function itself."""

    def forward(self, **inputs: Any) -> Any:
        prediction = self.module(**inputs)
        return dspy.Prediction(reward=self.reward_fn(inputs, prediction))


def test_attempts_of_attempts(scripted_lm: ScriptedLM) -> None:
    """Each reward is told where it was given, inside another one and in a subclass as well."""
    inner = Mine(dspy.Predict("question -> answer"), 1, rewards(0.5), 1.0)
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        dspy.BestOfN(inner, 1, rewards(0.25), 1.0)(question="?")
    assert trace.tree("dspy.attempt.reward") == dedent("""
        invoke_workflow BestOfN
          * dspy.attempt
          Mine
            * dspy.attempt
            Predict
              chat gpt-4o-mini
    """)
    assert told(trace, "BestOfN") == [(0, 0.25)]


@pytest.mark.parametrize("cls", MODULES, ids=lambda cls: cls.__name__)
def test_the_function_is_left_alone(cls: Any) -> None:
    """Whoever asks an object for its function gets it, also while tracing; it can be set, deleted, and copied."""
    before = cls(dspy.Predict("question -> answer"), 1, reward_first, 1.0)
    held, state = before.reward_fn, dict(vars(before))
    with record():
        assert before.reward_fn is held
        assert vars(before) == state
        assert not hasattr(cls, "reward_fn")
        made = cls(dspy.Predict("question -> answer"), 1, reward_first, 1.0)
        made.reward_fn = reward_first
        assert made.reward_fn is vars(made)["reward_fn"] is reward_first
        assert copy.copy(made).reward_fn is made.deepcopy().reward_fn is reward_first
        assert cloudpickle.loads(cloudpickle.dumps(made)).reward_fn is not None
        del made.reward_fn
        with pytest.raises(AttributeError, match="reward_fn"):
            made.reward_fn  # noqa: B018
        with pytest.raises(AttributeError, match="reward_fn"):
            del made.reward_fn
    assert "reward_fn" not in vars(cls)
    assert before.reward_fn is held


class Chooser(dspy.Module):
    """Takes the reward function of one of its modules for another."""

    def __init__(self) -> None:
        super().__init__()
        self.best = dspy.BestOfN(dspy.Predict("question -> answer"), N=1, reward_fn=reward_first, threshold=0.0)

    def forward(self, question: str) -> Any:
        other = dspy.Refine(self.best.module, N=1, reward_fn=self.best.reward_fn, threshold=0.0)
        return self.best.reward_fn, other.reward_fn_code, self.best(question=question)


def test_another_forward_is_given_the_function_itself(scripted_lm: ScriptedLM) -> None:
    """Where a program hands the function on, what `Refine` shows to the LM is the program's source, and not ours."""
    program = Chooser()
    with balanced() as trace, dspy.context(lm=scripted_lm.lm()):
        given, source, _ = program(question="?")
    assert given is vars(program.best)["reward_fn"]
    assert "reward_fn(*args)" in source
    assert [event.name for event in trace.one("BestOfN best").events] == ["dspy.attempt"]
