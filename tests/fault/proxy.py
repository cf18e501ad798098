"""An HTTP proxy before a storage that breaks requests as networks and busy servers do, reproducibly by a seed."""

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

from tests.proxy import Handler, Proxy

FAULTS = ("500", "503", "silence", "reset", "lost answer", "cut upload", "cut download")
_CODES = {"500": "InternalError", "503": "SlowDown", "400": "ExpiredToken"}
SILENCE = 4.0  # seconds; clients of tests wait less long


class FaultyProxy(Proxy):
    """Passes requests on to ``upstream`` (host, port), but breaks each with its fault's chance; counts what it did."""

    def __init__(self, upstream: tuple[str, int], chances: Mapping[str, float], seed: int) -> None:
        assert set(chances) <= set(FAULTS)
        self.upstream, self.chances = upstream, dict(chances)
        self.down = False  # every connection is reset
        self.expired = False  # every request is refused, since its keys are no longer valid
        self.done: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()
        super().__init__(_Handler)

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


class _Handler(Handler):
    def handle_request(self) -> None:
        body = self.body()
        fault = "400" if self.server.proxy.expired else self.server.proxy.draw(self.command)
        if fault == "silence":
            time.sleep(SILENCE)
        if fault in ("silence", "reset"):
            return self._break()
        if fault in _CODES:
            return self._refuse(fault)
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=20)
        try:
            if fault == "cut upload":
                self.send(upstream, body[: len(body) // 2])
                return self._break()
            try:
                self.send(upstream, body)
                answer = upstream.getresponse()
                data = answer.read()
            except OSError:
                return self._break()
            if fault == "lost answer":
                return self._break()
            self._answer(answer, data, cut=fault == "cut download" and len(data) > 1)
        finally:
            upstream.close()

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, *, cut: bool) -> None:
        self.send_response(answer.status, answer.reason)
        has_length = False
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
                has_length |= name.lower() == "content-length"
        if not has_length:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.wfile.flush()
            time.sleep(0.05)  # what was sent arrives before the end does
            self._break()

    def _refuse(self, status: str) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{_CODES[status]}</Code><Message>by chance</Message></Error>".encode()
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
