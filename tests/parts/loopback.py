"""What servers on loopback have in common: they listen at once, and when they are closed every connection is cut."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """A server that runs on threads of its own until it is stopped.

    Args:
        handler: what answers.
        port: where it listens; 0 is any that is free.
        failures: gets what a handler raises, but for connections that break; ``None`` if nobody wants to know.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, handler: type[Handler], port: int = 0, failures: list[BaseException] | None = None) -> None:
        self._failures = failures
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if self._failures is not None and error is not None and not isinstance(error, ConnectionError):
            self._failures.append(error)


class Handler(BaseHTTPRequestHandler):
    """Keeps connections, sends at once, and says nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def body(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def lower_headers(self) -> dict[str, str]:
        """Return its headers; their names are in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
