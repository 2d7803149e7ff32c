"""Where traces go: a tracking URI of MLflow's and an experiment in it, apart from the credential that opens it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from dspy_trace import settings as names
from dspy_trace.guard import ask
from dspy_trace.secrets import learn, learn_url

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""The databases that MLflow keeps its store in, by the first part of the scheme."""

DEFAULT_FILE = "mlflow.db"
"""MLflow's own default, in the working folder."""

_SECRET = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)
# As SQLAlchemy finds it, but to the last @: a password that holds one unquoted is a mistake, and still a secret.
_USER_INFO = re.compile(r"^[^:/]*(:.*)?@", re.DOTALL)
_SECRET_VALUE = re.compile(r"(password|pwd)\s*=", re.IGNORECASE)


class BadTarget(ValueError):
    """A tracking URI that traces cannot be kept in; the message says what to use instead."""


@dataclass(frozen=True, slots=True)
class Target:
    """An experiment in a tracking server or database. Holds no credential: it stands in the spool and in messages.

    Attributes:
        uri: absolute tracking URI without user-info. Example: ``sqlite:////home/me/mlflow.db``.
        experiment_id: MLflow's id of the experiment, if that is what is known.
        experiment_name: its name, if that is what is known. Neither of both is MLflow's default experiment.
    """

    uri: str
    experiment_id: str | None = None
    experiment_name: str | None = None

    @property
    def kind(self) -> Literal["http", "database"]:
        """How it is reached: ``http`` by a thread of the program, ``database`` by the worker process."""
        return kind(self.uri)

    @property
    def experiment(self) -> str:
        """What to call the experiment in a message."""
        return self.experiment_name or f"id {self.experiment_id or '0'}"


@dataclass(frozen=True, slots=True)
class Credential:
    """What opens a target. Never stored, logged or put on a command line.

    Attributes:
        username: of HTTP basic authentication.
        password: of the same.
        token: bearer token.
        uri: tracking URI of a database, with everything that was taken out of the target's.
    """

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    uri: str | None = field(default=None, repr=False)


def kind(uri: str) -> Literal["http", "database"]:
    """Return how a target's URI is reached."""
    return "http" if uri.startswith(("http://", "https://")) else "database"


def working_folder() -> str:
    """Return the working folder.

    Raises:
        BadTarget: it is gone.
    """
    try:
        return os.getcwd()
    except OSError:
        raise BadTarget("the working folder is gone; set MLFLOW_TRACKING_URI to a server or an absolute path") from None


def target(
    uri: str | None,
    experiment: str | None,
    environ: Mapping[str, str] = os.environ,
    folder: Callable[[], str] = working_folder,
) -> tuple[Target, Credential | None]:
    """Return where a trace that starts now goes, and what opens it.

    Args:
        uri: tracking URI; by default ``MLFLOW_TRACKING_URI``, else ``sqlite:///mlflow.db`` in the working folder.
        experiment: name, or id if it is all digits; by default ``MLFLOW_EXPERIMENT_ID``, which
            ``mlflow.set_experiment`` writes, else ``MLFLOW_EXPERIMENT_NAME``, else MLflow's default experiment.
        environ: the environment.
        folder: gives the working folder.

    Raises:
        BadTarget: traces cannot be kept there.
    """
    asked = (uri, experiment, *_values(environ))
    answer = _known.get(asked)
    if answer is _RELATIVE:
        asked = (*asked, folder())
        answer = _known.get(asked)
    if answer is None:
        answer = _resolve(asked)
    if isinstance(answer, str):
        raise BadTarget(answer)
    return cast("tuple[Target, Credential | None]", answer)


_NAMES = (names.TRACKING_URI, names.EXPERIMENT_ID, names.EXPERIMENT_NAME, *names.TRACKING_CREDENTIALS)
_RAW_NAMES = tuple(name.encode() for name in _NAMES)
_RELATIVE: Any = object()
_known: dict[tuple[Any, ...], Any] = {}
"""Answers by what was asked: a target with its credential, the text of a refusal, or that the folder matters."""


def _values(environ: Mapping[str, str]) -> Iterable[Any]:
    """Return what decides, as quickly as can be; the values are only compared until there is no answer for them.

    ``os.environ`` encodes and decodes at each access, and raises inside for what is not set: a microsecond each. The
    dictionary behind it is private; where it is gone, the slow way does.
    """
    raw = getattr(environ, "_data", None)
    if environ is os.environ and type(raw) is dict and os.name == "posix":
        return map(raw.get, _RAW_NAMES)
    return map(environ.get, _NAMES)


