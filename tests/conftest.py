"""What every test shares."""

import os

# DSPy asks the network for model prices when it first needs one, and waits for them. Its own list will do.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

pytest_plugins = ["tests.parts.collector", "tests.parts.lm"]
