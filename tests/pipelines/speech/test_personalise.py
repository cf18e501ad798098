"""The personalisation recipe from end to end, small: every system with every list, and its model used with a list."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from gristmill.actors.speech.personal_fits import TRIALS
from gristmill.actors.speech.personal_model import SETTINGS_FILE
from gristmill.actors.speech.synthesise import Speak, SpeakSettings
from gristmill.models.speech.personal import PersonalSettings
from gristmill.pipelines.command.cli import app
from gristmill.pipelines.speech.personalise import SYSTEMS
from gristmill.shards import canonical
from gristmill.shards.artifact import get_artifact
from gristmill.shards.audit import audit_below
from tests.pipelines.lineage import without_user

pytest.importorskip("faker", reason="the names are in packages: pip install '.[names]'")
pytest.importorskip("hama", reason="pronunciations are of the package hama: pip install '.[teachers]'")
SMALL = [
    "runner=inprocess",
    "seeds=[0]",
    "corpus={train_records: 10, adapter_records: 6, development_records: 3, test_records: 5, texts: 40, "
    "sampling_rate: 8000, shard: {rows: 8}}",
    "features={n_mels: 40}",
    "base={model: {encoder: lstm, dim: 16, layers: 2, channels: 4, inner: [{layer: 1, of: phones}]}, "
    "schedule: {epochs: 1}}",
    "adapter={dim: 8, schedule: {epochs: 1}}",
    "tuning={tried: {bias.enter: [0.0], rescoring.weight: [0.1]}, sizes: [4]}",
    "lists={present: [4, 8], absent: [8], words: 10}",
]
CONFIG = str(Path(__file__).parents[3] / "configs" / "personalise.yaml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", CONFIG, *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("personalise")
    made = run(*SMALL, f"out={out}")
    assert made.exit_code == 0, made.output
    return out


def test_every_system_is_scored_with_every_list(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    scored = {(row["system"], row["test_set"]) for row in report["metrics"] if row["metric"] == "rare_f1"}
    assert scored == {(system, test) for system in SYSTEMS for test in ("n4", "n8", "absent8")}
    named = {row["metric"] for row in report["metrics"]}
    assert {"wer", "u_wer", "b_wer", "rare_f1", "rare_recall", "false_words", "false_words_hour"} <= named
    assert without_user(CONFIG, SMALL, finished) == []
    assert not any(one.gaps for one in audit_below(str(finished)))


def test_without_a_list_nothing_is_heard_otherwise(finished: Path) -> None:
    """What the base makes of an utterance does not depend on the lists of others."""
    report = json.loads((finished / "report.json").read_text())
    base = {
        row["test_set"]: row["value"] for row in report["metrics"] if (row["system"], row["metric"]) == ("base", "wer")
    }
    assert len(set(base.values())) == 1


def test_the_model_is_one_artifact_and_has_the_base_unchanged(finished: Path) -> None:
    made = {}
    for path in finished.glob("*/*/artifact.json"):
        artifact = get_artifact(str(path.parent))
        assert artifact is not None
        made[path.parent.parent.name] = artifact
    weights = "model.safetensors"
    assert canonical.sha256(made["joint"].read(weights)) == canonical.sha256(made["base"].read(weights))
    chosen = PersonalSettings.model_validate_json(made["joint"].read(SETTINGS_FILE)).bias.enter
    trials = [one for one in json.loads(made["joint"].read(TRIALS)) if one["setting"] == "bias.enter"]
    tried = {one["value"]: one["word_errors"] for one in trials}
    assert tried.keys() == {PersonalSettings().bias.enter, 0.0}
    assert tried[chosen] == min(tried.values())


def test_again_does_nothing(finished: Path) -> None:
    made = run(*SMALL, f"out={finished}")
    assert made.exit_code == 0
    assert "nothing to do" in made.output


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two speakers with lists, words and text, as of the public benchmark."""
    folder = tmp_path_factory.mktemp("speech")
    texts = ["call hamish at noon", "play something by zelda", "take me to dresden", "i took aspirin today"]
    names = ["hamish", "zelda", "dresden", "aspirin"]
    voices = ["hibari:heart", "hibari:heart,tract=0.9,pitch=0.8"]
    made = pa.table({"id": [f"{n}-0" for n in range(4)], "text": texts, "voice": [voices[n % 2] for n in range(4)]})
    spoken = Speak.stage(SpeakSettings(sampling_rate=16000)).build(0)(made)
    rows, lists = [], []
    for number, audio in enumerate(spoken["audio"].to_pylist()):
        (folder / f"{number}-0.flac").write_bytes(audio["bytes"])
        rows.append({"audio_filepath": f"{number}-0.flac", "speaker": str(number % 2), "text": texts[number]})
        lists.append(f"{number}-0\t{texts[number]}\t{json.dumps([names[number]])}\t{json.dumps(sorted(names))}")
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "lists.tsv").write_text("\n".join(lists))
    (folder / "words.txt").write_text("\n".join(["bob", "kumbo", "lisbon", *names]))
    (folder / "texts.txt").write_text("call me at noon\nplay something\ntake me to work today\ni took some by two\n")
    return folder


