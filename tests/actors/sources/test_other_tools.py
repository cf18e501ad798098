"""What other tools write: read as it is meant, or refused in a sentence that says what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.sources.requests import list_requests
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, Wanted, list_texts
from gristmill.actors.speech.ingest import Probe, ProbeSettings
from gristmill.shards.errors import UserError
from tests.actors.sources.made import write

PAIRS, TEXTS = Wanted(PAIR_SIDES, ("en", "hi"), (None, None)), Wanted(TEXT_SIDES, ("en",), (None,))


def _wav() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(np.arange(4000) * 0.1), 8000, format="WAV")
    return out.getvalue()


WAV = _wav()


def speech(url: Path) -> list[dict[str, Any]]:
    (table,) = list_sources(str(url), corpus="c")
    return Probe(ProbeSettings())(table).to_pylist()


def told(url: Path) -> list[tuple[str, str | None]]:
    """The texts of recordings that are read, and the reasons of those that are not."""
    return [(row["id"].removeprefix("c/"), row["reject_reason"] or row["text"]) for row in speech(url)]


def pairs(url: Path, wanted: Wanted = PAIRS) -> list[dict[str, Any]]:
    return pa.concat_tables(list_texts(str(url), "c", wanted)).to_pylist()


# --- speech


def test_names_of_any_letters(tmp_path: Path) -> None:
    names = [
        "a#b",
        "a?b",
        "a%20b",
        "a*b",
        "a[1]b",
        "new\nline",
        "tab\tx",
        "sp ace",
        "it's",
        'a"b',
        ":x",
        "a::b",
        "-x",
        "ü",
    ]
    for name in names:
        write(tmp_path / "f" / f"{name}.wav", WAV)
        write(tmp_path / "f" / f"{name}.txt", f"of {name}")
    wanted = sorted((f"{name}.wav", f"of {name}") for name in names)
    assert sorted(told(tmp_path / "f")) == wanted
    lines = [json.dumps({"audio_filepath": f"{name}.wav", "text": f"of {name}"}) for name in names]
    assert sorted(told(write(tmp_path / "f/m.jsonl", "\n".join(lines)))) == wanted
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for path in sorted((tmp_path / "f").iterdir()):
            tar.add(path, path.name)
    found = sorted(told(tmp_path / "t.tar"), key=lambda one: one[1] or "")
    assert [text for _, text in found] == sorted(text for _, text in wanted)
    for folder in ("odd[1]", "odd#?", "odd%20"):
        write(tmp_path / folder / "a.wav", WAV)
        assert len(told(tmp_path / folder)) == 1
    write(tmp_path / "odd*" / "a.wav", WAV)
    with pytest.raises(UserError, match="no audio matches this pattern"):
        told(tmp_path / "odd*")


def test_links_in_circles_and_to_nothing(tmp_path: Path) -> None:
    write(tmp_path / "f/a.wav", WAV)
    os.symlink(tmp_path / "f", tmp_path / "f/again")
    os.symlink("x.wav", tmp_path / "f/x.wav")
    assert sorted(told(tmp_path / "f")) == [("a.wav", None), ("x.wav", "missing")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '[{"audio_filepath": "a.wav"},\n{"audio_filepath": "a.wav"}]',
            "one JSON array; expected an object on each line",
        ),
        ('[\n  {\n    "audio_filepath": "a.wav"\n  }\n]', "one JSON array; expected an object on each line"),
        ('{"audio_filepath": "a.wav"},\n', "not a JSONL manifest; expected one JSON object per line"),
        ("", "holds no record"),
        ("\n\n", "holds no record"),
        ('{"audio_filepath": "a.wav"}\n'.encode("utf-16"), "its text is UTF-16; expected UTF-8"),
        (gzip.compress(b'{"audio_filepath": "a.wav"}', mtime=0), "compressed by gzip"),
    ],
)
def test_a_manifest_of_another_form_is_told(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        told(write(tmp_path / "manifest.json", text))


def test_joined_manifests_have_marks_in_the_middle(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", WAV)
    one, two = ("\ufeff" + json.dumps({"audio_filepath": name, "text": name}) + "\n" for name in ("a.wav", "./a.wav"))
    assert told(write(tmp_path / "m.jsonl", one + two)) == [("a.wav", "a.wav"), ("./a.wav", "./a.wav")]
    url = json.dumps({"audio_filepath": f"file://{tmp_path}/a.wav", "text": "x"})
    assert [text for _, text in told(write(tmp_path / "m.jsonl", url))] == ["x"]
    lost = [json.dumps({"audio_filepath": path, "text": "x"}) for path in ("~/a.wav", "b\\a.wav", "C:\\a.wav")]
    assert [text for _, text in told(write(tmp_path / "m.jsonl", "\n".join(lost)))] == ["missing"] * 3


def test_texts_of_other_types(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", WAV)
    texts = {7: "7", 7.5: "7.5", None: None, True: "malformed manifest line", "": None}
    lines = [json.dumps({"audio_filepath": f"{'./' * n}a.wav", "text": text}) for n, text in enumerate(texts)]
    assert [text for _, text in told(write(tmp_path / "m.jsonl", "\n".join(lines)))] == list(texts.values())
    audio = [{"bytes": WAV, "path": None}]
    for kind, value in ((pa.int64(), 7), (pa.null(), None), (pa.struct([("raw", pa.string())]), {"raw": "x"})):
        pq.write_table(pa.table({"audio": audio, "text": pa.array([value], kind)}), tmp_path / "a.parquet")
        said: list[str] = []
        (table,) = list_sources(str(tmp_path / "a.parquet"), say=said.append)
        (row,) = Probe(ProbeSettings())(table).to_pylist()
        assert (row["text"], row["reject_reason"]) == ("7" if value == 7 else None, None)
        assert len(said) == (kind == pa.struct([("raw", pa.string())])), "what is not read is told"


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", WAV)
    place = tmp_path / "metadata.csv"
    for text in ("\ufefffile_name;text\na.wav;one\n", "File_Name,Text\na.wav,one\n", "file_name, text\na.wav, one\n"):
        assert told(write(place, text)) == [("a.wav", "one")]
    assert told(write(place, 'file_name,text\r\na.wav,"one\r\ntwo, three"\r\n')) == [("a.wav", "one\r\ntwo, three")]
    write(tmp_path / "wavs/b.wav", WAV)
    assert told(write(place, "b.wav|Two|two\n")) == [("b.wav", "two")], "LJSpeech with endings"
    with pytest.raises(UserError, match="its lines end in CR alone"):
        told(write(place, "file_name,text\ra.wav,one\r"))


def test_tars_of_other_writers(tmp_path: Path) -> None:
    long = "long/" * 40 + "a"
    for number in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=number) as tar:
            for name, data in (
                *((f"{long}.wav", WAV), (f"{long}.txt", b"one"), ("/abs/b.wav", WAV), ("/abs/b.txt", b"two")),
                *(("c.wav", WAV), ("./c.txt", b"three"), ("./d/e.wav", WAV), ("d/./e.txt", b"four"), ("._c.wav", b"x")),
                *(("f.wav", WAV), ("f.json", b'{"text": 7, "speaker": null}'), ("g.wav", WAV), ("g.json", b"[1]")),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        texts = dict(told(tmp_path / "a.tar"))
        assert texts == {
            **{f"a.tar/{long}.wav": "one", "a.tar//abs/b.wav": "two", "a.tar/c.wav": "three"},
            **{"a.tar/d/e.wav": "four", "a.tar/f.wav": "7", "a.tar/g.wav": "malformed manifest line"},
        }
    write(tmp_path / "z.tar", gzip.compress((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(UserError, match="compressed by gzip"):
        told(tmp_path / "z.tar")
    with pytest.raises(UserError, match="a compressed archive"):
        told(write(tmp_path / "z.tar.gz", gzip.compress(b"x")))


def test_a_sparse_member_of_a_tar_is_a_reject(tmp_path: Path) -> None:
    def block(kind: bytes, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT)

    rest = bytes(-len(WAV) % 512) + bytes(1024)
    plain = block(tarfile.REGTYPE, "a.wav", len(WAV)) + WAV + bytes(-len(WAV) % 512)
    write(tmp_path / "a.tar", plain + block(tarfile.GNUTYPE_SPARSE, "b.wav", len(WAV)) + WAV + rest)
    assert dict(told(tmp_path / "a.tar")) == {"a.tar/a.wav": None, "a.tar/b.wav": "unreadable"}


def test_kaldi_of_other_systems(tmp_path: Path) -> None:
    write(tmp_path / "k/a.wav", WAV)
    write(tmp_path / "k/wav.scp", "\ufeffa a.wav\r\nb\t\ta.wav\r\nc a.wav\nd -\n")
    write(tmp_path / "k/text", "\ufeffa one  two\r\nb\tdrei\n".encode() + "c café\n".encode("latin-1"))
    assert sorted(told(tmp_path / "k")) == [
        *(("a", "one  two"), ("b", "drei"), ("d", "missing"), ("wav.scp#line3", "text: other encoding")),
    ]


# --- text and requests


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.csv", "\ufeffen;hi\nturn on;चालू\n", "its cells are parted by ';'"),
        ("a.csv", '"en";"hi"\n"turn; on";"चालू"\n', "its cells are parted by ';'"),
        ("a.csv", "en\thi\non\tचालू\n", r"its cells are parted by '\\t'"),
        ("a.tsv", "en,hi\non,चालू\n", "its cells are parted by ','"),
        ("a.tsv", gzip.compress(b"en\thi\n", mtime=0), "compressed by gzip"),
        ("a.csv", b"PK\x03\x04" + bytes(range(256)), "compressed by zip"),  # a spreadsheet with another name
        ("a.tsv.gz", b"en\thi\n", "cannot be decompressed"),
        ("a.jsonl", '[{"en": "on", "hi": "चालू"}]', "one JSON array"),
        ("a.tsv", "", "holds no text"),
        ("a.parquet", b"", "damaged or not Parquet"),
    ],
)
def test_a_table_of_another_form_is_told(tmp_path: Path, name: str, data: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        pairs(write(tmp_path / name, data))


def test_a_spreadsheet_of_texts_is_not_read_as_one_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its cells are parted by ';'"):
        pairs(write(tmp_path / "a.csv", "text;lang\none;en\n"), TEXTS)
    assert [row["raw"] for row in pairs(write(tmp_path / "a.csv", "one; two\nthree\n"), TEXTS)] == ["one; two", "three"]


def test_joined_files(tmp_path: Path) -> None:
    members = gzip.compress("\ufeffa\tक\n".encode()) + gzip.compress("\ufeffb\tख\n".encode())
    for data in (members, members + bytes(100)):
        assert [row["raw"] for row in pairs(write(tmp_path / "M.TSV.GZ", data))] == ["a\tक", "b\tख"]
    found = pairs(write(tmp_path / "a.txt", "one\0two\nthree\x85four\u2028five\n"), TEXTS)
    assert [row["text"] for row in found] == ["one\0two", "three\x85four\u2028five"], "one NUL is no UTF-16"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"text": "stop", "domain": "m", "intent": "x"},\n', "none of its first lines is a JSON object"),
        ('[{"text": "stop", "domain": "m", "intent": "x"}]', "one JSON array"),
        ('{"utterance": "stop"}\n', "its columns are not those of a known corpus"),
    ],
)
def test_requests_of_another_form_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        list(list_requests(str(write(tmp_path / "a.jsonl", text)), "c"))
