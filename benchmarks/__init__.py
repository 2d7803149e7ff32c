"""Benchmarks. Each is a command: ``uv run python benchmarks/NAME.py --help``."""