def _resolve(asked: tuple[Any, ...]) -> Any:
    if len(_known) > 1_000:
        _known.clear()
    uri, experiment, env_uri, env_id, env_name, *secrets, folder = (*map(_text, asked), None)[: len(_NAMES) + 3]
    uri = uri or env_uri
    if folder is None and _is_relative(uri):
        _known[asked] = _RELATIVE
        asked = (*asked, folder := working_folder())
    for secret in secrets[1:]:
        learn(secret, "the tracking store's environment")
    learn_url(uri, "tracking URI")
    try:
        where, credential = _where(uri, folder or "", *secrets)
    except BadTarget as refused:
        answer: Any = str(refused)
    else:
        answer = (replace(where, **_experiment(experiment, env_id, env_name)), credential)
    _known[asked] = answer
    return answer


def _text(value: Any) -> str | None:
    return os.fsdecode(value).strip() or None if value is not None else None


def _is_relative(uri: str | None) -> bool:
    if uri is None:
        return True
    if not uri.startswith("sqlite"):
        return False
    return not os.path.isabs(_sqlite_path(uri))


def _sqlite_path(uri: str) -> str:
    """Return the path of a SQLite URI as it is spelled."""
    return uri.partition("://")[2].removeprefix("/").partition("?")[0]


def _experiment(argument: str | None, env_id: str | None, env_name: str | None) -> dict[str, str]:
    if argument is not None:
        return {"experiment_id" if argument.isdecimal() else "experiment_name": argument}
    if env_id is not None:
        return {"experiment_id": env_id}
    return {"experiment_name": env_name} if env_name is not None else {}


def _where(
    uri: str | None, folder: str, username: str | None, password: str | None, token: str | None
) -> tuple[Target, Credential | None]:
    if uri is None:
        # Spelled as MLflow spells its default, so that both mean the same file.
        return Target("sqlite:///" + quote(os.path.join(folder, DEFAULT_FILE))), None
    scheme = uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return _server(uri, username, password, token)
    if scheme.partition("+")[0] in DATABASES and "://" in uri:
        return _sqlite(uri, folder) if scheme.startswith("sqlite") else _database(uri)
    if scheme == "databricks":
        return Target(uri), None
    if scheme == "file" or "://" not in uri:
        raise BadTarget(
            f"{without_secrets(uri)!r} is a folder, and traces are only kept in a database or on a server. "
            "Use MLFLOW_TRACKING_URI=sqlite:///mlflow.db"
        )
    raise BadTarget(
        f"{without_secrets(uri)!r} is no tracking URI that traces can be sent to. "
        "Use http(s)://, sqlite:///, postgresql://, mysql:// or mssql://"
    )


def _server(
    uri: str, username: str | None, password: str | None, token: str | None
) -> tuple[Target, Credential | None]:
    parts = urlsplit(uri)
    info, _, host = parts.netloc.rpartition("@")
    if not parts.hostname or ask(lambda: parts.port, default=-1) == -1:
        raise BadTarget(f"{without_secrets(uri)!r} names no host. Use http://127.0.0.1:5000, with any password quoted")
    where = Target(urlunsplit((parts.scheme.lower(), host, parts.path.rstrip("/"), "", "")))
    if info:
        name, _, secret = info.partition(":")
        return where, Credential(unquote(name), unquote(secret))
    if username and password:
        return where, Credential(username, password)
    return where, Credential(token=token) if token else None


def _sqlite(uri: str, folder: str) -> tuple[Target, None]:
    path = _sqlite_path(uri)
    query = uri.partition("?")[2]
    if not path or ":memory:" in path or "mode=memory" in query:
        raise BadTarget(
            "a database in memory is seen by no other process, so that nobody could read the traces. "
            "Use MLFLOW_TRACKING_URI=sqlite:///mlflow.db"
        )
    if not os.path.isabs(path):
        path = os.path.normpath(os.path.join(folder.replace("%", "%25").replace("?", "%3F"), path))
    return Target(f"{uri.partition('://')[0]}:///{path}" + (f"?{query}" if query else "")), None


def _database(uri: str) -> tuple[Target, Credential | None]:
    bare = without_secrets(uri)
    return Target(bare), Credential(uri=uri) if bare != uri else None


def without_secrets(uri: str) -> str:
    """Return a URI without user-info and without parameters that hold a secret."""
    head, mark, rest = uri.partition("://")
    if not mark:
        return uri
    netloc, slash, path = _USER_INFO.sub("", rest, count=1).partition("/")
    path, _, query = path.partition("?")
    kept = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True) if not _tells(key, value)]
    if len(kept) != len(parse_qsl(query, keep_blank_values=True)):
        query = urlencode(kept)
    return head + mark + netloc + slash + path + (f"?{query}" if query else "")


def _tells(key: str, value: str) -> bool:
    return bool(_SECRET.search(key) or _SECRET_VALUE.search(value))
