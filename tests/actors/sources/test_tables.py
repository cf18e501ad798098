"""Recordings named in tables: Common Voice, LJSpeech, metadata.csv; and Kaldi's data folders."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.audio import decode, encode
from gristmill.actors.sources.reading import SourceFile
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.shards import store
from gristmill.shards.errors import UserError
from tests.actors.sources.made import tone, write

RATE = 8000


def rows(url: Path, **options: Any) -> list[dict[str, Any]]:
    return pa.concat_tables(list_sources(str(url), **options)).to_pylist()


def loaded(url: Path) -> list[dict[str, Any]]:
    (table,) = list_sources(str(url))
    probed = Probe(ProbeSettings())(table)
    assert probed["reject_reason"].null_count == len(probed)
    return Load(LoadSettings(sampling_rate=RATE))(probed.drop_columns(["reject_reason"])).to_pylist()


def test_common_voice(tmp_path: Path) -> None:
    tone(tmp_path / "en/clips/a.mp3")
    head = "client_id\tpath\tsentence\tup_votes\tlocale\n"
    write(tmp_path / "en/train.tsv", head + 'x\ta.mp3\tHe said "no\t2\ten\nx\ttorn\ny\tgone.mp3\t\t2\ten\n')
    first, torn, empty = rows(tmp_path / "en")
    assert (first["id"], first["url"]) == ("en/a.mp3", str(tmp_path / "en/clips/a.mp3"))
    assert (first["text"], first["speaker"], first["lang"]) == ('He said "no', "x", "en")
    assert (torn["id"], torn["problem"]) == ("en/train.tsv#line3", "malformed manifest line")
    assert (empty["text"], empty["url"]) == (None, str(tmp_path / "en/clips/gone.mp3"))
    write(tmp_path / "en/test.tsv", head)
    with pytest.raises(UserError, match=r"holds several tables \(test\.tsv, train\.tsv\); name one of them"):
        rows(tmp_path / "en")
    assert len(rows(tmp_path / "en/train.tsv")) == 3


def test_ljspeech(tmp_path: Path) -> None:
    tone(tmp_path / "lj/wavs/LJ001-0001.wav")
    write(tmp_path / "lj/metadata.csv", 'LJ001-0001|Printing, "in 1455|Printing, "in fourteen fifty-five\n')
    (row,) = loaded(tmp_path / "lj")
    assert (row["id"], row["text"]) == ("lj/LJ001-0001.wav", 'Printing, "in fourteen fifty-five')


def test_tables_with_a_header(tmp_path: Path) -> None:
    tone(tmp_path / "c/data/a.wav")
    tone(tmp_path / "c/data/b.wav")
    write(tmp_path / "c/metadata.csv", 'file_name,transcription,Mood\ndata/a.wav,"well, yes",glad\n"data/b.wav","no"\n')
    first, torn = rows(tmp_path / "c")
    assert (first["text"], first["extra"]) == ("well, yes", '{"Mood": "glad"}')
    assert torn["problem"] == "malformed manifest line"
    write(tmp_path / "c/own.csv", "Path;said\ndata/a.wav;yes\n")
    assert rows(tmp_path / "c/own.csv", fields={"text": "said"})[0]["text"] == "yes"
    with pytest.raises(UserError, match="no column of audio in its first line, 'one,two'; expected audio_filepath or"):
        rows(write(tmp_path / "c/other.csv", "one,two\n"))


def test_metadata_of_each_split(tmp_path: Path) -> None:
    for split, text in (("train", "one"), ("test", "two")):
        tone(tmp_path / f"hf/{split}/a.wav")
        write(tmp_path / f"hf/{split}/metadata.jsonl", f'{{"file_name": "a.wav", "text": "{text}"}}\n')
    assert [(row["id"], row["text"]) for row in rows(tmp_path / "hf")] == [
        ("hf/test/a.wav", "two"),
        ("hf/train/a.wav", "one"),
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("folder", ["hf", "hf/data"])
def test_metadata_of_each_split_is_of_any_form(tmp_path: Path, form: str, folder: str) -> None:
    for split, text in (("train", "one"), ("test", "two")):
        tone(tmp_path / folder / split / "a.wav")
        file = tmp_path / folder / split / f"metadata.{form}"
        if form == "parquet":
            pq.write_table(pa.table({"file_name": ["a.wav"], "text": [text]}), file)
        else:
            line = json.dumps({"file_name": "a.wav", "text": text})
            write(file, line if form == "jsonl" else f"file_name,text\na.wav,{text}\n")
    found = loaded(tmp_path / "hf")
    assert [row["text"] for row in found] == ["two", "one"]
    begin = "/".join([folder, "test", ""])
    assert found[0]["id"] == begin + ("a.wav" if form != "parquet" else "metadata.parquet#00000000")


def test_metadata_of_parquet_beside_its_audio(tmp_path: Path) -> None:
    tone(tmp_path / "c/audio/a.wav")
    pq.write_table(pa.table({"file_name": ["audio/a.wav"], "text": ["one"]}), tmp_path / "c/metadata.parquet")
    assert [row["text"] for row in loaded(tmp_path / "c")] == ["one"]


def test_labels_that_are_not_read_are_told(tmp_path: Path) -> None:
    tone(tmp_path / "c/a/b/c/x.wav")
    write(tmp_path / "c/a/b/c/metadata.csv", "file_name,text\nx.wav,one\n")
    write(tmp_path / "c/a/config.json", "{}")
    told: list[str] = []
    assert [row["id"] for row in rows(tmp_path / "c", say=told.append)] == ["c/a/b/c/x.wav"]
    said = "labels that are not read: a/b/c/metadata.csv; name such a file to read it"
    assert told == [f"{tmp_path}/c: {said}"]
    write(tmp_path / "d/train/metadata.jsonl", '{"file_name": "x.wav", "text": "one"}\n')
    write(tmp_path / "d/test/metadata.csv", "file_name,text\nx.wav,one\n")
    assert [row["id"] for row in rows(tmp_path / "d", say=told.append)] == ["d/train/x.wav"]
    assert "not read: test/metadata.csv;" in told[-1]


def test_a_compressed_manifest(tmp_path: Path) -> None:
    tone(tmp_path / "c/a.wav")
    with gzip.open(tmp_path / "c/manifest.jsonl.gz", "wt") as file:
        file.write('{"audio_filepath": "a.wav", "text": "one"}\n')
    for place in ("c", "c/manifest.jsonl.gz"):
        assert [(row["id"], row["text"]) for row in loaded(tmp_path / place)] == [("c/a.wav", "one")]


def test_kaldi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tone(tmp_path / "s5/download/a.wav", 2.0)
    data = tmp_path / "s5/data/train"
    write(data / "wav.scp", f"a download/a.wav\nb sph2pipe -f wav x.sph |\nc {tmp_path}/x.ark:17\nd\n")
    write(data / "text", "a hello there\nb two\n")
    write(data / "utt2spk", "a ann\nb bob\n")
    monkeypatch.chdir(tmp_path)
    found = rows(data)
    assert found == rows(data / "wav.scp", corpus="train")
    assert [(row["id"], row["problem"]) for row in found] == [
        ("train/a", None),
        ("train/wav.scp#line2", "audio not in a file"),
        ("train/wav.scp#line3", "audio not in a file"),
        ("train/wav.scp#line4", "malformed manifest line"),
    ]
    first = found[0]
    assert (first["url"], first["text"], first["speaker"]) == (
        str(tmp_path / "s5/download/a.wav"),
        "hello there",
        "ann",
    )
    (data / "wav.scp").write_bytes(b"torn\n\xff x.wav\na download/a.wav\n")  # the first lines, too, cost themselves
    assert [row["problem"] for row in rows(data)] == ["malformed manifest line", "not UTF-8", None]
    write(data / "segments", "a-1 a 0.5 1.25\na-2 a 1.5 -1\na-3 gone 0 1\na-4 a 1 1\n")
    write(data / "text", "a-1 first\na-2 second\n")
    cut = rows(data)
    assert [(row["start"], row["length"], row["problem"]) for row in cut] == [
        (0.5, 0.75, None),
        (1.5, None, None),
        (None, None, "missing"),
        (None, None, "malformed manifest line"),
    ]
    write(data / "segments", "a-1 a 0.5 1.25\na-2 a 1.5 -1\n")
    assert [(row["text"], row["duration"]) for row in loaded(data)] == [("first", 0.75), ("second", 0.5)]


def test_labels_of_kaldi_are_read_beside_its_utterances_or_held_if_they_are_not_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    names = sorted(f"{n}" for n in range(300))  # as LC_ALL=C sorts them: 0 1 10 100 101 ...
    write(data / "wav.scp", "".join(f"{name} /a/{name}.wav\n" for name in names))
    said = {name: f"text of {name}" for name in names if not name.endswith("7")} | {"5x": "of none"}
    write(data / "text", "".join(f"{name} {text}\n" for name, text in sorted(said.items())))
    wanted = [(f"c/{name}", said.get(name)) for name in names]
    monkeypatch.setattr("gristmill.actors.sources.kaldi._TABLE_BYTES", 100)
    assert [(row["id"], row["text"]) for row in rows(data, corpus="c")] == wanted, "nothing is held"
    write(data / "text", "".join(f"{name} {text}\n" for name, text in reversed(said.items())))
    with pytest.raises(UserError, match="sorted as by LC_ALL=C sort"):
        rows(data, corpus="c")
    monkeypatch.undo()
    assert [(row["id"], row["text"]) for row in rows(data, corpus="c")] == wanted
    write(data / "wav.scp", "".join(f"{name} /a/{name}.wav\n" for name in reversed(names)))
    write(data / "text", "".join(f"{name} {text}\n" for name, text in sorted(said.items())))
    assert [(row["id"], row["text"]) for row in rows(data, corpus="c")] == wanted[::-1]


def test_a_key_of_kaldi_that_comes_again_keeps_the_first_label(tmp_path: Path) -> None:
    write(tmp_path / "wav.scp", "u1 /a/a.wav\nu1 /a/b.wav\n")
    write(tmp_path / "text", "u1 one\nu1 two\n")
    assert [(row["text"], row["problem"]) for row in rows(tmp_path)] == [("one", None), (None, "duplicate")]


def test_a_segment_of_kaldi_may_name_its_channel(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 2.0)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", np.stack([samples, samples / 4], 1), rate)
    write(tmp_path / "wav.scp", "a a.wav\n")
    write(tmp_path / "segments", "a-0 a 0.5 1.25 0\na-1 a 0.5 1.25 1\na-2 a 0.5 1.25 -1\n")
    write(tmp_path / "text", "a-0 one\na-1 two\na-2 three\n")
    peaks = [np.abs(decode(row["audio"]["bytes"])[0]).max() for row in loaded(tmp_path)]
    top = np.abs(samples).max()
    assert peaks == pytest.approx([top, top / 4, top * 5 / 8], rel=0.05)
    write(tmp_path / "segments", "a-0 a 0.5 1.25 0\na-1 a 0.5 1.25 2\na-2 a 0.5 1.25 x\n")
    (probed,) = map(Probe(ProbeSettings()), list_sources(str(tmp_path)))
    assert probed["reject_reason"].to_pylist() == [None, "no such channel", "malformed manifest line"]


@pytest.mark.parametrize("form", ["parquet", "saved", "parquet beside dataset_info.json"])
def test_numbers_of_classes_become_their_names(tmp_path: Path, form: str) -> None:
    datasets = pytest.importorskip("datasets")
    tone(tmp_path / "a.flac")
    said = datasets.Value("string")
    label = datasets.ClassLabel(names=["ann", "bob"])
    audio = {"bytes": datasets.Value("binary"), "path": said}
    features = datasets.Features(
        {"audio": audio, "text": said, "speaker": label, "intent": label, "count": datasets.Value("int64")}
    )
    audio_rows = [{"bytes": (tmp_path / "a.flac").read_bytes(), "path": None}] * 4
    columns = {
        "audio": audio_rows,
        "text": list("abcd"),
        "speaker": [1, 0, -1, None],
        "intent": [0, 1, 0, 1],
        "count": [1] * 4,
    }
    made = datasets.Dataset.from_dict(columns, features=features)
    folder = tmp_path / "set"
    if form == "saved":
        made.save_to_disk(folder)
    else:
        folder.mkdir()
        made.to_parquet(folder / "a.parquet")
    if "beside" in form:
        table = pq.read_table(folder / "a.parquet").replace_schema_metadata(None)
        pq.write_table(table, folder / "a.parquet")
        write(folder / "dataset_info.json", json.dumps({"features": features.to_dict()}))
    (table,) = list_sources(str(folder))
    found = Probe(ProbeSettings())(table).to_pylist()
    assert [row["speaker"] for row in found] == ["bob", "ann", None, None]
    assert [json.loads(row["extra"]) for row in found] == [{"intent": name, "count": 1} for name in ("ann", "bob") * 2]


@pytest.mark.parametrize("form", ["stream", "file"])
def test_a_set_that_datasets_saved_to_disk(tmp_path: Path, form: str) -> None:
    tone(tmp_path / "a.flac")
    data = (tmp_path / "a.flac").read_bytes()
    table = pa.table({"audio": [{"bytes": data, "path": None}] * 5, "text": ["a", "b", "c", "d", "e"], "n": range(5)})
    for split in ("train", "test"):
        folder = tmp_path / "set" / split
        folder.mkdir(parents=True)
        write(folder / "state.json", "{}")
        for name in ("data-00000-of-00001.arrow", "cache-1.arrow"):
            make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
            with make(str(folder / name), table.schema) as out:
                out.write_table(table, max_chunksize=2)
    found = rows(tmp_path / "set")
    assert [row["id"] for row in found[:2]] == [f"set/test/data-00000-of-00001.arrow#0000000{n}" for n in (0, 1)]
    assert [row["text"] for row in loaded(tmp_path / "set")] == list("abcde") * 2
    whole = (folder / "data-00000-of-00001.arrow").read_bytes()
    (folder / "data-00000-of-00001.arrow").write_bytes(whole[: len(whole) // 2])
    kinds = [(row["kind"], row["problem"]) for row in rows(tmp_path / "set")]
    assert ("unlisted", "unreadable") in kinds
    assert kinds.count(("row", None)) == 5


@pytest.mark.parametrize("form", ["stream", "file"])
def test_listing_of_arrow_files_elsewhere_reads_no_audio(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (9, 4 * RATE)).astype(np.float32)
    table = pa.table(
        {
            "audio": [{"bytes": encode(samples, RATE), "path": None} for samples in noise],
            "text": list("abcdefghi"),
            "speaker": pa.chunked_array(
                [pa.array(part).dictionary_encode() for part in (["x"] * 4, ["y", "z"], ["x"] * 3)]
            ),
        }
    )
    out = io.BytesIO()
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(out, (table := table.unify_dictionaries() if form == "file" else table).schema) as written:
        written.write_table(table, max_chunksize=2)
    url = f"memory://arrow-{form}/a.arrow"
    store.write_bytes(url, out.getvalue())
    taken = []
    read = SourceFile._at
    monkeypatch.setattr(SourceFile, "_at", lambda file, place, count: taken.append(count) or read(file, place, count))
    (listed,) = list_sources(url)
    assert sum(taken) < 20_000 < len(out.getvalue()) / 10
    taken.clear()
    probed = Probe(ProbeSettings())(listed)
    assert sum(taken) < 1.1 * len(out.getvalue()), "a batch is read once, for its audio and its labels"
    assert [(row["text"], row["speaker"]) for row in probed.to_pylist()] == list(
        zip("abcdefghi", "xxxxyzxxx", strict=True)
    )
    found = Load(LoadSettings(sampling_rate=RATE))(probed.drop_columns(["reject_reason"]))
    assert [
        np.abs(decode(row["bytes"])[0] - samples).max() < 1e-3
        for row, samples in zip(found["audio"].to_pylist(), noise, strict=True)
    ] == [True] * 9


def test_a_tarred_set_of_nemo(tmp_path: Path) -> None:
    for number in (0, 1):
        with tarfile.open(tmp_path / f"audio_{number}.tar", "w") as tar:
            for name in "ab":
                tone(tmp_path / "x.wav", 0.5 + number)
                tar.add(tmp_path / "x.wav", f"{name}{number}.wav")
    (tmp_path / "x.wav").unlink()
    lines = [
        {
            "audio_filepath": f"{name}{number}.wav",
            "duration": 0.5 + number,
            "text": f"{name} {number}",
            "shard_id": number,
        }
        for number in (0, 1, 2)
        for name in "ab"
    ] + [{"audio_filepath": "c0.wav", "shard_id": 0}]
    write(tmp_path / "tarred_audio_manifest.json", "".join(json.dumps(line) + "\n" for line in lines))
    found = rows(tmp_path)
    assert [row["problem"] for row in found] == [None] * 4 + ["missing"] * 3
    write(tmp_path / "tarred_audio_manifest.json", "".join(json.dumps(line) + "\n" for line in lines[:4]))
    assert [(row["text"], row["duration"]) for row in loaded(tmp_path)] == [
        ("a 0", 0.5),
        ("b 0", 0.5),
        ("a 1", 1.5),
        ("b 1", 1.5),
    ]
    (tmp_path / "tarred_audio_manifest.json").unlink()
    for number in (0, 1):
        shard = "".join(json.dumps(line) + "\n" for line in lines if line["shard_id"] == number and "text" in line)
        write(tmp_path / f"sharded_manifests/manifest_{number}.json", shard)
    for place in ("", "sharded_manifests", "sharded_manifests/manifest_*.json"):
        assert [row["text"] for row in loaded(tmp_path / place)] == ["a 0", "b 0", "a 1", "b 1"]
