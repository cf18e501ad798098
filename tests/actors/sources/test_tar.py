"""Listing of tars: members where they lie, pairs, links, damage."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.actors.sources.made import rows, write_tar


def test_tar_members_are_pointed_at_where_they_lie(tmp_path: Path) -> None:
    members = {"./u1.flac": b"AAAA", "u1.txt": b"one", "u2.wav": b"B" * 700, "u2.json": b"{}", "index.html": b"x"}
    path = write_tar(tmp_path / "shard-0.tar", members | {"n" * 150 + ".ogg": b"CC"})
    found = rows(path)
    data = path.read_bytes()
    assert [data[r["offset"] : r["offset"] + r["size"]] for r in found] == [b"AAAA", b"B" * 700, b"CC"]
    assert found[1]["id"] == "shard-0/shard-0.tar/u2.wav"
    assert "json" in json.loads(found[1]["labels"])


def test_links_in_a_tar_are_what_they_lead_to(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, kind, target in (
            ("d/soft.wav", tarfile.SYMTYPE, "../a.wav"),
            ("d/hard.wav", tarfile.LNKTYPE, "a.wav"),
            ("chain.wav", tarfile.SYMTYPE, "d/soft.wav"),
            ("loop.wav", tarfile.SYMTYPE, "loop.wav"),
            ("d/soft.txt", tarfile.SYMTYPE, "../a.txt"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
        for name in ("a.wav", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(name.encode()))
    data = (tmp_path / "t.tar").read_bytes()
    found = {row["member"]: row for row in rows(tmp_path / "t.tar")}
    assert {name for name, row in found.items() if row["problem"]} == {"loop.wav"}
    for name in ("d/soft.wav", "d/hard.wav", "chain.wav", "a.wav"):
        assert data[found[name]["offset"] :][:5] == b"a.wav"
    assert "text" in json.loads(found["d/soft.wav"]["labels"])


def test_members_of_a_tar_pair_by_name_with_and_without_dots(tmp_path: Path) -> None:
    members = {"s1.u3.wav": b"x", "s1.u3.txt": b"one", "u4.mp3.wav": b"x", "u4.mp3.txt": b"two"}
    members |= {"k.mic.flac": b"x", "k.json": b"{}", "d.1/v.wav": b"x", "d.1/v.TXT": b"three"}
    members |= {"u2.wav": b"x", "u2.transcript.txt": b"four", "u5.text.txt": b"-", "u5.txt": b"five", "u5.wav": b"x"}
    path = write_tar(tmp_path / "t.tar", members)
    data = path.read_bytes()

    def label(row: dict) -> bytes:
        (place,) = json.loads(row["labels"]).values()
        return data[place["offset"] :][: place["size"]]

    assert [label(row) for row in rows(path)] == [b"one", b"two", b"{}", b"three", b"four", b"five"]


def test_a_key_that_comes_again_in_a_tar_is_a_duplicate(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("u1.wav", b"a"), ("u1.txt", b"one"), ("u1.wav", b"b"), ("u1.txt", b"two")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    first, second = rows(tmp_path / "t.tar")
    assert (first["problem"], second["problem"]) == (None, "duplicate")
    place = json.loads(first["labels"])["text"]
    assert (tmp_path / "t.tar").read_bytes()[place["offset"] :][:3] == b"one"
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("./u1.wav", "u1.wav"):  # as `tar -r` adds a file again
            tar.addfile(tarfile.TarInfo(name))
    assert [(row["id"], row["problem"]) for row in rows(tmp_path / "t.tar")] == [
        ("t/t.tar/u1.wav", None),
        ("t/t.tar/u1.wav#2", "duplicate"),
    ]


def test_a_truncated_tar_yields_its_members_and_a_bad_row(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {f"u{i}.flac": b"x" * 3000 for i in range(4)})
    path.write_bytes(path.read_bytes()[:9000])
    found = rows(path)
    assert [row["id"] for row in found] == ["s/s.tar/u0.flac", "s/s.tar/u1.flac", "s/s.tar#rest"]
    assert (found[-1]["kind"], found[-1]["problem"]) == ("unlisted", "truncated")


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_layout_of_tar_lie_where_tarfile_finds_them(tmp_path: Path, layout: int) -> None:
    names = ["a.flac", f"{'d' * 80}/{'n' * 60}.wav", "./b/c.ogg"]
    names += [] if layout == tarfile.USTAR_FORMAT else ["é" * 90 + ".flac", "x/" * 120 + "y.mp3"]
    with tarfile.open(tmp_path / "t.tar", "w", format=layout) as tar:
        for number, name in enumerate(names):
            folder = tarfile.TarInfo(f"folder{number}.wav")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            link = tarfile.TarInfo(f"link{number}.wav")
            link.type, link.linkname = tarfile.SYMTYPE, "l" * (40 if layout == tarfile.USTAR_FORMAT else 200)
            tar.addfile(link)
            info = tarfile.TarInfo(name)
            info.size = 600 * number + 1
            info.pax_headers = {"comment": "c" * 700} if layout == tarfile.PAX_FORMAT else {}
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    with tarfile.open(tmp_path / "t.tar") as tar:
        wanted = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    found = rows(tmp_path / "t.tar")
    assert [(row["member"], row["offset"], row["size"]) for row in found if row["problem"] is None] == wanted
    assert len(wanted) == len(names)
    assert [row["member"] for row in found if row["problem"] == "missing"] == [
        f"link{n}.wav" for n in range(len(names))
    ]


def damaged_size(declared: bytes) -> bytes:
    info = tarfile.TarInfo("b.flac")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = declared
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (damaged_size(b"\x80" + (1 << 34).to_bytes(11, "big")), "truncated"),  # 2^34 bytes
        (damaged_size(b"\xff" * 10 + b"\xfc\0"), "truncated"),  # -1024: the header before it, for ever
        (damaged_size(b"12345678901z"), "unreadable"),
        (b"\1" * 512, "unreadable"),
        (b"", "truncated"),
        (bytes(512) + b"more" * 128 + bytes(512), "unreadable"),
    ],
)
def test_a_damaged_tar_costs_its_rest(tmp_path: Path, rest: bytes, reason: str) -> None:
    whole = write_tar(tmp_path / "a.tar", {"a.flac": b"x" * 100}).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1024] + rest)
    write_tar(tmp_path / "b.tar", {"c.flac": b"x"})
    found = [(row["id"].removeprefix(f"{tmp_path.name}/"), row["kind"], row["problem"]) for row in rows(tmp_path)]
    assert found == [
        ("a.tar/a.flac", "member", None),
        ("a.tar#rest", "unlisted", reason),
        ("b.tar/c.flac", "member", None),
    ]


def test_names_of_members_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a\udce9\n.flac": b"x"})
    assert [row["member"] for row in rows(path)] == [r"a\udce9\n.flac"]
