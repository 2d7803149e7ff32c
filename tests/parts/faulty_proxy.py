"""A proxy on loopback that fails as it is told, in front of any tracking server.

proxy = FaultyProxy(server.url)
proxy.fault = lambda number, path, size: Do("answer", status=503)
proxy.close()  # down
proxy.open()  # up again, on the same port
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.parts.loopback import Handler, LoopbackServer


@dataclass(frozen=True)
class Do:
    """What to do with a request instead of passing it on.

    Attributes:
        what: ``answer`` it here; ``reset`` the connection; send ``garbage``; pass it on, and send ``half`` an answer.
        status: of an answer from here.
        body: of the same.
        headers: of the same.
        delay: seconds to wait before an answer, wherever it comes from.
    """

    what: Literal["pass", "answer", "reset", "garbage", "half"] = "pass"
    status: int = 503
    body: bytes = b"no"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


class FaultyProxy:
    """A running proxy; close it when done.

    Args:
        upstream: address of the server behind it.
    """

    def __init__(self, upstream: str) -> None:
        self.fault: Callable[[int, str, int], Do | None] = lambda number, path, size: None
        """Gets a request's number, path and size; returns what to do, ``None`` to pass it on."""
        self.authorization: str | None = None
        """What requests must carry; others get a 401."""
        parts = urlsplit(upstream)
        self.upstream = parts.hostname or "", parts.port or 80
        self.requests = 0
        self._lock = threading.Lock()
        self._port = 0
        self._server: _Server | None = None
        self.open()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._server = _Server(self, self._port)
        self._port = self._server.server_port

    def close(self) -> None:
        """Stop listening and cut every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def what(self, path: str, size: int) -> Do:
        """Return what to do with a request. For the handler."""
        with self._lock:
            self.requests += 1
            return self.fault(self.requests, path, size) or Do()


class _Server(LoopbackServer):
    def __init__(self, proxy: FaultyProxy, port: int) -> None:
        self.proxy = proxy
        super().__init__(_Handler, port)


class _Handler(Handler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        body = self.body()
        do = self.server.proxy.what(self.path, len(body))
        if self.server.proxy.authorization not in (None, self.headers.get("Authorization")):
            do = Do("answer", 401)
        if do.what == "reset":
            # Closing with this option sends a reset instead of the usual end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if do.what == "garbage":
            self.wfile.write(b"\x00\xff\x17this is no HTTP\r\n\r\n")
            self.close_connection = True
            return
        if do.what == "answer":
            status, headers, answer = do.status, do.headers, do.body
        else:
            status, headers, answer = self._passed_on(body)
        if do.delay:
            threading.Event().wait(do.delay)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer) + (10 if do.what == "half" else 0)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.close_connection or do.what == "half"

    do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

    def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert isinstance(self.server, _Server)
        host, port = self.server.proxy.upstream
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            connection.request(self.command, self.path, body, kept)
            answer = connection.getresponse()
            told = answer.read()
            return answer.status, {"Content-Type": answer.getheader("Content-Type") or "text/plain"}, told
        finally:
            connection.close()
