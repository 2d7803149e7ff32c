"""What stands in for a call that is not observed."""

from __future__ import annotations

from typing import Final, TypeVar

T = TypeVar("T")


class Unobserved:
    """Stands in for a call that is not observed."""

    def __enter__(self) -> Unobserved:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def returned(self, result: T) -> T:
        return result


UNOBSERVED: Final = Unobserved()
