"""The distillation recipe from end to end, small: in-process, and the same bytes on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command.cli import app
from gristmill.pipelines.config import load
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import open_sealed
from tests.fingerprints import Paper, make_data
from tests.pipelines.lineage import without_user

SMALL = [
    "runner=inprocess",
    "seeds=[0]",
    "corpus={kind: requests, labelled_records: 12, unlabelled_records: 24, test_records: 8, sampling_rate: 8000, "
    "shard: {rows: 8}}",
    "noise={generated: 8, seconds: 3, rooms: {count: 4}, labelled_copies: 2}",
    "features={n_mels: 40}",
    "systems={model: {dim: 16, layers: 1, heads: 2, channels: 4}, ema: 0.9, teacher: {epochs: 1}, "
    "multicondition: {epochs: 1}, hard_labels: {epochs: 1}, student: {epochs: 1}, gold: {epochs: 1}, "
    "sequence: {epochs: 1}}",
    "sweep={k: [1, 20, 40], temperature: [2.0], epochs: 1}",
]
CONFIG = str(Path(__file__).parents[3] / "configs" / "distill.yaml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", CONFIG, *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distill")
    assert run(*SMALL, f"out={out}").exit_code == 0
    return out


def digests(out: Path) -> set[tuple[str, str]]:
    """Names and digests of all sealed sets, including those of other settings."""
    found = list(audit_below(str(out)))
    assert found
    assert not any(one.gaps for one in found)
    return {(one.name, one.digest) for one in found}


def test_every_system_is_scored_on_every_test_set(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    scored = {(row["system"], row["test_set"]) for row in report["metrics"] if row["metric"] == "wer"}
    systems = ("teacher", "multicondition", "hard_labels", "student", "student_seq")
    assert scored == {(system, test) for system in systems for test in ("clean", "noisy", "rerecorded")}
    assert {(cell["k"], cell["temperature"]) for cell in report["grids"][0]["cells"]} == {
        (1, 2.0),
        (20, 2.0),
        (40, 2.0),
    }
    # The vocabulary has fewer than 40 units, so k = 40 equals k = vocabulary, and 20 may differ.
    assert report["lineage"]
    assert report["records"]
    assert "<svg" in (finished / "report.html").read_text()


def test_every_result_has_a_user(finished: Path) -> None:
    assert without_user(CONFIG, SMALL, finished) == []


def test_nothing_is_declared_in_vain_with_a_teacher_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On paper: its labels are of the speech itself, so that nothing needs features of the clean annotated part."""
    make_data(tmp_path / "data")
    monkeypatch.setenv("GRISTMILL_DATA", str(tmp_path / "data"))
    loaded = load(str(Path(CONFIG).with_name("distill-hama.yaml")), [f"out={tmp_path}/out"])
    paper = Paper(str(tmp_path / "out"), InProcessRunner(), seeds=list(loaded.common.seeds))
    loaded.run(loaded.config, paper)
    paper.finish()
    assert [node.name for node in paper.plan.without_user()] == []


def test_the_report_names_the_model_to_use(finished: Path) -> None:
    use = json.loads((finished / "report.json").read_text())["use"]
    assert use["command"] == "gristmill transcribe OUT AUDIO"
    assert use["model"].split("/")[0] == use["system"]
    assert (finished / use["model"] / "artifact.json").exists()
    assert f"<code>{use['model']}</code>" in (finished / "report.html").read_text()


def test_the_plan_of_a_finished_run_has_nothing_to_do(finished: Path) -> None:
    planned = CliRunner().invoke(app, ["plan", CONFIG, *SMALL, f"out={finished}", "--sample", "48"])
    assert planned.exit_code == 0, planned.output
    assert "nothing to do: everything was finished by an earlier run" in planned.stdout


def test_unlabelled_speech_carries_no_text(finished: Path) -> None:
    for name in ("unlabelled", "noisy_unlabelled", "features_unlabelled"):
        (folder,) = (finished / name).iterdir()
        for table in open_sealed(str(folder)).tables(["text"]):
            assert table["text"].null_count == table.num_rows


