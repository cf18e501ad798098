"""An HTTP proxy before a storage that breaks requests in the ways networks and busy servers do, by a seed."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("500", "503", "silence", "reset", "lost answer", "cut upload", "cut download")
SILENCE = 4.0  # seconds; clients of tests wait less long


class FaultyProxy:
    """Passes requests on to ``upstream`` (host, port), but breaks each with its fault's chance; counts what it did.

    The signatures of requests cover the host's name, so it is passed on as it came.
    """

    def __init__(self, upstream: tuple[str, int], chances: Mapping[str, float], seed: int) -> None:
        assert set(chances) <= set(FAULTS)
        self.upstream, self.chances = upstream, dict(chances)
        self.down = False  # every connection is reset
        self.done: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def draw(self, method: str) -> str:
        """Return the fault of the next request; ``""`` lets it pass."""
        with self._lock:
            value = self._random.random()
            fault = "reset" if self.down else ""
            for name, chance in self.chances.items():
                value -= chance
                if not fault and value < 0:
                    fault = name
            if (fault == "cut upload" and method != "PUT") or (fault == "cut download" and method != "GET"):
                fault = ""
            self.done[fault or "passed"] += 1
            return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultyProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here all the time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self._body()
        fault = self.server.proxy.draw(self.command)
        if fault == "silence":
            time.sleep(SILENCE)
        if fault in ("silence", "reset"):
            return self._break()
        if fault in ("500", "503"):
            return self._refuse(fault)
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=20)
        try:
            if fault == "cut upload":
                self._send(upstream, body[: len(body) // 2])
                return self._break()
            try:
                self._send(upstream, body)
                answer = upstream.getresponse()
                data = answer.read()
            except OSError:
                return self._break()
            if fault == "lost answer":
                return self._break()
            self._answer(answer, data, cut=fault == "cut download" and len(data) > 1)
        finally:
            upstream.close()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _body(self) -> bytes:
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

    def _send(self, upstream: http.client.HTTPConnection, body: bytes) -> None:
        """Send the request with the headers it came with: they tell of the whole body, cut or not."""
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                upstream.putheader(name, value)
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        upstream.send(body)

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, *, cut: bool) -> None:
        self.send_response(answer.status, answer.reason)
        told = False
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
                told |= name.lower() == "content-length"
        if not told:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            time.sleep(0.05)  # what was sent arrives before the end does
            self._break()

    def _refuse(self, status: str) -> None:
        code = {"500": "InternalError", "503": "SlowDown"}[status]
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by chance</Message></Error>".encode()
        self.send_response(int(status))
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _break(self) -> None:
        """End the connection by a reset."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
