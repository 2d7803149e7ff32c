"""Lists as numbered keys, within the number of attributes that a span may have.

OpenInference has a key for each field of each message. How many there is room for is known once all else of the span
is: until then a list is one value, under the prefix of its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspy_trace.vocab import Attributes


class Numbered(list[dict[str, Any]]):
    """The items of a list, each by what comes behind its number.

    Args:
        items: the items.
        note: makes an item that tells how many of the oldest are left out, which for messages stands first. Without it
            the last are left out, and nothing is said.
    """

    __slots__ = ("note",)

    def __init__(self, items: Iterable[dict[str, Any]], note: Any = None) -> None:
        super().__init__(items)
        self.note = note

    def fitting(self, room: int) -> list[dict[str, Any]]:
        """Return the items that `room` keys are enough for: whole ones, the newest where they are messages."""
        if sum(map(len, self)) <= room:
            return self
        if self.note is None:
            return self[: _count(self, room)]
        kept = _count(reversed(self), room - len(self.note(len(self))))
        left_out = self.note(len(self) - kept)
        return [left_out, *self[len(self) - kept :]] if len(left_out) <= room else []


def _count(items: Iterable[Mapping[str, Any]], room: int) -> int:
    """Return how many of `items` fit, one after the other."""
    count = 0
    for item in items:
        room -= len(item)
        if room < 0:
            break
        count += 1
    return count


def spell(attributes: Attributes, most: int, order: Iterable[str]) -> None:
    """Turn what is numbered in `attributes` into keys, `most` in all, in that order as long as there is room.

    Args:
        attributes: changed in place.
        most: how many attributes there may be in the end.
        order: prefixes of what may be numbered, that which is wanted most first.
    """
    lists = {key: value for key in order if type(value := attributes.get(key)) is Numbered}
    for key in lists:
        del attributes[key]
    room = most - len(attributes)
    for key, items in lists.items():
        for index, item in enumerate(items.fitting(room)):
            room -= len(item)
            for name, value in item.items():
                attributes[f"{key}.{index}.{name}"] = value
