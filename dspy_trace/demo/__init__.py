"""What `dspy-trace demo` runs: a small real DSPy program, and the small real LM that it asks."""
