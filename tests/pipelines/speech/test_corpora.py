"""The user's own files: several locations in one part, and the work redone after a change of a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from gristmill.actors.speech.banks import RoomBank, RoomBankSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command.cli import app
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.corpora import Corpora, CorpusSettings, prepare_corpora
from gristmill.pipelines.speech.noise import NoiseSettings, prepare_banks
from gristmill.shards.audit import audit_below
from gristmill.shards.errors import UserError

RATE = 8000


def utterance(path: Path, seed: int = 0, text: str | None = "go on") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(RATE // 2)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    if text is not None:
        path.with_suffix(".txt").write_text(text)
    return path


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., tuple[Corpora, Run]]:
    """Make the corpora of a run; its trace has the steps that were run or kept."""

    def prepared(**settings: object) -> tuple[Corpora, Run]:
        run = Run(str(tmp_path / "out"), InProcessRunner())
        corpora = prepare_corpora(run, CorpusSettings(sampling_rate=RATE, **settings))
        run.finish()
        return corpora, run

    return prepared


def test_places_of_one_name_are_numbered(tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]) -> None:
    for place in ("a/train", "b/train", "c/train-1", "d/other", "test"):
        utterance(tmp_path / place / "x.wav")
    places = tuple(str(tmp_path / place) for place in ("a/train", "b/train", "c/train-1", "d/other"))
    corpora, _ = prepare(labelled=places, unlabelled=places[0] + "/", test=str(tmp_path / "test"))
    ids = [key for table in corpora.labelled.tables(["id"]) for key in table["id"].to_pylist()]
    assert ids == ["train-2/x.wav", "train-3/x.wav", "train-1/x.wav", "other/x.wav"]
    assert corpora.unlabelled.read(0)["id"].to_pylist() == ["train/x.wav"]


def test_long_recordings_are_cut_into_utterances(tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]) -> None:
    """An hour would be too long: here 12 s are, beside a limit of 5 s; the annotated part stays as it is."""
    utterance(tmp_path / "labelled" / "a.wav")
    t = np.arange(12 * RATE) / RATE
    spoken = np.zeros(len(t), bool)
    for start, end in ((1, 3), (4, 6.5), (9, 11)):
        spoken |= (t >= start) & (t < end)
    samples = 0.1 * np.sign(np.sin(900 * t)) * spoken + 0.001 * np.random.default_rng(1).standard_normal(len(t))
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw" / "long.wav", samples, RATE)
    given = {
        "labelled": str(tmp_path / "labelled"),
        "unlabelled": str(tmp_path / "raw"),
        "test": str(tmp_path / "labelled"),
    }
    with pytest.raises(UserError, match=r"corpus.unlabelled"):
        prepare(**given, max_duration=5.0)
    corpora, _ = prepare(**given, max_duration=5.0, segment={"method": "energy", "most": 5.0})
    rows = pa.concat_tables(corpora.unlabelled.tables()).to_pylist()
    assert [row["recording_start"] for row in rows] == pytest.approx([0.9, 3.9, 8.9], abs=0.1)
    assert {row["recording"] for row in rows} == {row["parent_id"] for row in rows} == {"raw/long.wav"}
    assert corpora.labelled.records == 1
    again, _ = prepare(**given, max_duration=5.0, segment={"method": "energy", "most": 5.0})
    assert again.unlabelled.digest == corpora.unlabelled.digest
    assert not any(result.gaps for result in audit_below(str(tmp_path / "out")))
    with pytest.raises(ValueError, match=r"segment.most=20 is more than max_duration=5"):
        CorpusSettings(max_duration=5.0, segment="energy")

    # Measured, and the annotated noise rejected; the test part has the measures and all its records.
    limits = {"least_speech": 0.3}
    utterance(tmp_path / "labelled" / "b.wav", seed=3)
    soundfile.write(tmp_path / "labelled" / "b.wav", samples[: 3 * RATE], RATE)
    measured, _ = prepare(**given, max_duration=5.0, segment={"method": "energy", "most": 5.0}, quality=limits)
    assert measured.labelled.read(0)["id"].to_pylist() == ["labelled/b.wav"]
    assert measured.labelled.seal["reasons"] == {"quality: too little speech": 1}
    assert measured.test.records == 2
    assert measured.unlabelled.records == 3
    shares = pa.concat_tables(measured.unlabelled.tables(["speech_share"]))["speech_share"].to_pylist()
    assert shares == [row["speech_share"] for row in rows]
    for part in (measured.labelled, measured.unlabelled, measured.test):
        assert {"snr_estimate", "clipped_share", "bandwidth", "speech_share"} <= set(part.schema.names)
    with pytest.raises(ValueError, match=r"quality.least_bandwidth=4000 is not below half of sampling_rate=8000"):
        CorpusSettings(sampling_rate=RATE, quality={"least_bandwidth": 4000})


def steps(run: Run) -> dict[str, bool]:
    return {trace.name: trace.kept for trace in run.trace}


def test_a_change_in_place_is_seen_and_redoes_no_more(
    tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]
) -> None:
    for part in ("gold", "raw", "test"):
        utterance(tmp_path / part / "x.wav")
    given = {"labelled": f"{tmp_path}/gold", "unlabelled": f"{tmp_path}/raw", "test": f"{tmp_path}/test"}
    first, _ = prepare(**given)
    assert all(steps(prepare(**given)[1]).values())

    size = (tmp_path / "raw/x.wav").stat().st_size
    later(utterance(tmp_path / "raw/x.wav", seed=1))  # other samples, as many bytes
    assert (tmp_path / "raw/x.wav").stat().st_size == size
    second, run = prepare(**given)
    assert {name for name, kept in steps(run).items() if not kept} == {
        "listing_unlabelled",
        "probed_unlabelled",
        "unlabelled",
    }
    assert second.unlabelled.digest != first.unlabelled.digest

    (tmp_path / "gold/x.txt").write_text("no go")  # a sidecar, as many bytes
    later(tmp_path / "gold/x.txt")
    third, _ = prepare(**given)
    assert third.labelled.read(0)["text"].to_pylist() == ["no go"]

    later(tmp_path / "test/x.wav", 20)  # written anew with the same content: equal records, so nothing after is redone
    fourth, run = prepare(**given)
    assert not steps(run)["test"]
    assert fourth.test.digest == first.test.digest


def later(path: Path, seconds: float = 10) -> None:
    """Make a file younger, whatever the clock's steps."""
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime + seconds))


