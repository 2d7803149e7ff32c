"""What settings say, read from words and numbers."""

from __future__ import annotations

from typing import Any


def ratio(argument: Any) -> float:
    """Return the share of a compile's rollouts to trace, where a number says so; all of them for a bool.

    Raises:
        TypeError: it is no number.
        ValueError: it is no share.
    """
    wanted = "log_traces_from_compile must be a bool or a share from 0.0 to 1.0"
    if not isinstance(argument, int | float):
        raise TypeError(f"{wanted}, not {type(argument).__name__}")
    if not 0.0 <= argument <= 1.0:
        raise ValueError(f"{wanted}, not {argument!r}")
    return argument if isinstance(argument, float) else 1.0


def switch(word: str | None, default: bool) -> bool:
    """Return what a word of the environment switches, `default` where it is none of those that do."""
    told = (word or "").strip().lower()
    return told in ("true", "on", "1") if told in ("true", "on", "1", "false", "off", "0") else default


def words(text: str) -> list[str]:
    """Return the words of a list with commas."""
    return [word.strip().lower() for word in text.split(",") if word.strip()]
