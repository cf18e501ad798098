"""A proxy before an S3 server, by which tests see or break its requests."""

from __future__ import annotations

import abc
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Proxy:
    """Listens on loopback, each request handled by ``handler``, which finds the proxy as ``self.server.proxy``."""

    def __init__(self, handler: type[Handler]) -> None:
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: Any

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here all the time: clients are killed, and faults are made."""


class Handler(BaseHTTPRequestHandler, abc.ABC):
    """Handles all methods by :meth:`handle_request`, with what is needed to pass a request on as it came."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_request()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    @abc.abstractmethod
    def handle_request(self) -> None:
        """Answer one request."""

    def body(self) -> bytes:
        """Return the request's body as it came; a chunked one with its chunks' heads."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        raw = b""
        while True:
            head = self.rfile.readline()
            size = int(head.partition(b";")[0], 16)
            raw += head + self.rfile.read(size + 2)
            if size == 0:
                return raw

    def send(self, upstream: http.client.HTTPConnection, body: bytes) -> None:
        """Send the request with the headers it came with: they tell of the host and the whole body."""
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                upstream.putheader(name, value)
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        upstream.send(body)
