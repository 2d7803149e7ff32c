"""What our spans say of how agents and attempts went, with an example of each."""

from typing import Final

AGENT_ITERATIONS: Final = "dspy.agent.iterations"
"""Steps that an agent made; absent where it failed. Example: ``3``."""

AGENT_TERMINATION: Final = "dspy.agent.termination_reason"
"""Why an agent ended: ``finish``, ``submit``, ``forced_submit``, ``max_iters``, or ``step_failed`` where a step could
not be made. Example: ``finish``."""

EVENT_ATTEMPT: Final = "dspy.attempt"
"""Event on ``BestOfN`` and ``Refine``: an attempt was given its reward. Example attributes: ``dspy.attempt.index``,
``dspy.attempt.reward``."""

ATTEMPT_INDEX: Final = "dspy.attempt.index"
"""Number of the attempt among those with a reward, from 0; one that fails has none. Example: ``1``."""

ATTEMPT_REWARD: Final = "dspy.attempt.reward"
"""What the reward function gave, if it is a number. Example: ``0.8``."""
