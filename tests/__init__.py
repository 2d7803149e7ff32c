"""The tests of dspy-trace, one file per behaviour."""
