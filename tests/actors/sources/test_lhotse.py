"""Lhotse cuts, as written by Lhotse itself, become pointers, or rejects with a reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from gristmill.actors.audio import decode
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.shards.errors import UserError
from tests.actors.sources.encode import encoded, tone

RATE = 16000


def recorded(folder: Path, channels: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"long-{channels}.wav"
    steps = np.repeat(np.arange(1, 5) / 8, RATE // 2)  # half a second each of 1/8, 2/8, 3/8, 4/8, of changing sign
    steps[::2] *= -1
    soundfile.write(path, np.tile(steps[:, None], channels), RATE)
    return path


def listed(url: Path | str, **options: Any) -> list[dict[str, Any]]:
    return pa.concat_tables(list_sources(str(url), **options)).to_pylist()


def loaded(url: Path | str) -> list[dict[str, Any]]:
    (table,) = list_sources(str(url))
    return Load(LoadSettings(sampling_rate=RATE))(Probe(ProbeSettings())(table)).to_pylist()


def cut(place: str, **changes: Any) -> dict[str, Any]:
    """A whole cut as Lhotse stores it."""
    recording = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": place}],
        "sampling_rate": RATE,
        "num_samples": 2 * RATE,
        "duration": 2.0,
        "channel_ids": [0],
    }
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 2.0, "channel": 0, "text": "one"}
    whole = {
        "id": "c",
        "start": 0,
        "duration": 2.0,
        "channel": 0,
        "supervisions": [supervision],
        "recording": recording,
    }
    return {**whole, "type": "MonoCut", **changes}


def write(path: Path, cuts: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in cuts)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_cuts_of_lhotse_become_records(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(recorded(tmp_path / "wav"), recording_id="long")
    supervisions = [
        lhotse.SupervisionSegment("a", "long", 0.0, 1.0, text="first", speaker="ann", language="en", custom={"snr": 3}),
        lhotse.SupervisionSegment("b", "long", 1.0, 0.5, text="second", speaker="bob", language="en"),
        lhotse.SupervisionSegment("c", "long", 1.5, 0.5, text="third", speaker="ann", language="en"),
    ]
    whole = lhotse.MonoCut("whole", 0.0, recording.duration, 0, supervisions[::-1], recording=recording)
    cuts = [whole, *lhotse.CutSet.from_cuts([whole]).trim_to_supervisions(keep_overlapping=False).to_eager()]
    (tmp_path / "corpus").mkdir()
    lhotse.CutSet.from_cuts(cuts).to_file(tmp_path / "corpus/cuts.jsonl.gz")
    rows = listed(tmp_path / "corpus")
    assert rows == listed(tmp_path / "corpus/cuts.jsonl.gz") == listed(f"{tmp_path}/corpus/*.jsonl.gz", corpus="corpus")
    assert rows[0]["id"] == "corpus/whole"
    assert (rows[0]["start"], rows[0]["text"], rows[0]["speaker"]) == (None, "first second third", None)
    by_text = {row["text"]: row for row in loaded(tmp_path / "corpus")[1:]}
    lengths = {text: (row["duration"], row["speaker"], row["lang"]) for text, row in by_text.items()}
    assert lengths == {"first": (1.0, "ann", "en"), "second": (0.5, "bob", "en"), "third": (0.5, "ann", "en")}
    assert json.loads(next(row["extra"] for row in rows if row["text"] == "first"))["snr"] == 3
    for text, level in (("second", 3 / 8), ("third", 4 / 8)):
        samples, _ = decode(by_text[text]["audio"]["bytes"])
        assert np.allclose(np.abs(samples), level, atol=1e-3), "the segment is the cut's"


def test_cuts_that_one_file_and_channel_do_not_hold_are_rejects(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.shar.utils import to_shar_placeholder

    mono = lhotse.Recording.from_file(recorded(tmp_path), recording_id="mono")
    stereo = lhotse.Recording.from_file(recorded(tmp_path, 2), recording_id="stereo")
    source = lhotse.AudioSource("command", [0], "cat x.wav")
    made = lhotse.Recording("made", [source], RATE, 2 * RATE, 2.0)
    good = lhotse.MonoCut("good", 0.0, 2.0, 0, recording=mono)
    (tmp_path / "c").mkdir()
    cuts = [
        (good, None),
        (lhotse.MonoCut("left", 0.0, 2.0, 0, recording=stereo), None),
        (lhotse.MonoCut("third", 0.0, 2.0, 2, recording=stereo), "no such channel"),
        (lhotse.MultiCut("both", 0.0, 2.0, [0, 1], recording=stereo), "several channels"),
        (good.append(good).with_id("mixed"), "unsupported cut"),
        (good.pad(duration=3.0).with_id("padded"), "unsupported cut"),
        (good.perturb_speed(1.1).with_id("faster"), "unsupported cut"),
        (lhotse.MonoCut("nothing", 0.0, 2.0, 0), "unsupported cut"),
        (lhotse.MonoCut("made", 0.0, 2.0, 0, recording=made), "audio not in a file"),
        (lhotse.MonoCut("in a tar", 0.0, 2.0, 0, recording=to_shar_placeholder(mono)), "audio not in a file"),
    ]
    lhotse.CutSet.from_cuts(one for one, _ in cuts).to_file(tmp_path / "c/train_cuts.jsonl")
    (tmp_path / "c/recordings.jsonl").write_text("{}\n")  # what lies beside is not asked
    (tmp_path / "c/supervisions.jsonl").write_text("{}\n")
    (table,) = list_sources(str(tmp_path / "c"))
    assert Probe(ProbeSettings())(table)["reject_reason"].to_pylist() == [reason for _, reason in cuts]


@pytest.mark.parametrize("form", ["wav", "mp4"])
def test_a_cut_of_one_channel_is_that_channel(tmp_path: Path, form: str) -> None:
    lhotse = pytest.importorskip("lhotse")
    levels = np.stack([tone(2.0, RATE), 0.5 * tone(2.0, RATE), np.zeros(2 * RATE, np.float32)])
    if form == "wav":
        soundfile.write(tmp_path / "far.wav", levels.T, RATE)
    else:  # decoded by FFmpeg; its encoder joins nothing of the two channels
        (tmp_path / "far.mp4").write_bytes(encoded("mp4", "aac", rate=RATE, channels=2, samples=levels[:2]))
    channels = len(levels) if form == "wav" else 2
    near = tmp_path / "near.wav"
    soundfile.write(near, levels[1], RATE)
    sources = [
        {"type": "file", "channels": [0, 4, 2][:channels], "source": f"{tmp_path}/far.{form}"},
        {"type": "file", "channels": [1], "source": str(near)},
    ]
    ids = sorted([*[0, 4, 2][:channels], 1])
    recording = lhotse.Recording.from_dict(
        {
            "id": "r",
            "sources": sources,
            "sampling_rate": RATE,
            "num_samples": 2 * RATE,
            "duration": 2.0,
            "channel_ids": ids,
        }
    )
    said = [lhotse.SupervisionSegment("s", "r", 0.0, 2.0, text="one")]
    cuts = [
        lhotse.MonoCut(f"c{one}", start, 2.0 - start, one, said if not start else [], recording=recording)
        for one, start in ((4, 0.0), (0, 0.0), (1, 0.0))
    ]
    half = lhotse.MonoCut(
        "half", 0.5, 1.0, 4, [lhotse.SupervisionSegment("s", "r", 0.0, 1.0, text="one")], recording=recording
    )
    alone = lhotse.MultiCut("alone", 0.0, 2.0, [4], said, recording=recording)
    lhotse.CutSet.from_cuts([*cuts, half, alone]).to_file(tmp_path / "cuts.jsonl.gz")
    peaks = {
        row["id"].split("/")[1]: np.abs(decode(row["audio"]["bytes"])[0]).max()
        for row in loaded(tmp_path / "cuts.jsonl.gz")
    }
    wanted = {"c4": 0.15, "c0": 0.3, "c1": 0.15, "half": 0.12, "alone": 0.15}
    assert peaks == pytest.approx(wanted, abs=0.04)


def test_a_place_is_relative_to_the_cuts(tmp_path: Path) -> None:
    recorded(tmp_path / "audio")
    write(tmp_path / "cuts.jsonl", [cut("audio/long-1.wav"), cut("s3://bucket/x.wav", id="d")])
    here, there = listed(tmp_path)
    assert (here["url"], there["url"]) == (str(tmp_path / "audio/long-1.wav"), "s3://bucket/x.wav")
    assert (here["declared_duration"], here["declared_rate"], here["text"]) == (2.0, RATE, "one")


def test_truncated_files_and_duplicates_are_reported(tmp_path: Path) -> None:
    bad = [b"{", b"[]", cut("a.wav", start=-1), cut("a.wav", duration=None), cut("a.wav", supervisions=["x"])]
    bad += [cut("a.wav", id=None), cut("a.wav", recording={"sources": []}), cut("a.wav", type="SomeCut")]
    rows = listed(write(tmp_path / "x/cuts.jsonl.gz", [cut("a.wav"), *bad, cut("b.wav")]))
    assert [row["problem"] for row in rows] == [None, *["malformed manifest line"] * len(bad), "duplicate"]
    whole = write(tmp_path / "y/cuts.jsonl.gz", [cut("a.wav", id=str(n), text="x" * n) for n in range(500)])
    whole.write_bytes(whole.read_bytes()[:-200])
    rows = listed(whole)
    assert (rows[-1]["kind"], rows[-1]["problem"], rows[0]["problem"]) == ("unlisted", "truncated", None)


def test_files_without_cuts_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Lhotse cuts are in it; expected one cut per line"):
        listed(write(tmp_path / "a/cuts.jsonl", [{"audio_filepath": "a.wav"}]))
    (tmp_path / "b.jsonl.gz").write_bytes(b"not packed")
    with pytest.raises(UserError, match=r"cannot be decompressed .*; expected a complete gzip file"):
        listed(tmp_path / "b.jsonl.gz")
    write(tmp_path / "c/cuts_train.jsonl", [cut("a.wav")])
    write(tmp_path / "c/cuts_dev.jsonl", [cut("a.wav")])
    with pytest.raises(UserError, match="several files of cuts"):
        listed(tmp_path / "c")
    assert len(listed(tmp_path / "c/cuts_dev.jsonl")) == 1
    assert [row["problem"] for row in listed(f"{tmp_path}/c/cuts_*.jsonl")] == [None, "duplicate"]


def test_a_manifest_beside_cuts_goes_first(tmp_path: Path) -> None:
    recorded(tmp_path)
    write(tmp_path / "cuts.jsonl", [cut("long-1.wav")])
    write(tmp_path / "manifest.jsonl", [{"audio_filepath": "long-1.wav", "text": "of the manifest"}])
    assert [row["text"] for row in listed(tmp_path)] == ["of the manifest"]
    assert [row["text"] for row in listed(tmp_path, kind="lhotse")] == ["one"]


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    recorded(tmp_path / ".hidden/corpus")
    recorded(tmp_path / ".hidden/corpus/.books")
    rows = listed(tmp_path / ".hidden/corpus")
    assert [row["id"] for row in rows] == ["corpus/long-1.wav"]


def said(tmp_path: Path, *supervisions: dict[str, Any], **changes: Any) -> tuple[str | None, str | None]:
    (row,) = listed(write(tmp_path / "cuts.jsonl", [cut("a.wav", supervisions=list(supervisions), **changes)]))
    return row["text"], row["problem"]


def test_a_cut_has_the_words_that_lie_in_it(tmp_path: Path) -> None:
    def spoken(text: str, start: float, length: float, **more: Any) -> dict[str, Any]:
        return {"id": text, "start": start, "duration": length, "text": text, **more}

    first, second = spoken("first", 0.0, 2.0), spoken("second", 2.0, 1.0)
    assert said(tmp_path, first, second) == ("first", None)  # the second begins where the cut ends
    assert said(tmp_path, spoken("gone", -1.0, 1.0), first) == ("first", None)
    assert said(tmp_path, spoken("rounded", -0.02, 2.04)) == ("rounded", None)
    part = "text of more than its audio"
    assert said(tmp_path, spoken("begun before", -1.0, 2.0)) == (None, part)
    assert said(tmp_path, spoken("whole", 0.0, 1.0), spoken("begun", 1.5, 2.0)) == (None, part)
    assert said(tmp_path, first, spoken("talks over", 1.7, 2.0)) == ("first", None)
    words = {"word": [["left", -0.5, 0.3, None], ["inside", 0.2, 0.5, None], ["cut", 1.8, 0.6, None]]}
    assert said(tmp_path, spoken("left inside cut", -0.5, 2.9, alignment=words)) == ("inside", None)
    words = {"word": [["one", 0.5, 0.2, None], ["two", 1.6, 0.2, None]]}  # by the cut's clock or by the recording's
    assert said(tmp_path, spoken("one two", -1.0, 4.0, alignment=words), start=1.0) == (None, part)


def test_windows_and_overlaps_of_lhotse_itself(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(recorded(tmp_path / "wav"), recording_id="long")
    speech = [
        lhotse.SupervisionSegment("a", "long", 0.0, 1.2, text="first"),
        lhotse.SupervisionSegment("b", "long", 1.0, 1.0, text="second"),
    ]
    whole = lhotse.CutSet.from_cuts([lhotse.MonoCut("u", 0.0, 2.0, 0, speech, recording=recording)])
    whole.cut_into_windows(0.5).to_file(tmp_path / "cuts_windows.jsonl.gz")
    assert {row["text"] for row in listed(tmp_path / "cuts_windows.jsonl.gz")} == {None}
    whole.trim_to_supervisions(keep_overlapping=True).to_file(tmp_path / "cuts_trim.jsonl.gz")
    texts = sorted((row["text"] or "", row["problem"]) for row in listed(tmp_path / "cuts_trim.jsonl.gz"))
    assert texts == [("first", None), ("second", None)]
    words = [lhotse.supervision.AlignmentItem(word, 0.2 + 0.4 * n, 0.3) for n, word in enumerate("abcd")]
    aligned = lhotse.SupervisionSegment("w", "long", 0.2, 1.6, text="a b c d", alignment={"word": words})
    whole = lhotse.CutSet.from_cuts([lhotse.MonoCut("u", 0.0, 2.0, 0, [aligned], recording=recording)])
    for cuts, found in (
        (whole.cut_into_windows(1.0), ["a b", "c d"]),
        (whole.cut_into_windows(1.0).cut_into_windows(0.5), ["a", "b", "c", None]),  # "d" is cut in two
        (lhotse.CutSet.from_cuts([whole[0].truncate(offset=0.55, duration=0.8)]), ["b c"]),
    ):
        cuts.to_file(tmp_path / "cuts_aligned.jsonl.gz")
        assert [row["text"] for row in listed(tmp_path / "cuts_aligned.jsonl.gz")] == found


def test_paths_are_found_where_the_recipe_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = recorded(tmp_path / "egs/download")
    cuts = write(tmp_path / "egs/data/fbank/cuts.jsonl", [cut("download/long-1.wav")])
    assert listed(cuts)[0]["url"] == str(audio)  # in a folder above the cuts'
    cuts = write(tmp_path / "other/cuts.jsonl", [cut("download/gone.wav"), cut("download/long-1.wav", id="d")])
    monkeypatch.chdir(tmp_path / "egs")
    assert listed(cuts)[1]["url"] == str(audio)  # in the working folder


def test_shar(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(recorded(tmp_path / "wav"), recording_id="long")
    cuts = [
        lhotse.MonoCut(
            f"c.{n}",
            n / 2,
            0.5,
            0,
            [lhotse.SupervisionSegment(f"s{n}", "long", 0.0, 0.5, text=f"t{n}")],
            recording=recording,
        )
        for n in range(4)
    ]
    (tmp_path / "shar").mkdir()
    lhotse.CutSet.from_cuts(cuts).to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=2)
    rows = listed(tmp_path / "shar")
    assert [(row["id"], row["text"], row["kind"]) for row in rows] == [
        (f"shar/c.{n}", f"t{n}", "member") for n in range(4)
    ]
    found = loaded(tmp_path / "shar")
    for n, row in enumerate(found):
        samples, _ = decode(row["audio"]["bytes"])
        assert (row["text"], row["duration"]) == (f"t{n}", 0.5)
        assert np.allclose(np.abs(samples), (n + 1) / 8, atol=1e-3), "the member is the cut's"
    (tmp_path / "shar/recording.000001.tar").unlink()
    assert [row["problem"] for row in listed(tmp_path / "shar")[2:]] == ["audio not in a file"] * 2
