"""The personalisation recipe from end to end, small: every system with every list, and its model used with a list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gristmill.actors.speech.personal_model import SETTINGS_FILE
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
    "corpus={train_records: 16, adapter_records: 8, development_records: 4, test_records: 6, texts: 60, "
    "sampling_rate: 8000, shard: {rows: 8}}",
    "features={n_mels: 40}",
    "base={model: {encoder: lstm, dim: 16, layers: 2, channels: 4, inner: [{layer: 1, of: phones}]}, "
    "schedule: {epochs: 1}}",
    "adapter={dim: 8, schedule: {epochs: 1}}",
    "tuning={tried: {bias.enter: [0.0], rescoring.weight: [0.1]}, sizes: [10]}",
    "lists={present: [10, 20], absent: [20], words: 30}",
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
    assert scored == {(system, test) for system in SYSTEMS for test in ("n10", "n20", "absent20")}
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
    assert PersonalSettings.model_validate_json(made["joint"].read(SETTINGS_FILE)).bias.enter in (0.0, 1.0)


def test_again_does_nothing(finished: Path) -> None:
    made = run(*SMALL, f"out={finished}")
    assert made.exit_code == 0
    assert "nothing to do" in made.output


@pytest.mark.slow
def test_ray_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    made = run(*SMALL, f"out={tmp_path}", "runner=ray", "workers=2")
    assert made.exit_code == 0, made.output

    def digests(out: Path) -> set[tuple[str, str]]:
        return {(one.name, one.digest) for one in audit_below(str(out))}

    assert digests(tmp_path) <= digests(finished)
    assert len(digests(tmp_path)) > 15
