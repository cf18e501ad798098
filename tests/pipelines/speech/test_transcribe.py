"""Transcription by a finished run's model, of files, lists and standard input, in every form."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.decode import greedy
from gristmill.models.speech.features import log_mel
from gristmill.pipelines.finished import chosen, conclude, read_finished
from gristmill.pipelines.inline import Inline
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.transcribe import Transcriber
from gristmill.shards import checked
from gristmill.shards.errors import UserError
from tests.pipelines.speech import used

ENERGY = ("--segment", "energy")


def tones(rng: np.random.Generator) -> np.ndarray:
    """A second at 8 kHz, of ten tones."""
    pitch = np.repeat(rng.uniform(100, 3500, 10), 800)
    return (0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 8000)).astype(np.float32)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return used.finished(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a short recording, a long one, a silent one and one that no decoder reads."""
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    short = tones(rng)
    pause = (0.001 * rng.normal(size=12000)).astype(np.float32)
    long = np.concatenate([part for _ in range(10) for part in (tones(rng), tones(rng), pause)])
    for name, samples in {"a.flac": short, "b.wav": 0.9 * long, "d.wav": np.zeros(8000, np.float32)}.items():
        soundfile.write(folder / name, samples, 8000)
    (folder / "c.mp3").write_bytes(b"no audio")
    return folder


def heard(out: Path, samples: np.ndarray) -> str:
    """The text by the network itself, of the best system's first seed."""
    model = Checkpoint(str(out / "student" / "01"))
    log_probs, _ = model([log_mel(samples, used.FEATURES)])
    return used.UNITS.decode(greedy(log_probs[0].numpy()))


def test_a_recording_gives_the_text_of_the_best_system(out: Path, speech: Path, gristmill) -> None:
    made = gristmill("transcribe", out, speech / "a.flac")
    expected = heard(out, soundfile.read(speech / "a.flac", dtype="float32")[0])
    assert (made.exit_code, made.stdout) == (0, f"{expected}\n")
    assert len(expected) > 3
    standing = "student, the best of 2 systems on average over the test sets"
    assert f"{standing} (WER 20.0% clean, 30.0% noisy): {out}/student/01" in made.stderr
    other = gristmill("transcribe", out, speech / "a.flac", "--system", "teacher", "--quiet")
    assert other.stderr == ""
    assert other.stdout != made.stdout
    assert gristmill("transcribe", out / "teacher" / "00", speech / "a.flac").stdout == other.stdout


