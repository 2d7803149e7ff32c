"""What runs in an environment with another DSPy. No tests of its own."""
