"""What it costs to look for secrets in a text: microseconds by its size, while so many are known to the process.

Ordinary text, without a secret in it: JSON, as content is searched before it is recorded, and text, as an exception's
or a line of a log. The best of several rounds is printed::

    uv run python -m benchmarks.secrets
    uv run python -m benchmarks.secrets --known 100
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Callable
from timeit import repeat

from dspy_trace import secrets

SIZES = (100, 300, 1_000, 4_000, 16_000, 64_000)

TEXT = (
    "the quick brown fox jumps over lazy dog Paris is capital of France [[ ## answer ## ]] In 1998, by Larry Page. "
    "it's well-known that e.g. a_name of #1 (see below) costs $3.50: 'so much'"
)
WORDS = TEXT.split()


def known(count: int) -> list[str]:
    """Return secrets of all kinds: keys, hexadecimal and in Base64, passphrases, and passwords with signs."""
    source = random.Random(1)
    alphabet = string.ascii_letters + string.digits
    kinds: list[Callable[[], str]] = [
        lambda: "".join(source.choices(alphabet, k=source.randint(14, 48))),
        lambda: "sk-proj-" + "".join(source.choices(alphabet, k=48)),
        lambda: "".join(source.choices("0123456789abcdef", k=32)),
        lambda: "-".join(source.choices(WORDS[:9], k=4)) + source.choice(string.digits),
        lambda: "".join(source.choices(string.ascii_lowercase + "@/:!%&", k=16)),
    ]
    return [kinds[number % len(kinds)]() for number in range(count)]


def text(size: int) -> str:
    """Return ordinary text of that many characters."""
    source = random.Random(size)
    return " ".join(source.choices(WORDS, k=size))[:size]


def microseconds(function: Callable[[str], object], argument: str, rounds: int) -> float:
    """Return how long one call takes."""
    calls = max(10, 400_000 // (len(argument) + 400))
    return min(repeat(lambda: function(argument), number=calls, repeat=rounds)) / calls * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--known", type=int, default=30, help="how many secrets the process knows (default: 30)")
    parser.add_argument("--rounds", type=int, default=7, help="how often everything is measured (default: 7)")
    asked = parser.parse_args()
    for secret in known(asked.known):
        secrets.learn(secret, "the benchmark")
    print(f"{'characters':>10} {'JSON':>12} {'a KB':>8} {'text':>12} {'a KB':>8}")
    for size in SIZES:
        plain = text(size)
        content = json.dumps({"messages": [{"role": "user", "content": plain}]})
        searches = (secrets.scrub_json, content), (secrets.scrub_text, plain)
        figures = [microseconds(search, given, asked.rounds) for search, given in searches]
        told = " ".join(f"{took:>9.1f} us {took / size * 1_000:>8.2f}" for took in figures)
        print(f"{size:>10,} {told}")


if __name__ == "__main__":
    main()