def real(speech: Path, out: Path) -> list[str]:
    return [
        "runner=inprocess",
        "corpus={adapter_records: 6, sampling_rate: 16000, shard: {rows: 8}}",
        f"speech={{places: {speech}/manifest.jsonl, lists: {speech}/lists.tsv, words: {speech}/words.txt, "
        f"common: null, texts: [{{place: {speech}/texts.txt}}]}}",
        "adapter={dim: 8, schedule: {epochs: 1}}",
        "tuning={tried: {bias.enter: [5.0]}, sizes: [3]}",
        "lists={present: [3], absent: [2], own: true, words: 7}",
        f"out={out}",
    ]


@pytest.mark.slow
def test_real_speech_is_heard_by_a_frozen_recogniser_of_phonemes(speech: Path, tmp_path: Path) -> None:
    config = CONFIG.replace("personalise.yaml", "personalise-librispeech.yaml")
    made = CliRunner().invoke(app, ["run", config, *real(speech, tmp_path)])
    assert made.exit_code == 0, made.output
    report = json.loads((tmp_path / "report.json").read_text())
    found = {(row["system"], row["test_set"]): row["value"] for row in report["metrics"] if row["metric"] == "wer"}
    assert set(found) == {(system, test) for system in SYSTEMS for test in ("n3", "absent2", "own")}
    assert all(0.0 < value < 1.0 for value in found.values()), "speech is heard, and names are no words of the text"
    assert not any(one.gaps for one in audit_below(str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("base={source: trained}", "a base of generated speech does not hear real speech; expected hama"),
        ("speech=null", "hama hears phonemes, not letters; expected real speech (speech) with it"),
        ("speech.lists=missing.tsv", "missing.tsv: no such file; expected lists of words"),
        ("lists.words=2", "lists.words: 2 words to draw lists of 3 from; expected as many or more"),
        ("speech.words=missing.txt", "speech.words: no such file: missing.txt"),
    ],
)
def test_what_does_not_fit_is_told_before_any_work(speech: Path, tmp_path: Path, change: str, sentence: str) -> None:
    config = CONFIG.replace("personalise.yaml", "personalise-librispeech.yaml")
    made = CliRunner().invoke(app, ["run", config, *real(speech, tmp_path / "out"), change])
    assert made.exit_code == 2, made.output
    assert sentence in made.output
    assert not (tmp_path / "out" / "speech").exists()


@pytest.mark.slow
def test_ray_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    made = run(*SMALL, f"out={tmp_path}", "runner=ray", "workers=2")
    assert made.exit_code == 0, made.output

    def digests(out: Path) -> set[tuple[str, str]]:
        return {(one.name, one.digest) for one in audit_below(str(out))}

    assert digests(tmp_path) <= digests(finished)
    assert len(digests(tmp_path)) > 15


@pytest.mark.slow
def test_a_plan_from_a_sample_has_pronunciations_of_all_its_words(tmp_path: Path) -> None:
    given = [one.replace("train_records: 10", "train_records: 60") for one in SMALL if one != "runner=inprocess"]
    arguments = ["plan", CONFIG, *given, f"out={tmp_path}", "runner=inprocess", "--sample", "8"]
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0, made.output
    assert "in total about" in made.output
