"""A proxy before an S3 server that counts requests by operation, whatever process or library they come from."""

from __future__ import annotations

import http.client
from collections import Counter
from urllib.parse import parse_qs, unquote, urlsplit

from tests.proxy import Handler, Proxy


class CountingProxy(Proxy):
    """Passes requests on to ``upstream`` (host:port) and keeps their names."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.requests: list[tuple[str, str]] = []  # operation, key (of listings: prefix)
        super().__init__(_Handler)

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


class _Handler(Handler):
    def handle_request(self) -> None:
        body = self.body()
        self.server.proxy.requests.append(operation(self.command, self.path))
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            self.send(upstream, body)
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
