"""What can be wrong with a program, a model folder or an input. Each message says what to do."""

from __future__ import annotations


class FlavorError(ValueError):
    """Something that the caller can mend."""


class CannotSave(FlavorError):
    """A program cannot be saved as asked; nothing has been written.

    Attributes:
        where: path of the attribute that is in the way, such as ``program.search.client``.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class SecretFound(CannotSave):
    """A file that was about to be saved holds a secret."""


class CannotLoad(FlavorError):
    """A model folder is damaged, changed, too new, or needs what is not installed. Nothing of it has been executed."""


class BadInput(FlavorError):
    """An input does not fit the program."""