def test_digits_that_change_in_place_are_joined_again(
    tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]
) -> None:
    def write(seed: int) -> None:
        audio = [utterance(tmp_path / "x.wav", seed + n, text=None).read_bytes() for n in range(24)]
        columns = {"audio": audio, "text": ["one", "two"] * 12, "speaker": ["a"] * 24}
        pq.write_table(pa.table(columns), tmp_path / "digits.parquet")

    counts = {"labelled_records": 2, "unlabelled_records": 2, "test_records": 2}
    given = {"digits": f"{tmp_path}/digits.parquet", "labelled_share": 0.4, "test_share": 0.3, **counts}
    write(0)
    first, _ = prepare(**given)
    write(100)
    later(tmp_path / "digits.parquet")
    second, _ = prepare(**given)
    assert second.test.digest != first.test.digest


def test_a_bank_of_a_noise_folder_depends_on_its_files_alone(
    tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]
) -> None:
    for number in range(3):
        utterance(tmp_path / f"noise/{number}.wav", number, text=None)
    for part in ("gold", "raw", "test"):
        utterance(tmp_path / part / "x.wav")
    given = {"labelled": f"{tmp_path}/gold", "unlabelled": f"{tmp_path}/raw", "test": f"{tmp_path}/test"}
    settings = NoiseSettings(folder=f"{tmp_path}/noise", rooms=RoomBankSettings(count=1))
    corpora, run = prepare(**given)
    first = prepare_banks(run, settings, corpora.unlabelled, RATE).noise
    other_speech = prepare_banks(run, settings, corpora.labelled, RATE).noise
    run.finish()
    assert other_speech.url == first.url
    assert [trace.inputs for trace in run.trace if trace.name == "noise_bank"] == [[], []]
    later(utterance(tmp_path / "noise/1.wav", 7, text=None))
    second = prepare_banks(run, settings, corpora.unlabelled, RATE).noise
    assert second.digest != first.digest


def test_rooms_have_a_place_for_each_noise_of_every_test_set(
    tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]
) -> None:
    for number in range(2):
        utterance(tmp_path / f"noise/{number}.wav", number, text=None)
    for part in ("gold", "raw", "test"):
        utterance(tmp_path / part / "x.wav")
    corpora, run = prepare(**{"labelled": f"{tmp_path}/gold", "unlabelled": f"{tmp_path}/raw"}, test=f"{tmp_path}/test")
    for most, places in ((1, 2), (5, 5)):
        settings = NoiseSettings(folder=f"{tmp_path}/noise", noises=(1, most), rooms=RoomBankSettings(count=1))
        banks = prepare_banks(run, settings, corpora.unlabelled, RATE)
        assert RoomBank(banks.rooms.url).sources == RoomBank(banks.other_rooms.url).sources == 1 + places


def test_files_on_object_storage_give_the_same_records(
    tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]
) -> None:
    for number, part in enumerate(("gold", "raw", "test")):
        utterance(tmp_path / f"c/{part}/x.wav", number)
        utterance(tmp_path / f"c/{part}/deep/y.wav", 10 + number)
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/c", "/corpora", recursive=True)
    try:
        parts = {"labelled": "gold", "unlabelled": "raw", "test": "test"}
        here, _ = prepare(**{part: f"{tmp_path}/c/{folder}" for part, folder in parts.items()})
        there, _ = prepare(**{part: f"memory://corpora/{folder}" for part, folder in parts.items()})
        for part in parts:
            assert getattr(there, part).records == 2
            assert getattr(there, part).digest == getattr(here, part).digest
        memory.pipe_file("/corpora/raw/x.wav", memory.cat_file("/corpora/gold/x.wav"))
        changed, _ = prepare(**{part: f"memory://corpora/{folder}" for part, folder in parts.items()})
        assert changed.unlabelled.digest != there.unlabelled.digest
        assert changed.labelled.digest == there.labelled.digest
    finally:
        memory.rm("/corpora", recursive=True)


def test_other_voices_are_another_corpus(prepare: Callable[..., tuple[Corpora, Run]]) -> None:
    few = {"labelled_records": 3, "unlabelled_records": 2, "test_records": 2}
    neural, _ = prepare(**few)
    mixed, run = prepare(**few, voices="mixed")
    assert not steps(run)["labelled"]
    assert neural.labelled.digest != mixed.labelled.digest
    spoken = neural.labelled.read(0)["speaker"].to_pylist() + neural.test.read(0)["speaker"].to_pylist()
    assert all(name.startswith("hibari:") for name in spoken)
    _, again = prepare(**few)
    assert steps(again)["labelled"]


def test_voices_that_are_not_installed_end_the_run_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    command = ["run", "distill", "runner=inprocess", "corpus.voices=mixed", f"out={tmp_path / 'out'}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "pip install '.[espeak]'" in " ".join(done.output.split())
    assert not list(tmp_path.glob("out/*/seal.json"))
