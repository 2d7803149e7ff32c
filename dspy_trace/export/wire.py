"""HTTP to one server, on one connection that is kept: the standard library's, used as little as it takes.

Not `requests`: it takes a tenth of a second to import, and libraries that record, replay or instrument the program's
HTTP would record, replay and instrument ours.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import os
import ssl
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import monotonic, time
from urllib.parse import SplitResult, unquote, urlsplit

from dspy_trace import settings as names
from dspy_trace._version import __version__
from dspy_trace.export.outcomes import Unreachable
from dspy_trace.export.target import Credential
from dspy_trace.guard import ask

CONNECT = 10.0
"""Seconds to connect."""

TIMEOUT = 60.0
"""Seconds to wait for an answer: a server's first one may import for ten."""

_ANSWER = 1 << 16
"""Bytes of an answer that are read, and read at once."""

_WORTH_GZIP = 1_024

# Taken when this module is imported, so that what replaces them later, to record a test's HTTP, does not see ours.
_Plain = http.client.HTTPConnection
_Secure = http.client.HTTPSConnection


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    body: bytes
    retry_after: float | None = None
    location: str | None = None


class Wire:
    """A connection to a server, opened when needed and again when lost.

    Args:
        uri: base address of the server. Example: ``https://mlflow.example.com/team``.
        environ: the environment, for certificates and proxies.
        most: bytes of an answer that are read; a longer one counts as none.
    """

    def __init__(self, uri: str, environ: Mapping[str, str] = os.environ, most: int = _ANSWER) -> None:
        self._parts = urlsplit(uri)
        self._environ = environ
        self._most = most
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        credential: Credential | None = None,
        *,
        packed: bool = False,
    ) -> Answer:
        """Send a request and return its answer, whatever the status.

        Args:
            method: of HTTP.
            path: beneath the base address.
            body: what to send, if anything.
            headers: about it.
            credential: what opens the server.
            packed: send it packed with gzip if it is large. MLflow unpacks OTLP, and nothing else.

        Raises:
            Unreachable: there was none.
        """
        told = {"User-Agent": f"dspy-trace/{__version__}", **authorization(credential), **(headers or {})}
        if packed and body is not None and len(body) >= _WORTH_GZIP:
            # The first level: what matters is the program's processor time.
            body, told = gzip.compress(body, 1), {**told, "Content-Encoding": "gzip"}
        fresh = self._connection is None
        try:
            return self._exchange(method, path, body, told)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A server may close an idle connection just as it is used again. All that we send may be sent twice.
            if fresh or not isinstance(error, ConnectionError | http.client.BadStatusLine):
                raise _unreachable(error) from error
        try:
            return self._exchange(method, path, body, told)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _unreachable(error) from error

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        connection = self._connection or self._connect()
        self._connection = connection
        connection.request(method, self._path(path), body, dict(headers))
        response = connection.getresponse()
        content, deadline = bytearray(), monotonic() + TIMEOUT
        while len(content) < self._most and (piece := response.read1(_ANSWER)):
            content += piece
            if monotonic() > deadline:
                raise TimeoutError("the answer took too long")
        if response.length:
            raise http.client.IncompleteRead(bytes(content), response.length)
        if not response.isclosed() or response.will_close:
            self.close()
        told = response.headers
        return Answer(response.status, bytes(content), _seconds(told.get("Retry-After")), told.get("Location"))

    def _path(self, path: str) -> str:
        whole = self._parts.path.rstrip("/") + path
        if self._proxy() is not None and self._parts.scheme == "http":
            return f"http://{self._parts.netloc}{whole}"
        return whole

    def _connect(self) -> http.client.HTTPConnection:
        parts, proxy = self._parts, self._proxy()
        host, port = parts.hostname or "", parts.port
        if proxy is None:
            where, at = host, port
        else:
            where, at = proxy.hostname or "", proxy.port or 8080
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = _Secure(where, at, timeout=CONNECT, context=context(self._environ))
            if proxy is not None:
                connection.set_tunnel(host, port or 443, headers=_proxy_authorization(proxy.username, proxy.password))
        else:
            connection = _Plain(where, at, timeout=CONNECT)
        connection.connect()
        connection.sock.settimeout(TIMEOUT)
        return connection

    def _proxy(self) -> SplitResult | None:
        """Return the address of the proxy that the environment names for this server, or ``None``."""
        host = self._parts.hostname or ""
        address = urllib.request.getproxies().get(self._parts.scheme)
        if not address or urllib.request.proxy_bypass(host):
            return None
        return urlsplit(address if "://" in address else f"http://{address}")

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            ask(connection.close)


def authorization(credential: Credential | None) -> dict[str, str]:
    """Return the header that a credential makes."""
    if credential is None:
        return {}
    if credential.username and credential.password:
        return {"Authorization": _basic(credential.username, credential.password)}
    return {"Authorization": f"Bearer {credential.token}"} if credential.token else {}


def _proxy_authorization(username: str | None, password: str | None) -> dict[str, str]:
    if not username:
        return {}
    return {"Proxy-Authorization": _basic(unquote(username), unquote(password or ""))}


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return how certificates are verified: as MLflow's own client is told to, else by the system's authorities."""
    bundle = next((path for name in names.TRACKING_SERVER_CERT if (path := environ.get(name))), None)
    made = ssl.create_default_context()
    if bundle is not None:
        folder = os.path.isdir(bundle)
        made.load_verify_locations(capath=bundle if folder else None, cafile=None if folder else bundle)
    elif sys.platform == "darwin" and (found := ask(_certifi)):
        made.load_verify_locations(found)
    if environ.get(names.TRACKING_INSECURE_TLS, "").strip().lower() in ("true", "1"):
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if own := environ.get(names.TRACKING_CLIENT_CERT):
        made.load_cert_chain(own)
    return made


def _certifi() -> str:
    """Return the file of authorities that Python on macOS lacks, if the package that has it is there."""
    import certifi

    return certifi.where()


def _seconds(value: str | None) -> float | None:
    """Return how long ``Retry-After`` asks to wait, which is given in seconds or as a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    moment = ask(parsedate_to_datetime, value)
    return None if moment is None else max(moment.timestamp() - time(), 0.0)


def _unreachable(error: Exception) -> Unreachable:
    if isinstance(error, ssl.SSLError):
        remedy = "Set MLFLOW_TRACKING_SERVER_CERT_PATH to the authority that signed the server's certificate."
        return Unreachable(str(error), remedy=remedy)
    return Unreachable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
