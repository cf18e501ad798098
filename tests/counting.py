"""A proxy before an S3 server that counts requests by operation, whatever process or library they come from."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class CountingProxy:
    """Passes requests on to ``upstream`` (host:port), with the host's name as it came: signatures cover it."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.requests: list[tuple[str, str]] = []  # operation, key (of listings: prefix)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def counts(self, start: int = 0) -> Counter[str]:
        """Return how many requests of each operation came, but for those of the lease: time makes them, not work."""
        return Counter(operation for operation, key in self.requests[start:] if "/.lease" not in f"/{key}")


def operation(method: str, path: str) -> tuple[str, str]:
    """Return the S3 operation of a request, and the key."""
    url = urlsplit(path)
    query = parse_qs(url.query, keep_blank_values=True)
    key = unquote(url.path).strip("/").partition("/")[2]
    if method == "GET" and not key:
        return ("ListObjects" if "list-type" in query else "GetBucket"), query.get("prefix", [""])[0]
    if method == "HEAD":
        return ("HeadObject" if key else "HeadBucket"), key
    if method == "POST":
        named = {"delete": "DeleteObjects", "uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload"}
        return next(name for mark, name in named.items() if mark in query), key
    if "uploadId" in query:
        return ("UploadPart" if method == "PUT" else "AbortMultipartUpload"), key
    return f"{method.capitalize()}{'Object' if key else 'Bucket'}", key


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: CountingProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed breaks its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self._body()
        self.server.proxy.requests.append(operation(self.command, self.path))
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.putheader("Connection", "close")
            upstream.endheaders()
            upstream.send(body)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)

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
