"""How a delivery can fail, by what is to be done about it."""

from __future__ import annotations

BUSY = frozenset({408, 425, 429, 502, 503, 504})
"""Answers of a server that will do better later."""

CONTENT = frozenset({400, 409, 413, 414, 422, 431})
"""Answers that blame what was sent. The other 4xx blame the address, the credential or the server's configuration."""

EXPLAINED = {
    "unauthorized": "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, "
    "to what the server accepts.",
    "forbidden": "Ask for the permission to write to the experiment, or set MLFLOW_EXPERIMENT_NAME to another.",
    "missing": "Check MLFLOW_TRACKING_URI (an MLflow server 3.4 or newer) and MLFLOW_EXPERIMENT_NAME or "
    "MLFLOW_EXPERIMENT_ID.",
    "unsuitable": "Check MLFLOW_TRACKING_URI and the proxies between here and the server.",
    "unreachable": "Start the server or check MLFLOW_TRACKING_URI.",
    "failing": "See the server's log.",
}
"""What to do, by cause."""


class Undelivered(Exception):
    """Something was not delivered.

    Attributes:
        cause: a word for the kind. Example: ``unauthorized``.
        words: what the other side said, or what happened.
        remedy: what to do.
    """

    def __init__(self, words: str, cause: str, remedy: str | None = None) -> None:
        super().__init__(words)
        self.words = " ".join(words.split())[:500]
        self.cause = cause
        self.remedy = EXPLAINED.get(cause, "") if remedy is None else remedy


class Unreachable(Undelivered):
    """It did not arrive, or was asked to come later: to be tried again for ever.

    Attributes:
        retry_after: seconds that the server asks to wait, if it does.
    """

    def __init__(self, words: str, retry_after: float | None = None, remedy: str | None = None) -> None:
        super().__init__(words, "unreachable", remedy)
        self.retry_after = retry_after


class Unwelcome(Undelivered):
    """Nothing will be taken until somebody mends what is said: to be tried again slowly."""


class Failing(Undelivered):
    """The other side broke down over it, which may be its fault or that of what was sent."""

    def __init__(self, words: str) -> None:
        super().__init__(words, "failing")


class Refused(Undelivered):
    """Something in what was sent is not acceptable: to be taken apart until it is found."""

    def __init__(self, words: str) -> None:
        super().__init__(words, "refused")


def outcome(status: int, words: str, retry_after: float | None = None) -> Undelivered:
    """Return what an answer that is not 2xx means."""
    words = f"{status}: {words}" if words else str(status)
    if status in BUSY:
        return Unreachable(words, retry_after)
    if status >= 500:
        return Failing(words)
    if status in CONTENT:
        return Refused(words)
    cause = {401: "unauthorized", 403: "forbidden", 404: "missing"}.get(status, "unsuitable")
    return Unwelcome(words, cause)


def said(uri: str, error: Undelivered) -> str:
    """Return what a person is told of something that was not delivered."""
    forms = {
        "dead": "%s refuses %s. %s",
        "spool": "the %s cannot be written: %s. %s",
        "no runs": "evaluations and compiles are not logged as runs in %s: %s. %s",
    }
    form = forms.get(error.cause, "traces for %s are not delivered: %s. %s")
    return (form % (uri, error.words.rstrip("."), error.remedy)).rstrip()
