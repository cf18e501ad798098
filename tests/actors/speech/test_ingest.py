"""Ingest: every format and container becomes records, and every kind of broken audio is rejected with its reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import fsspec
import fsspec.implementations.local
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.audio import audio_bytes, decode
from gristmill.actors.sources.pointers import POINTERS
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.index import Cut
from gristmill.shards.schema import SPEECH
from gristmill.shards.step import Step
from tests.actors.sources import encode as ffmpeg
from tests.actors.sources.made import write_tar
from tests.actors.speech.recordings import encoded, probe, reasons, speech

FORMATS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]


def ingest(url: object, **options: object) -> pa.Table:
    probed = probe(url)
    assert probed["reject_reason"].null_count == len(probed), probed["reject_reason"].to_pylist()
    annotated = probed["text"].null_count < len(probed)
    return Load(LoadSettings(annotated=annotated, **options))(probed.drop_columns("reject_reason"))


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2)])
def test_every_format_rate_and_count_of_channels(
    tmp_path: Path, kind: str, subtype: str, rate: int, channels: int
) -> None:
    (tmp_path / f"a.{kind.lower()}").write_bytes(encoded(kind, subtype, rate, channels=channels))
    probed = probe(tmp_path).to_pylist()[0]
    assert (probed["sampling_rate"], probed["channels"], probed["reject_reason"]) == (rate, channels, None)
    assert probed["duration"] == pytest.approx(1.0, abs=0.01)
    for target in (rate, 16000):
        out = ingest(tmp_path, sampling_rate=target)
        samples, found = decode(audio_bytes(out)[0])
        assert found == out["sampling_rate"][0].as_py() == target
        assert len(samples) == pytest.approx(found, rel=0.01)
        assert out["duration"][0].as_py() == pytest.approx(len(samples) / found)
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        assert np.argmax(spectrum) * found / len(samples) == pytest.approx(440, abs=3)
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


def test_records_have_the_columns_that_the_stages_declare(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(encoded())
    (tmp_path / "a.txt").write_text("hello there\n")
    listed = next(list_sources(str(tmp_path)))
    first = Probe.stage(ProbeSettings(max_duration=5.0))
    second = Load.stage(LoadSettings(sampling_rate=8000))
    probed = first.build(0)(listed).drop_columns("reject_reason")
    assert probed.select(first.output_schema(POINTERS).names).schema.equals(first.output_schema(POINTERS))
    out = second.build(0)(probed).drop_columns("reject_reason")
    declared = second.output_schema(first.output_schema(POINTERS))
    assert out.select(declared.names).schema.equals(declared)
    assert set(declared.names) == set(SPEECH.names)
    row = out.to_pylist()[0]
    assert (row["text"], row["label_source"], row["sampling_rate"]) == ("hello there", "gold", 8000)
    unlabelled = Load.stage(LoadSettings(annotated=False)).build(0)(probed).to_pylist()[0]
    assert (unlabelled["text"], unlabelled["label_source"]) == (None, None)


def test_broken_audio_is_rejected_with_its_reason(tmp_path: Path) -> None:
    good = {kind: encoded(kind, sub) for kind, sub in FORMATS if sub != "OPUS"}
    files = {
        "ok.flac": good["FLAC"],
        "empty.wav": b"",
        "no-samples.wav": encoded("WAV", seconds=0.0),
        "text.wav": b"this is no audio at all" * 20,
        "zeros.flac": bytes(5000),
        "song.m4a": b"\0\0\0\x20ftypM4A " + bytes(500),
        "cut.wav": good["WAV"][: len(good["WAV"]) // 2],
        "cut-header.flac": good["FLAC"][:100],
        "cut.aiff": encoded("AIFF")[:9000],
        "cut.ogg": good["OGG"][: len(good["OGG"]) * 3 // 4],
        "cut.mp3": good["MP3"][:-2000],
        "long.flac": encoded(seconds=12.0),
        "short.flac": encoded(seconds=0.05),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = probe(tmp_path, max_duration=10.0)
    assert reasons(found) == {
        "ok.flac": None,
        "empty.wav": "empty",
        "no-samples.wav": "empty",
        "text.wav": "unreadable",
        "zeros.flac": "unreadable",
        "song.m4a": "truncated",
        "cut.wav": "truncated",
        "cut-header.flac": "truncated",
        "cut.aiff": "truncated",
        "cut.ogg": "truncated",
        "cut.mp3": "truncated",
        "long.flac": "too long",
        "short.flac": "too short",
    }


def test_errors_found_only_by_decoding_are_rejected_by_the_loader(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.flac", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "hum.flac", 5e-4 * np.sin(np.arange(16000) * 0.1), 16000)
    soundfile.write(tmp_path / "opposite.wav", speech(channels=2) * [1, -1], 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", 4 * speech(), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "constant.wav", np.full(16000, 0.05), 16000)
    spike = speech()
    spike[7000] = 1e29  # scaled to it, all else is silence
    soundfile.write(tmp_path / "spike.wav", spike, 16000, subtype="FLOAT")
    (tmp_path / "cut.flac").write_bytes(encoded()[:-2000])
    out = ingest(tmp_path)
    assert reasons(out) == {
        "zero.flac": "silent",
        "hum.flac": "silent",
        "opposite.wav": "silent",
        "nan.wav": "unreadable",
        "loud.wav": None,
        "constant.wav": "silent",
        "spike.wav": "unreadable",
        "cut.flac": "truncated",
    }
    loud = dict(zip(out["id"].to_pylist(), audio_bytes(out), strict=True))[f"{tmp_path.name}/loud.wav"]
    assert np.abs(decode(loud)[0]).max() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(decode(loud)[0], speech()[:, 0] / np.abs(speech()).max(), atol=1e-3)


def test_wrong_declarations_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(encoded())
    (tmp_path / "b.flac").write_bytes(encoded())
    lines = [
        {"audio_filepath": "a.flac", "duration": 1.04},
        {"audio_filepath": "b.flac", "duration": 1.3},
        {"audio_filepath": "./a.flac", "sampling_rate": 8000},
        {"audio_filepath": "gone.flac"},
        {"audio_filepath": "a.flac", "offset": 0.5, "duration": 2.0},
        {"audio_filepath": "a.flac", "offset": 5.0, "duration": 0.5},
        {"audio_filepath": 5},
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert probe(tmp_path)["reject_reason"].to_pylist() == [
        None,
        "wrongly declared: duration",
        "wrongly declared: sampling rate",
        "missing",
        "wrongly declared: duration",
        "wrongly declared: duration",
        "malformed manifest line",
    ]


def test_records_without_text_are_not_silence(tmp_path: Path) -> None:
    texts = {"a": "hello", "b": None, "c": " \n", "d": "there", "e": "...", "f": "\u200b\u200d", "g": "7", "h": "रुको"}
    for name, text in texts.items():
        (tmp_path / f"{name}.flac").write_bytes(encoded())
        if text is not None:
            (tmp_path / f"{name}.txt").write_text(text)
    out = ingest(tmp_path)
    assert reasons(out) == {"a.flac": None, "b.flac": "no text", "c.flac": "no text", "d.flac": None} | {
        "e.flac": "no text",
        "f.flac": "no text",
        "g.flac": None,
        "h.flac": None,
    }
    assert [data is None for data in audio_bytes(out)] == [False, True, True, False, True, True, False, False]
    table = next(list_sources(str(tmp_path)))
    unlabelled = Load(LoadSettings(annotated=False))(Probe(ProbeSettings())(table).drop_columns("reject_reason"))
    assert unlabelled["reject_reason"].null_count == len(texts)


def test_a_text_that_is_not_a_number_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(encoded())
    lines = ['{"audio_filepath": "a.flac", "text": NaN}', '{"audio_filepath": "./a.flac", "text": "nan"}']
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    assert probe(tmp_path)["text"].to_pylist() == [None, "nan"]


def test_a_length_that_the_header_does_not_tell_is_known_before_the_load(tmp_path: Path) -> None:
    """mp3 and FLAC from a pipe: probed and loaded at their length, cut into segments that overlap, and too long."""
    for name, codec in (("mp3", "libmp3lame"), ("flac", "flac")):
        (tmp_path / f"a.{name}").write_bytes(ffmpeg.encoded(name, codec, 3.0, pipe=True))
    probed = probe(tmp_path)
    assert probed["duration"].to_pylist() == pytest.approx([3.0, 3.0], abs=0.1)
    assert ingest(tmp_path)["duration"].to_pylist() == probed["duration"].to_pylist()
    assert probe(tmp_path, max_duration=2.0)["reject_reason"].to_pylist() == ["too long"] * 2
    cuts = [(2.0, 0.5), (0.5, 1.0), (1.0, 1.0), (0.5, 0.25)]
    for name in ("mp3", "flac"):
        lines = [{"audio_filepath": f"a.{name}", "offset": start, "duration": length} for start, length in cuts]
        (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        whole = decode(audio_bytes(ingest(f"{tmp_path}/a.{name}"))[0])[0]
        for (start, length), data in zip(cuts, audio_bytes(ingest(tmp_path / "manifest.jsonl")), strict=True):
            wanted = whole[round(start * 16000) : round((start + length) * 16000)]
            np.testing.assert_allclose(decode(data)[0], wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
def test_segments_are_cut_from_their_recording(tmp_path: Path, kind: str) -> None:
    steps = np.repeat([0.1, 0.2, 0.3, 0.4], 16000) * np.sin(np.arange(64000) * 0.3)
    soundfile.write(tmp_path / f"all.{kind}", steps, 16000)
    lines = [
        {"audio_filepath": f"all.{kind}", "offset": o, "duration": 0.5, "text": str(o)}
        for o in (3.25, 0.25, 2.25, 1.25)
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = ingest(tmp_path)
    assert out["duration"].to_pylist() == [0.5] * 4
    assert out["text"].to_pylist() == ["3.25", "0.25", "2.25", "1.25"]
    peaks = [np.abs(decode(data)[0]).max() for data in audio_bytes(out)]
    np.testing.assert_allclose(peaks, [0.4, 0.1, 0.3, 0.2], rtol=0.15)


def corpus_in_each_container(folder: Path) -> dict[str, Path]:
    audio = [encoded(kind, sub, seconds=1.0 + 0.1 * i) for i, (kind, sub) in enumerate(FORMATS)]
    texts = [f"text {i}" for i in range(len(audio))]
    names = [f"{i}.{kind.lower()}" for i, (kind, _) in enumerate(FORMATS)]
    plain = folder / "plain"
    plain.mkdir(parents=True)
    for name, data, text in zip(names, audio, texts, strict=True):
        (plain / name).write_bytes(data)
        (plain / name).with_suffix(".txt").write_text(text)
    lines = [{"audio_filepath": f"plain/{n}", "text": t} for n, t in zip(names, texts, strict=True)]
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    structs = [{"bytes": data, "path": None} for data in audio[:4]] + [{"bytes": None, "path": f"plain/{names[4]}"}]
    pq.write_table(pa.table({"audio": structs, "sentence": texts}), folder / "p.parquet", row_group_size=2)
    pq.write_table(pa.table({"audio": audio, "text": texts}), folder / "b.parquet")
    members: dict[str, bytes] = {}
    for name, data, text in zip(names, audio, texts, strict=True):
        members[name] = data
        if name[0] in "01":
            members[name[0] + ".txt"] = text.encode()
        else:
            members[name[0] + ".json"] = json.dumps({"text": text, "duration": 1.0 + 0.1 * int(name[0])}).encode()
    write_tar(folder / "s.tar", members)
    return {name: folder / name for name in ("plain", "m.jsonl", "p.parquet", "b.parquet", "s.tar")}


def test_all_containers_give_the_same_records_here_and_on_object_storage(tmp_path: Path) -> None:
    places = corpus_in_each_container(tmp_path / "c")
    columns = ["audio", "sampling_rate", "duration", "text", "label_source"]
    wanted = ingest(places["plain"]).select(columns)
    assert wanted["text"].to_pylist() == [f"text {i}" for i in range(5)]
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "c"), "/ingest", recursive=True)
    try:
        for name, place in places.items():
            for url in (place, f"memory://ingest/{name}"):
                out = ingest(url)
                assert out["reject_reason"].null_count == 5, (url, out["reject_reason"])
                assert out.select(columns).equals(wanted), url
    finally:
        fs.rm("/ingest", recursive=True)


def test_records_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    place = corpus_in_each_container(tmp_path / "c")["s.tar"]
    table = next(list_sources(str(place)))
    whole = Load(LoadSettings())(Probe(ProbeSettings())(table).drop_columns("reject_reason"))
    order = [3, 0, 4, 1, 2]
    for i in order:
        one = Load(LoadSettings())(Probe(ProbeSettings())(table.slice(i, 1)).drop_columns("reject_reason"))
        assert one.equals(whole.slice(i, 1))
    turned = Load(LoadSettings())(Probe(ProbeSettings())(table.take(order)).drop_columns("reject_reason"))
    assert turned.equals(whole.take(order))


def test_bad_labels_reject_their_record_only(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"a.flac": encoded(), "a.json": b"{", "b.flac": encoded(), "b.txt": b"\xff\xfe\xff"})
    reasons = ["malformed manifest line", "text: other encoding"]
    assert probe(tmp_path / "s.tar")["reject_reason"].to_pylist() == reasons
    table = pa.table({"audio": pa.array([None, encoded()], pa.binary()), "duration": [1.0, 9.0]})
    pq.write_table(table, tmp_path / "n.parquet")
    assert probe(tmp_path / "n.parquet")["reject_reason"].to_pylist() == ["empty", "wrongly declared: duration"]


def test_undecodable_audio_has_the_same_message_each_time() -> None:
    for data in (b"", b"no audio", bytes(500)):
        with pytest.raises(ValueError, match=r"^audio cannot be decoded$"):
            decode(data)


def test_a_corpus_with_broken_files_runs_through_the_engine(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(20):
        data = {7: b"", 11: b"no audio", 13: encoded()[:-3000]}.get(i, encoded(seconds=1.0 + 0.01 * i))
        (corpus / f"{i:02d}.flac").write_bytes(data)
    out, runner = str(tmp_path / "out"), InProcessRunner()
    listing = seal_tables(f"{out}/listing", "listing", list_sources(str(corpus), rows=6))
    probed = run_step(Step("probe", (Probe.stage(),), listing), out, runner, 0)
    loaded = run_step(
        Step("load", (Load.stage(LoadSettings(annotated=False)),), probed, cut=Cut(rows=5)), out, runner, 0
    )
    assert (probed.records, loaded.records) == (18, 17)
    table = pa.concat_tables(loaded.tables())
    assert set(table.schema.names) == set(SPEECH.names)
    assert table["id"].to_pylist() == [f"corpus/{i:02d}.flac" for i in range(20) if i not in (7, 11, 13)]
    durations = [1.0 + 0.01 * i for i in range(20) if i not in (7, 11, 13)]
    np.testing.assert_allclose(table["duration"].to_numpy(), durations, atol=1e-4)


def test_real_corpora_come_in_whole(data_dir: Path) -> None:
    folder = data_dir / "speech" / "coffee-orders"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    listed = pa.concat_tables(list(list_sources(str(folder))))
    probed = Probe(ProbeSettings())(listed)
    assert Counter(probed["reject_reason"].to_pylist()) == {None: 482}
    np.testing.assert_allclose(probed["duration"].to_numpy(), listed["declared_duration"].to_numpy(), atol=0.06)
    out = Load(LoadSettings(sampling_rate=8000, annotated=False))(probed.drop_columns("reject_reason").slice(0, 20))
    assert out["reject_reason"].null_count == 20
    assert out["text"].null_count == 20
