"""Presigned URLs of object storages: told by their path, of which nothing but the named file may be asked for."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources.lists import ListFile
from gristmill.actors.sources.requests import list_requests
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.text import PAIR_SIDES, Wanted, list_texts
from gristmill.actors.speech.ingest import Probe, ProbeSettings
from tests.actors.sources.test_other_tools import WAV

SIGNED = "?X-Amz-Credential=a/b/c&X-Amz-Signature=s.csv"


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("a.wav")
        info.size = len(WAV)
        tar.addfile(info, io.BytesIO(WAV))
    return out.getvalue()


def _parquet(**columns: list[Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _cut(place: str) -> dict[str, Any]:
    recording = {"sources": [{"type": "url", "channels": [0], "source": place}], "sampling_rate": 8000, "duration": 0.5}
    return {"type": "MonoCut", "id": "c", "start": 0, "duration": 0.5, "recording": recording}


FILES: dict[str, bytes] = {
    "a.wav": WAV,
    "a.tar": _tar(),
    "a.parquet": _parquet(audio=[{"bytes": WAV, "path": None}]),
    "t.parquet": _parquet(en=["on"], hi=["चालू"]),
    "t.tsv": "en\thi\non\tचालू\n".encode(),
    "t.csv": 'en,hi\n"on,\nnow",चालू\n'.encode(),
    "r.csv": b'answerid;scenario;intent;answer_annotation\n7;alarm;set;"wake\nme"\n',
    "r.jsonl": json.dumps({"text": "stop", "domain": "m", "intent": "x", "slots": []}).encode(),
    "l.jsonl": json.dumps({"id": "u", "hypotheses": []}).encode(),
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that knows whole presigned URLs only, as object storages do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlparse(self.path)
            data = FILES.get(url.path.removeprefix("/set/")) if f"?{url.query}" == SIGNED else None
            begin, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            part = None if data is None else data[int(begin or 0) : int(end) + 1 if end else None]
            self.send_response(403 if part is None else 206 if begin else 200)
            if begin and data is not None:
                self.send_header("Content-Range", f"bytes {begin}-{end or len(data) - 1}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part or b"")

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{served.server_port}/set"
    FILES["m.jsonl"] = json.dumps({"audio_filepath": f"{url}/a.wav{SIGNED}"}).encode() + b"\n{\n"
    FILES["table.tsv"] = f"path\tsentence\n{url}/a.wav{SIGNED}\tone\ntorn\n".encode()
    FILES["cuts.jsonl"] = json.dumps(_cut(f"{url}/a.wav{SIGNED}")).encode() + b"\n{\n"
    yield url
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize("name", ["a.wav", "a.tar", "a.parquet", "m.jsonl", "table.tsv", "cuts.jsonl"])
def test_speech(server: str, name: str) -> None:
    (table,) = list_sources(f"{server}/{name}{SIGNED}", corpus="c")
    rows = Probe(ProbeSettings())(table).to_pylist()
    assert rows[0]["reject_reason"] is None
    assert [row["reject_reason"] for row in rows[1:]] == ["malformed manifest line"] * (
        name in ("m.jsonl", "table.tsv", "cuts.jsonl")
    )
    assert not [row["id"] for row in rows if "X-Amz" in row["id"]], "a signature is no part of an id"


@pytest.mark.parametrize("name", ["t.parquet", "t.tsv", "t.csv"])
def test_texts(server: str, name: str) -> None:
    (table,) = list_texts(f"{server}/{name}{SIGNED}", "c", Wanted(PAIR_SIDES, ("en", "hi"), (None, None)))
    assert len(table) == 1
    assert table["id"][0].as_py().startswith(f"c/{name}#")


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_requests_and_lists(server: str, name: str) -> None:
    (table,) = list_requests(f"{server}/{name}{SIGNED}", "c")
    assert table["problem"].to_pylist() == [None]
    assert table["id"][0].as_py().startswith(f"c/{name}#")
    (lists,) = ListFile(f"{server}/l.jsonl{SIGNED}").tables()
    assert lists["id"].to_pylist() == ["u"]
