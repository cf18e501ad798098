"""Listing: every kind of corpus becomes pointers, and faults are reported."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.sources.pointers import declared, read_label, resolve
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings
from gristmill.shards.errors import RejectRecord, UserError
from tests.actors.sources.made import rows, tone, write_tar


def test_a_folder_is_walked_in_order_with_its_transcripts(tmp_path: Path) -> None:
    tone(tmp_path / "corpus/b/two.wav")
    tone(tmp_path / "corpus/a/one.FLAC")
    tone(tmp_path / "corpus/a/.hidden.wav")
    (tmp_path / "corpus/b/two.txt").write_text("two")
    (tmp_path / "corpus/b/notes.md").write_text("no audio")
    tone(tmp_path / "corpus/19/198/19-198-0000.flac")
    (tmp_path / "corpus/19/198/19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n")
    (tmp_path / "corpus/c").mkdir()
    (tmp_path / "corpus/c/song.m4a").write_bytes(b"counted, though it cannot be decoded")
    found = rows(tmp_path / "corpus")
    ids = ["corpus/19/198/19-198-0000.flac", "corpus/a/one.FLAC", "corpus/b/two.wav", "corpus/c/song.m4a"]
    assert [row["id"] for row in found] == ids
    assert (found[0]["text"], found[0]["speaker"]) == ("NORTHANGER ABBEY", "19")
    assert json.loads(found[2]["labels"])["text"]["url"].endswith("corpus/b/two.txt")
    assert found[1]["size"] == (tmp_path / "corpus/a/one.FLAC").stat().st_size


def test_a_pattern_keeps_the_transcripts_beside_it(tmp_path: Path) -> None:
    tone(tmp_path / "x/a.wav")
    tone(tmp_path / "x/b.flac")
    (tmp_path / "x/b.txt").write_text("b")
    found = rows(f"{tmp_path}/x/*.flac")
    assert [row["id"] for row in found] == ["x/b.flac"]
    assert found[0]["labels"] is not None


def test_one_file_is_a_corpus_too(tmp_path: Path) -> None:
    assert [row["url"] for row in rows(tone(tmp_path / "a.wav"))] == [str(tmp_path / "a.wav")]


def test_files_that_no_decoder_reads_are_listed(tmp_path: Path) -> None:
    """They become rejects; a video is left out where its sound lies beside it."""
    for name in ("a.ts", "b.flv", "c.AC3", "d.mpg", "e.m4v", "f.txt"):
        (tmp_path / name).write_bytes(b"x")
    tone(tmp_path / "d.wav")
    names = [row["id"].partition("/")[2] for row in rows(tmp_path)]
    assert names == ["a.ts", "b.flv", "c.AC3", "d.wav", "e.m4v"]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tone(tmp_path / "c/a.wav")
    (tmp_path / "c/manifest.jsonl").write_text('{"audio_filepath": "a.wav"}\n')
    monkeypatch.chdir(tmp_path)
    assert rows("c")[0]["url"] == str(tmp_path / "c/a.wav")


def test_a_manifest_line_becomes_a_pointer_or_a_bad_row(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"audio_filepath": "a.flac", "duration": 1.5, "text": " hello ", "speaker": 7, "intent": "x"}',
        b'{"audio_filepath": "/elsewhere/b.wav", "sample_rate": 8000, "lang": "en"}',
        b'{"audio_filepath": "s3://bucket/c.wav", "offset": 2.0, "duration": 1.0}',
        b'{"audio_filepath": "s3://bucket/c.wav", "offset": 3.0, "duration": 1.0}',
        b"",
        b"{not json",
        b'{"text": "no audio"}',
        b'{"audio_filepath": "d.wav", "duration": "long"}',
        b'{"audio_filepath": "d.wav", "duration": NaN}',
        b'{"audio_filepath": "a.flac"}',
        b'\xff\xfe{"audio_filepath"',
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/manifest.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    found = rows(tmp_path / "mine")
    assert found == rows(tmp_path / "mine/manifest.jsonl")
    first = found[0]
    assert first["id"] == "mine/a.flac"
    assert first["url"] == str(tmp_path / "mine/a.flac")
    assert (first["text"], first["speaker"], first["declared_duration"]) == ("hello", "7", 1.5)
    assert json.loads(first["extra"]) == {"intent": "x"}
    assert (found[1]["url"], found[1]["declared_rate"], found[1]["lang"]) == ("/elsewhere/b.wav", 8000, "en")
    assert found[2]["id"] == "mine/s3/bucket/c.wav@2.000-3.000"
    assert (found[3]["start"], found[3]["length"]) == (3.0, 1.0)
    bad = {row["id"]: row["problem"] for row in found if row["kind"] == "bad"}
    malformed = {f"mine/manifest.jsonl#line{n}": "malformed manifest line" for n in (6, 7, 8)}
    others = {"mine/manifest.jsonl#line10": "duplicate", "mine/manifest.jsonl#line11": "not UTF-8"}
    assert bad == malformed | others


@pytest.mark.parametrize(
    ("folder", "path", "url"),
    [
        ("/a/b", "c/d.wav", "/a/b/c/d.wav"),
        ("/a/b", "../d.wav", "/a/d.wav"),
        ("s3://bucket/b", "../d.wav", "s3://bucket/d.wav"),
        ("s3://bucket/b", "/d.wav", "/d.wav"),
        ("/a", "https://host/d.wav", "https://host/d.wav"),
    ],
)
def test_paths_are_relative_to_the_manifest(folder: str, path: str, url: str) -> None:
    assert resolve(folder, path) == url


def test_other_field_names_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"clip": "a.wav", "said": "yes", "text": "no"}\n')
    found = rows(tmp_path / "m.jsonl", fields={"audio": "clip", "text": "said"}, corpus="mine")
    assert (found[0]["id"], found[0]["text"]) == ("mine/a.wav", "yes")


def test_parquet_with_audio_structs_bytes_or_paths(tmp_path: Path) -> None:
    audio = [{"bytes": b"1", "path": None}] * 5
    table = pa.table({"audio": audio, "sentence": list("abcde"), "tags": [["x"]] * 5})
    (tmp_path / "set/data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "set/data/train-0.parquet", row_group_size=2)
    pq.write_table(table.slice(0, 1), tmp_path / "set/data/train-1.parquet")
    found = rows(tmp_path / "set")
    assert [(row["row_group"], row["row"]) for row in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (0, 0)]
    assert found[4]["id"] == "set/data/train-0.parquet#00000004"
    assert json.loads(found[0]["labels"]) == {"columns": ["sentence"]}
    pq.write_table(pa.table({"wav": [b"1"]}), tmp_path / "bytes.parquet")
    assert rows(tmp_path / "bytes.parquet")[0]["member"] == "wav"
    pq.write_table(pa.table({"clip": ["a.wav"]}), tmp_path / "paths.parquet")
    assert rows(tmp_path / "paths.parquet", fields={"audio": "clip"})[0]["member"] == "clip"
    with pytest.raises(UserError, match=r"paths\.parquet: no audio column among \['clip'\]"):
        list_sources(str(tmp_path / "paths.parquet"))


def test_transcripts_of_other_encodings_are_told_as_such(tmp_path: Path) -> None:
    for name in ("1-2-0", "1-2-1", "1-2-2"):
        tone(tmp_path / f"lib/{name}.wav")
    (tmp_path / "lib/1-2.trans.txt").write_bytes(b"\xef\xbb\xbf1-2-0 with mark\n1-2-1 caf\xe9\n1-2-2 caf\xc3\xa9\n")
    assert [(row["text"], row["problem"]) for row in rows(tmp_path / "lib")] == [
        ("with mark", None),
        (None, "text: other encoding"),
        ("café", None),
    ]
    (tmp_path / "lib/1-2.trans.txt").write_text("1-2-0 wide\n", encoding="utf-16")
    assert [row["problem"] for row in rows(tmp_path / "lib") if row["kind"] == "unlisted"] == ["other encoding"]
    for data in ("café".encode("latin-1"), "hi".encode("utf-16"), "hello".encode("utf-16-le")):
        (tmp_path / "one.txt").write_bytes(data)
        with pytest.raises(RejectRecord, match="text: other encoding"):
            read_label(str(tmp_path / "one.txt"))


def test_texts_in_the_manner_of_timit(tmp_path: Path) -> None:
    tone(tmp_path / "SA1.WAV")
    samples = soundfile.info(tmp_path / "SA1.WAV").frames
    for text, found in (
        (f"0 {samples} She had your dark suit.", "She had your dark suit."),
        (f"0 {samples + 9} 7 suits", "7 suits"),
        ("0 1234 is the code", "0 1234 is the code"),  # no length of it
    ):
        (tmp_path / "SA1.TXT").write_text(text + "\n")
        (row,) = Probe(ProbeSettings())(pa.concat_tables(list_sources(str(tmp_path)))).to_pylist()
        assert row["text"] == found


def test_a_folder_with_a_manifest_of_nemo_is_that_manifest(tmp_path: Path) -> None:
    tone(tmp_path / "c/wavs/a.wav")
    tone(tmp_path / "c/wavs/b.wav")
    (tmp_path / "c/train_manifest.json").write_text('{"audio_filepath": "wavs/a.wav", "text": "hello"}\n')
    (tmp_path / "c/config.json").write_text("{}")
    assert [(row["id"], row["text"]) for row in rows(tmp_path / "c")] == [("c/wavs/a.wav", "hello")]


def test_columns_of_other_tools_are_read_and_others_are_told(tmp_path: Path) -> None:
    audio = pa.array([{"bytes": b"1", "path": None}] * 2)
    table = pa.table(
        {
            "audio": audio,
            "text": pa.array(["one", "two"]).dictionary_encode(),
            "speaker": pa.array(["ann", "bob"], pa.string_view()),
            "day": pa.array([0, 1], pa.date32()),
            "vector": pa.array([[1.0], [2.0]]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    told: list[str] = []
    found = rows(tmp_path / "a.parquet", say=told.append)
    assert json.loads(found[0]["labels"]) == {"columns": ["text", "speaker", "day"]}
    assert told == [f"{tmp_path}: columns that are not read: vector (list<element: double>)"]
    pq.write_table(pa.table({"wav": pa.array([b"1"], pa.binary_view())}), tmp_path / "b.parquet")
    assert rows(tmp_path / "b.parquet")[0]["member"] == "wav"


def test_nothing_in_a_column_of_numbers_is_nothing() -> None:
    found = declared({"text": float("nan"), "speaker_id": 7.0, "duration": float("nan"), "x": 1.5}, None)
    assert (found["text"], found["speaker"], found["declared_duration"]) == (None, "7", None)


def test_tables_are_small_and_cover_all(tmp_path: Path) -> None:
    text = "".join(json.dumps({"audio_filepath": f"{i}.wav"}) + "\n" for i in range(25))
    (tmp_path / "m.jsonl").write_text(text)
    assert [len(t) for t in list_sources(str(tmp_path / "m.jsonl"), rows=10)] == [10, 10, 5]


def test_object_storage_lists_alike(tmp_path: Path) -> None:
    tone(tmp_path / "c/a/x.flac")
    (tmp_path / "c/a/x.txt").write_text("x")
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "c"), "/listing/c", recursive=True)
    try:
        here, there = rows(tmp_path / "c"), rows("memory://listing/c")
        assert [r["id"] for r in here] == [r["id"] for r in there] == ["c/a/x.flac"]
        assert there[0]["url"].startswith("memory://")
    finally:
        fs.rm("/listing", recursive=True)


@pytest.mark.parametrize(
    ("files", "url", "message"),
    [
        ({}, "gone", "gone: no such file or folder; expected a folder of audio"),
        ({"c/readme.md": b"x"}, "c", "c: no audio found"),
        ({"c/m.jsonl": b""}, "c/m.jsonl", "holds no record"),
        ({"c/m.jsonl": b"a,b\n1,2\n"}, "c/m.jsonl", "not a JSONL manifest; expected one JSON object per line"),
        ({"c/m.json": b"[\n{}\n]"}, "c/m.json", "not a JSONL manifest"),
        ({"c/train.jsonl": b"{}", "c/test.jsonl": b"{}"}, "c", "holds several manifests"),
        ({"c/a.wav": b""}, "c/*.flac", "no audio matches this pattern"),
    ],
)
def test_urls_without_a_corpus_are_reported_in_a_sentence(
    tmp_path: Path, files: dict[str, bytes], url: str, message: str
) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        list_sources(str(tmp_path / url))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_options_are_said(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    with pytest.raises(UserError, match="unknown kind"):
        list_sources(str(tmp_path), kind="wavs")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="sound is not a field"):
        list_sources(str(tmp_path), fields={"sound": "x"})


@pytest.mark.parametrize("storage", ["local", "memory"])
def test_the_version_of_a_row_follows_the_files_it_is_made_from(tmp_path: Path, storage: str) -> None:
    tone(tmp_path / "c/a.wav")
    tone(tmp_path / "c/b.wav")
    (tmp_path / "c/a.txt").write_text("aa")
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "c/a.wav"}\n')
    pq.write_table(pa.table({"audio": [b"1"]}), tmp_path / "p.parquet")
    write_tar(tmp_path / "t.tar", {"a.wav": b"1"})
    memory = fsspec.filesystem("memory")
    if storage == "memory":
        memory.put(str(tmp_path), "/versions", recursive=True)
    root = str(tmp_path) if storage == "local" else "memory://versions"

    def versions() -> list[str]:
        return [row["version"] for name in ("c", "m.jsonl", "p.parquet", "t.tar") for row in rows(f"{root}/{name}")]

    def write_anew(name: str) -> None:
        if storage == "memory":
            memory.pipe_file(f"/versions/{name}", memory.cat_file(f"/versions/{name}"))
        else:
            stat = (tmp_path / name).stat()
            os.utime(tmp_path / name, (stat.st_atime, stat.st_mtime + 10))

    try:
        before = versions()
        assert versions() == before
        for name, changed in [("c/a.txt", 0), ("c/a.wav", 0), ("c/b.wav", 1), ("m.jsonl", 2), ("p.parquet", 3)]:
            write_anew(name)
            after = versions()
            assert [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [changed]
            before = after
        write_anew("t.tar")
        assert versions()[:4] == before[:4]
        assert versions()[4] != before[4]
    finally:
        if storage == "memory":
            memory.rm("/versions", recursive=True)


def test_values_of_any_type_in_a_manifest_cost_their_line(tmp_path: Path) -> None:
    values = ["9" * 400, "9" * 5000, "1e999", "[" * 900 + "]" * 900, '"\\ud800"', "{}"]
    lines = [
        f'{{"audio_filepath": "{n}.wav", "{key}": {value}}}'
        for key in ("duration", "offset", "text")
        for n, value in enumerate(values)
    ]
    lines += ['{"audio_filepath": "\\ud800.wav"}', '{"audio_filepath": "good.wav"}']
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    found = rows(tmp_path / "m.jsonl")
    assert len(found) == len(lines)
    assert [row["id"] for row in found if row["kind"] == "file"][-1] == "m/good.wav"
    assert {row["problem"] for row in found if row["kind"] == "bad"} >= {"malformed manifest line", "not UTF-8"}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    pq.write_table(pa.table({"audio": [b"1"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").symlink_to(tmp_path / "gone")
    assert [(row["kind"], row["problem"]) for row in rows(tmp_path)] == [
        ("unlisted", "unreadable"),
        ("row", None),
        ("unlisted", "missing"),
    ]


def test_linked_folders_are_walked_and_circles_are_not(tmp_path: Path) -> None:
    tone(tmp_path / "elsewhere/sub/a.wav")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "c")
    assert [row["id"] for row in rows(tmp_path / "c")] == ["c/linked/sub/a.wav"]


def test_a_name_that_is_not_utf8_costs_its_file(tmp_path: Path) -> None:
    tone(tmp_path / "c/b.wav")
    Path(os.fsdecode(os.fsencode(tmp_path / "c") + b"/caf\xe9.wav")).write_bytes((tmp_path / "c/b.wav").read_bytes())
    (tmp_path / "c/b.txt").write_text("one")
    assert [(row["id"], row["kind"], row["problem"]) for row in rows(tmp_path / "c")] == [
        ("c/b.wav", "file", None),
        ("c/caf\\udce9.wav", "bad", "not UTF-8"),
    ]