def test_a_folder_is_in_order_and_what_cannot_be_read_costs_itself(out: Path, speech: Path, gristmill) -> None:
    made = gristmill("transcribe", out, speech, "-f", "jsonl", *ENERGY)
    rows = [json.loads(line) for line in made.stdout.splitlines()]
    assert made.exit_code == 1
    assert [Path(row["audio_filepath"]).name for row in rows] == ["a.flac", *["b.wav"] * 10, "c.mp3", "d.wav"]
    assert (rows[-2]["text"], rows[-2]["error"], rows[-1]["text"], rows[-1]["reason"]) == (
        None,
        "unreadable",
        "",
        "silent",
    )
    assert f"{speech}/c.mp3: cannot be transcribed (unreadable)" in made.stderr
    # The long recording is cut where it is silent, and each part is heard by itself.
    long, _ = soundfile.read(speech / "b.wav", dtype="float32")
    for number, row in enumerate(rows[1:11]):
        assert row["offset"] == pytest.approx(max(0, 3.5 * number - 0.25), abs=0.1)
        first = round(row["offset"] * 8000)
        part = long[first : first + round(row["duration"] * 8000)]
        assert row["text"] == heard(out, np.rint(part * 32767).astype(np.float32) / 32768)
        assert " ".join(word["word"] for word in row["words"]) == row["text"]
        times = [time for word in row["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert row["offset"] <= times[0] <= times[-1] <= row["offset"] + row["duration"] + 0.0011, "rounded"
        assert all(0 < word["confidence"] <= 1 for word in row["words"])


def test_standard_input_and_python_give_the_same(out: Path, speech: Path, gristmill, monkeypatch) -> None:
    (one,) = Transcriber(str(out)).transcribe(str(speech / "a.flac"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((speech / "a.flac").read_bytes())))
    piped = list(Transcriber(str(out)).transcribe("-"))
    assert [(p.audio, p.text, p.words) for p in piped] == [("-", one.text, one.words)]
    samples, rate = soundfile.read(speech / "a.flac", dtype="float32")
    assert Transcriber(str(out)).hear(samples, rate).text == one.text
    assert [Transcriber(str(out), beam=4).hear(samples, rate).text] != [""]


def test_recordings_that_are_long_for_the_model_are_cut_and_it_is_told(tmp_path: Path, gristmill) -> None:
    """Of a model trained on utterances of 2.5 s, three of 2 s in one recording of 8 s are three, joined by silence."""
    heard_of = {"labelled": pa.table({"id": ["a", "b"], "duration": [2.0, 3.0]})}
    model = used.finished(tmp_path / "run", heard_of)
    rng, pause = np.random.default_rng(0), np.zeros(8000, np.float32)
    fade = 10 ** (np.linspace(0, -2, 16000))
    parts = [np.concatenate([tones(rng), tones(rng)]) * fade for _ in range(3)]
    soundfile.write(tmp_path / "long.wav", np.concatenate([one for part in parts for one in (part, pause)][:-1]), 8000)
    soundfile.write(tmp_path / "short.wav", np.concatenate([parts[0], pause, parts[1][:12000]]), 8000)
    made = gristmill("transcribe", model, tmp_path / "long.wav", "-f", "srt", *ENERGY)
    assert made.stdout.count(" --> ") == 3
    told = "recordings of over 5.0 s are cut into utterances: the model was trained on utterances of 2.5 s on average"
    assert made.stderr.count(told) == 1
    made = gristmill("transcribe", model, tmp_path / "short.wav", "-f", "jsonl", *ENERGY)
    assert len(made.stdout.splitlines()) == 1
    assert told not in made.stderr


def test_no_begin_or_end_of_a_word_is_cut(out: Path, tmp_path: Path) -> None:
    """Utterances that begin and end 40 dB below their middle are kept whole, whatever fills the pauses."""
    rng = np.random.default_rng(0)
    fade = np.concatenate([np.linspace(-40, 0, 4000), np.zeros(8000), np.linspace(0, -40, 4000)])
    one, pause = np.concatenate([tones(rng), tones(rng)]) * 10 ** (fade / 20), np.zeros(4800)
    samples = np.concatenate([pause, *[part for _ in range(8) for part in (one, pause)]])
    for name, noise in (("silent", 0.0), ("noisy", 1e-3)):
        soundfile.write(tmp_path / f"{name}.wav", samples + noise * rng.normal(size=len(samples)), 8000)
        found = list(Transcriber(str(out), segment="energy").transcribe(str(tmp_path / f"{name}.wav")))
        assert len(found) == 8
        for number, utterance in enumerate(found):
            assert utterance.start <= 0.6 + 2.6 * number + 0.05
            assert utterance.start + utterance.duration >= 2.6 * (number + 1) - 0.05


def test_a_recording_that_is_written_anew_is_heard_anew(out: Path, tmp_path: Path) -> None:
    rng, transcriber = np.random.default_rng(0), Transcriber(str(out), segment="energy")
    texts = []
    for _ in range(2):
        parts = [one for _ in range(5) for one in (tones(rng), tones(rng), 0.001 * rng.normal(size=8000))]
        soundfile.write(tmp_path / "a.wav", np.concatenate(parts), 8000)
        texts.append([one.text for one in transcriber.transcribe(str(tmp_path / "a.wav"))])
        assert texts[-1] == [
            one.text for one in Transcriber(str(out), segment="energy").transcribe(str(tmp_path / "a.wav"))
        ]
    assert texts[0] != texts[1]


def test_json_lines_are_a_corpus_from_where_they_are_written(
    out: Path, speech: Path, tmp_path: Path, gristmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(speech.parent)
    here = speech.name
    printed = gristmill("transcribe", out, here, "-f", "jsonl", *ENERGY).stdout
    told = gristmill("transcribe", out, here, "-f", "jsonl", "--into", tmp_path / "X", *ENERGY).stderr
    assert f"as a corpus: '{tmp_path}/X/*.jsonl'" in told
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heard.jsonl").write_text(printed)
    for url in (tmp_path / "heard.jsonl", tmp_path / "X/*.jsonl"):
        pointers = pa.concat_tables(list_sources(str(url)))
        probed = Inline(Probe.stage(ProbeSettings()))(pointers).table.to_pylist()
        texts = [row["text"] for row in map(json.loads, printed.splitlines()) if row.get("text")]
        assert [row["text"] for row in probed if row["text"]] == texts
        assert {row["url"] for row in probed if row["text"]} == {f"{speech}/a.flac", f"{speech}/b.wav"}


def test_times_are_within_the_recording(out: Path) -> None:
    samples = tones(np.random.default_rng(3))
    transcriber = Transcriber(out)
    for cut in range(0, 240, 20):  # of a frame, 240 samples
        one = transcriber.hear(samples[: len(samples) - cut], 8000)
        assert one.words
        assert all(word.start <= word.end <= one.duration + 1e-6 for word in one.words)


def test_places_and_samples_alone_and_in_iterables(out: Path, speech: Path) -> None:
    transcriber = Transcriber(out, segment="energy")
    (one,) = transcriber.transcribe(speech / "a.flac")
    samples, _ = soundfile.read(speech / "a.flac", dtype="float32")
    doubled = np.repeat(samples, 2)
    long, _ = soundfile.read(speech / "b.wav", dtype="float32")
    found = list(transcriber.transcribe((samples, 8000), [str(speech / "a.flac"), (doubled, 16000)], (long, 8000)))
    assert [each.audio for each in found[:3]] == ["samples 1", str(speech / "a.flac"), "samples 3"]
    assert found[0].text == found[1].text == one.text
    assert found[2].duration == pytest.approx(one.duration)
    assert [each.audio for each in found[3:]] == ["samples 4"] * 10, "it is cut as a file is"
    whole = samples.astype(np.int16)
    for wrong in (whole, 8000), (samples[None], 8000), (samples * 32768, 8000), (samples * np.nan, 8000), (samples, 0):
        with pytest.raises(UserError, match="samples: "):
            list(transcriber.transcribe(wrong))
        with pytest.raises(UserError, match="samples: "):
            transcriber.hear(*wrong)
    with pytest.raises(TypeError, match=r"5 is given; expected paths"):
        list(transcriber.transcribe(5))


def test_subtitles_and_ctm(out: Path, speech: Path, tmp_path: Path, gristmill) -> None:
    several = gristmill("transcribe", out, speech, "-f", "srt")
    assert (several.exit_code, several.stdout) == (2, "")
    assert "--into DIR" in several.stderr
    assert gristmill("transcribe", out, speech, "-f", "srt", "--into", tmp_path / "subs", *ENERGY).exit_code == 1
    assert {path.stem for path in (tmp_path / "subs").rglob("*.srt")} == {"a", "b", "d"}  # c cannot be read
    cues = next((tmp_path / "subs").rglob("b.srt")).read_text().split("\n\n")
    assert cues[1].splitlines()[0] == "2"
    assert cues[1].splitlines()[1].startswith("00:00:03,")
    ctm = gristmill("transcribe", out, speech / "b.wav", "-f", "ctm", *ENERGY).stdout.splitlines()
    name, channel, start, length, _, sure = ctm[-1].split()
    assert (name, channel) == (f"{speech}/b.wav", "1")
    assert 31 < float(start) < 34
    assert float(length) > 0
    assert 0 < float(sure) <= 1


def test_a_corpus_is_a_run_with_the_same_texts(out: Path, speech: Path, tmp_path: Path) -> None:
    transcriber = Transcriber(str(out), segment="energy")
    made = transcriber.corpus(Run(str(tmp_path), InProcessRunner()), "transcripts", [str(speech)])
    rows = [row for number in range(len(made.shards)) for row in made.read(number).to_pylist()]
    alone = [one for one in transcriber.transcribe(str(speech)) if one.problem is None]
    assert [(row["hypothesis"], row["audio_filepath"]) for row in rows] == [(one.text, one.audio) for one in alone]
    assert made.seal["reasons"] == {"load: silent": 1}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "heard", "-f", "text"], "--format: is for transcripts that are printed"),
        (["--out", "heard", "--into", "texts"], "--into: is for transcripts that are printed"),
        (["--workers", "2"], "--workers: is for a corpus that is transcribed as a run; expected --out OUT"),
        (["--runner", "ray"], "--runner: is for a corpus that is transcribed as a run; expected --out OUT"),
        (["--out", ""], "--out: an empty text"),
        ([""], "AUDIO: an empty text; expected a path or URL"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    options: list[str], sentence: str, out: Path, speech: Path, tmp_path: Path, gristmill, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = gristmill("transcribe", out, speech / "a.flac", *options)
    assert (made.exit_code, made.stdout) == (2, "")
    assert sentence in made.stderr
    assert not list(tmp_path.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("run", "holds results of the recipe distill, and those of `gristmill transcribe` were to be written there"),
        ("begun", "holds results of the recipe"),
        ("other", "holds other things (notes.txt)"),
        ("calls", "which is transcribed; expected a folder outside of it"),
        ("calls/heard", "which is transcribed; expected a folder outside of it"),
        ("link/heard", "which is transcribed; expected a folder outside of it"),
    ],
)
def test_a_corpus_is_not_transcribed_into_other_things(
    place: str, sentence: str, out: Path, speech: Path, tmp_path: Path, gristmill
) -> None:
    shutil.copytree(out, tmp_path / "run")
    shutil.copytree(speech, tmp_path / "calls")
    for name, data in {"begun/config.json": checked.encode("settings", {}), "other/notes.txt": b"mine"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    (tmp_path / "link").symlink_to(tmp_path / "calls")
    before = contents(tmp_path)
    made = gristmill("transcribe", out, tmp_path / "calls", "--out", tmp_path / place, "--runner", "inprocess", *ENERGY)
    assert (made.exit_code, made.stdout) == (2, "")
    assert sentence in made.stderr
    assert contents(tmp_path) == before


def test_a_corpus_is_transcribed_into_its_earlier_output(out: Path, speech: Path, tmp_path: Path, gristmill) -> None:
    heard = tmp_path / "heard"
    heard.mkdir()
    command = ("transcribe", out, speech, "--out", heard, "--runner", "inprocess", "-q", *ENERGY)
    first = gristmill(*command)
    assert (first.exit_code, "transcribed 11 utterances" in first.stdout) == (1, True)
    assert "nothing to do" in gristmill(*command).stdout
    assert "whole run: finished" in gristmill("status", heard).stdout
    as_model = gristmill("transcribe", heard, speech)
    assert as_model.exit_code == 2
    assert f"{heard}: the output of transcribe, which has sets and neither models nor a report" in as_model.stderr
    (heard / "run.json").unlink()  # as if it had been interrupted
    assert "nothing to do" in gristmill(*command).stdout
    assert (heard / "run.json").exists()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nowhere", "nothing is there; expected a model"),
        ("unfinished", "no run was finished here"),
        ("other", "the output of the recipe rerank, which is not used by `transcribe`"),
        ("damaged", "its bytes are not those that were committed"),
    ],
)
def test_what_is_no_model_is_told(model: str, sentence: str, speech: Path, tmp_path: Path, gristmill) -> None:
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_text("{}")
    if model == "other":
        used.finished(tmp_path / "other")
        Run(str(tmp_path / "other"), InProcessRunner()).write_ledger("rerank", "")
    if model == "damaged":
        made = used.recogniser(tmp_path / "damaged")
        path = Path(made.checked_url("model.safetensors"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    result = gristmill("transcribe", tmp_path / model, speech / "a.flac")
    assert sentence in result.stderr
    assert (result.exit_code, result.stdout) == (1 if model == "damaged" else 2, "")


def test_the_end_of_a_run_names_its_best_model_and_the_next_command(out: Path) -> None:
    found = read_finished(str(out))
    assert found is not None
    assert conclude(found) == [
        f"best on average over the test sets: student of 2 (WER 20.0% clean, 30.0% noisy): {out}/student/01",
        f"next: gristmill transcribe {out} AUDIO",
    ]
    assert found.command("sp ace") == "gristmill transcribe 'sp ace' AUDIO"
    rows = [{**row, "system": "selected"} for row in found.report["metrics"] if row["system"] == "teacher"]
    more = replace(found, report={**found.report, "metrics": [*found.report["metrics"], *rows]})
    standing, beside = "on average over the test sets", "beside 1 without a model to use (WER 20.0% clean, 30.0% noisy)"
    assert conclude(more)[0].startswith(f"best {standing}: student of 2, {beside}")
    assert f"the best of 2 systems {standing}, {beside}" in chosen(more, None)[1]
