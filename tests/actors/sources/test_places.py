"""An entry of a corpus opens no place of another kind than the corpus itself."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.sources.places import is_foreign
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings

REASON = "place of another kind"


def sound() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(np.arange(8000) * 0.1), 16000, format="WAV")
    return out.getvalue()


@pytest.fixture
def served() -> Iterator[tuple[str, list[str]]]:
    """A web server that gives sound under any path, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = sound()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def probed(url: Path, *elsewhere: str) -> dict[str, str | None]:
    """Return the reject reasons of a corpus, by id."""
    found: dict[str, str | None] = {}
    for table in list_sources(str(url), elsewhere=elsewhere):
        rows = Probe(ProbeSettings(elsewhere=elsewhere))(table).to_pylist()
        found |= {row["id"].partition("/")[2]: row["reject_reason"] for row in rows}
    return found


def cut(place: str) -> dict[str, Any]:
    source = {"type": "url", "channels": [0], "source": place}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 8000, "duration": 0.5}
    return {"type": "MonoCut", "id": place, "start": 0, "duration": 0.5, "channel": 0, "recording": recording}


def write(form: str, folder: Path, places: list[str]) -> Path:
    """Write a corpus that names places."""
    if form == "parquet":
        pq.write_table(pa.table({"audio": places}), folder / "c.parquet")
        return folder / "c.parquet"
    lines = [{"audio_filepath": place} if form == "manifest" else cut(place) for place in places]
    name = folder / ("m.jsonl" if form == "manifest" else "cuts.jsonl")
    name.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


@pytest.mark.parametrize("form", ["manifest", "lhotse", "parquet"])
def test_entries_open_what_is_of_their_own_kind_alone(form: str, tmp_path: Path, served: tuple[str, list[str]]) -> None:
    server, asked = served
    (tmp_path / "a.wav").write_bytes(sound())
    (tmp_path / "c.wav").write_bytes(sound())
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/b.wav").write_bytes(sound())
    own = ["b.wav", str(tmp_path / "a.wav"), f"file://{tmp_path}/c.wav"]
    other = [
        f"{server}/x.wav",
        f"simplecache::{server}/x.wav",
        f"reference://{server}/x.wav",
        f"b.wav::{server}/x.wav",
        "memory://x.wav",
        "s3://bucket/x.wav",
        "github://me:repo@main/x.wav",
        "zip://x.wav::/data/x.zip",
        "nonsense://x.wav",
    ]
    reasons = list(probed(write(form, tmp_path / "lists", own + other)).values())
    assert reasons == [None] * len(own) + [REASON] * len(other)
    assert asked == []


@pytest.mark.parametrize("form", ["manifest", "lhotse", "parquet"])
def test_other_places_are_listed(form: str, tmp_path: Path, served: tuple[str, list[str]]) -> None:
    server, asked = served
    entries = [f"{server}/mine/x.wav", f"{server}/mine2/x.wav", f"{server}/mine/../x.wav", f"{server}/y.wav"]
    reasons = list(probed(write(form, tmp_path, entries), f"{server}/mine/").values())
    assert reasons == [None, REASON, REASON, REASON]
    assert set(asked) == {"/mine/x.wav"}


@pytest.mark.parametrize(
    ("url", "home", "foreign"),
    [
        ("s3://b/x", "s3://a/m.jsonl", False),
        ("s3a://b/x", "s3://a/m.jsonl", False),
        ("/etc/x.wav", "s3://a/m.jsonl", True),
        ("file:///etc/x.wav", "s3://a/m.jsonl", True),
        ("local:///x.wav", "/m.jsonl", False),
        ("simplecache::s3://b/x", "simplecache::s3://a/m.jsonl", False),
        ("s3://b/a::http://h/x", "s3://a/m.jsonl", True),
        ("file:///a::http://h/x", "/m.jsonl", True),
        ("/a::b.wav", "/m.jsonl", False),
        ("https://a.org/x", "https://a.org/m.jsonl", False),
        ("https://a.org:81/x", "https://a.org/m.jsonl", True),
        ("http://169.254.169.254/x", "https://a.org/m.jsonl", True),
    ],
)
def test_the_kinds_of_places(url: str, home: str, foreign: bool) -> None:
    assert is_foreign(url, home) is foreign


def test_a_file_with_a_double_colon_in_its_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a::b.wav").write_bytes(sound())
    (tmp_path / "a").write_bytes(b"another")
    assert list(probed(tmp_path).items()) == [("a::b.wav", None)]


def test_presigned_urls_are_told_by_their_path(tmp_path: Path, served: tuple[str, list[str]]) -> None:
    server, asked = served
    signed = f"{server}/speech/a.wav?X-Amz-Date=1&X-Amz-Signature=abc"
    (table,) = list_sources(signed)
    assert table["id"].to_pylist() == ["a.wav/a.wav"]
    assert Probe(ProbeSettings())(table)["reject_reason"].to_pylist() == [None]
    assert asked
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": signed}) + "\n")
    assert probed(tmp_path / "m.jsonl", server) == {"a.wav": None}
