"""The commands of `dspy-trace`, a file for each kind. What they need is imported when they run: `--help` is quick."""