def test_run_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "nothing to do" in run(*SMALL, f"out={finished}").stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_another_student_keeps_the_labels(finished: Path) -> None:
    labels = {path: path.stat().st_mtime_ns for path in (finished / "labels_unlabelled_seed0").rglob("*")}
    assert run(*SMALL, f"out={finished}", "systems.student.temperature=4.0").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (finished / "labels_unlabelled_seed0").rglob("*")} == labels
    assert len(list((finished / "student").iterdir())) == 2
    assert len(list((finished / "teacher").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    assert run(*SMALL, f"out={finished}").exit_code == 0
    assert run(*SMALL, f"out={tmp_path}", "runner=ray", "workers=2").exit_code == 0
    made = digests(tmp_path)
    assert len(made) == 24
    assert made <= digests(finished)


def test_a_teacher_from_outside_labels_too(finished: Path, tmp_path: Path) -> None:
    (teacher,) = (finished / "teacher").iterdir()
    small = [item for item in SMALL if not item.startswith("sweep")]
    outside = [f"teacher={{source: checkpoint, model: {teacher}}}", "sweep={k: [], temperature: []}"]
    assert run(*small, *outside, f"out={tmp_path}").exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["test_set"] for row in report["metrics"] if row["system"] == "teacher"} == {
        "clean",
        "noisy",
        "rerecorded",
    }
    assert not (tmp_path / "teacher").exists()
    for name in ("labels_labelled", "labels_unlabelled"):
        (folder,) = (tmp_path / name).iterdir()
        columns = open_sealed(str(folder)).schema.names
        assert "topk_ids" in columns
        assert "audio" not in columns, "it would be kept twice"


def test_a_teacher_of_another_frame_rate_is_refused_at_once(finished: Path, tmp_path: Path) -> None:
    (teacher,) = (finished / "teacher").iterdir()
    small = [item.replace("layers: 1", "layers: 1, subsampling: 2") for item in SMALL]
    result = run(*small, f"teacher={{source: checkpoint, model: {teacher}}}", f"out={tmp_path / 'out'}")
    assert result.exit_code == 2
    assert "frames per second" in result.stderr
    assert not list(tmp_path.glob("out/*/"))


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    import pickle

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weights": [1.0]}))
    result = run(*SMALL, f"teacher={{source: checkpoint, model: {folder}}}", f"out={tmp_path / 'out'}")
    assert result.exit_code == 2
    assert "pickle" in result.stderr
    assert not list(tmp_path.glob("out/*/"))


def test_an_annotated_part_without_texts_is_told_before_the_next_part_is_read(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(np.arange(12000) * 0.05)
    lines = [json.dumps({"audio_filepath": f"{n}.wav", "text": " ", "speaker": f"s{n}"}) for n in range(4)]
    for part in ("labelled", "raw"):
        (tmp_path / part).mkdir()
        for number in range(4):
            soundfile.write(tmp_path / part / f"{number}.wav", tone, 8000)
    (tmp_path / "labelled" / "manifest.jsonl").write_text("\n".join(lines))
    chosen = [item for item in SMALL if not item.startswith("corpus")]
    corpus = f"corpus={{labelled: {tmp_path / 'labelled'}, unlabelled: {tmp_path / 'raw'}, sampling_rate: 8000}}"
    made = run(*chosen, corpus, f"out={tmp_path / 'out'}")
    assert made.exit_code == 2
    assert "corpus.labelled: no record is left" in made.stderr
    assert not (tmp_path / "out" / "unlabelled").exists()


def test_own_files_with_held_out_speakers_and_a_long_recording(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, texts in (("labelled", ["go on", "turn it off", "stop", "no"]), ("raw", [None] * 4)):
        folder = tmp_path / part
        folder.mkdir()
        lines = []
        for number, text in enumerate(texts):
            tone = 0.3 * np.sin(np.arange(12000) * (0.05 + 0.02 * number)) * rng.uniform(0.2, 1, 12000)
            soundfile.write(folder / f"{number}.wav", tone, 8000)
            entry = {"audio_filepath": f"{number}.wav", "speaker": f"s{number}", "duration": 1.5}
            lines.append(json.dumps(entry | ({"text": text} if text else {})))
        (folder / "manifest.jsonl").write_text("\n".join(lines))
    (tmp_path / "raw" / "4.wav").write_bytes(b"RIFF not audio")
    long = tmp_path / "long"
    long.mkdir()
    burst = np.concatenate([0.3 * np.sin(np.arange(8000) * 0.06), np.zeros(6000)])
    soundfile.write(long / "talk.wav", np.tile(burst, 4) + 0.001 * rng.standard_normal(56000), 8000)
    (long / "talk.txt").write_text("Go on. Turn it off. Stop. No.")
    noises = tmp_path / "noises"
    noises.mkdir()
    for number in range(4):
        soundfile.write(noises / f"{number}.wav", 0.1 * rng.standard_normal(16000), 16000)
    out = tmp_path / "out"
    chosen = [item for item in SMALL if not item.startswith(("corpus", "noise", "sweep"))]
    # A teacher of one epoch hears nothing, and so every way out of the text is closed.
    align = "{method: energy, confidence: 0, wild: 100, skip: 10000}"
    corpus = (
        f"corpus={{labelled: {tmp_path / 'labelled'}, unlabelled: {tmp_path / 'raw'}, sampling_rate: 8000, "
        f"transcribed: {long}, align: {align}}}"
    )
    made = run(*chosen, corpus, f"noise={noises}", "sweep={k: [], temperature: []}", f"out={out}")
    assert made.exit_code == 0, made.stderr
    assert {"split_test", "split_labelled", "noisy_test"} <= {name for name, _ in digests(out)}
    (folder,) = (out / "transcribed").iterdir()
    rows = [row for table in open_sealed(str(folder)).tables() for row in table.to_pylist()]
    assert " ".join(row["text"] for row in rows) == "Go on. Turn it off. Stop. No."
    assert {(row["recording"], row["label_source"]) for row in rows} == {("long/talk.wav", "gold")}
    (folder,) = (out / "student").iterdir()
    sources = json.loads((folder / "artifact.json").read_text())
    assert "aligned" in json.dumps(sources)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["corpus.labelled=/nowhere", "corpus.unlabelled=/nowhere"], "/nowhere"),
        (["noise=/nowhere/noises"], "/nowhere/noises"),
        (["noise.rooms.rt60=[0.7, 0.2]"], "noise.rooms.rt60: expected the smallest value first"),
        (["noise.noises=[0, 2]"], "noise.noises[0]"),
        (["features.high_hz=9000", "corpus.sampling_rate=16000"], "band 60.0 to 9000.0 Hz does not fit"),
        (["features.sampling_rate=8000"], "features.sampling_rate"),
        (["corpus.labelled=/nowhere"], "corpus.unlabelled"),
        (["corpus.transcribed=/nowhere", "corpus.align={method: energy}"], "/nowhere"),
        (["corpus.transcribed=/nowhere", "corpus.align={most: 60}"], "align.most=60 is more than max_duration=30"),
        (["corpus.transcribed=/nowhere", "teacher.source=hama"], "corpus.transcribed: hama's units are phonemes"),
        (["systems.student.temperatur=3"], "temperature"),
        (["systems.student.k=99"], "systems.student.k"),
        (["corpus.kind=digits"], "corpus.digits"),
        (["systems.model.encoder=transformer"], "conformer"),
        (["systems={gpus: 500, ranks: 2}"], "systems.gpus: asks for 1000 GPU and this machine has"),
        (["teacher.gpus=1000"], "teacher.gpus: asks for 1000 GPU"),
    ],
)
def test_mistakes_are_errors_in_a_sentence(overrides: list[str], message: str, tmp_path: Path) -> None:
    result = run("runner=inprocess", f"out={tmp_path / 'out'}", *overrides)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("out/*/"))
