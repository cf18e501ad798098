"""Settings of the systems: errors of the trainer are raised when they are read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gristmill.actors.speech.phases import AcousticTraining
from gristmill.models.speech.losses import SoftTargetSettings
from gristmill.models.speech.units import Units
from gristmill.pipelines import config
from gristmill.pipelines.command.cli import app
from gristmill.pipelines.speech.systems import Data, Systems, SystemSettings
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import resolved

RECIPE = str(Path(config.__file__).parent.parent / "configs" / "distill.yaml")


WRONG = {
    "mask": ("systems.specaugment.band_mask=2", "did you mean 'band_masks'?"),
    "size": ("systems.model.dmi=1", "did you mean 'dim'?"),
    "encoder": ("systems.model.encoder=transformer", "expected 'conformer', 'lstm' or 'gru'"),
    "subsampling": ("systems.model.subsampling=5", "expected 1, 2, 3, 4, 6 or 8"),
    "not the user's": ("systems.model.n_mels=40", "there is no such setting"),
    "range": ("systems.model.dropout=1.0", "expected less than 1"),
    "share": ("systems.specaugment.time_share=2", "expected less than or equal to 1"),
    "halves": ("systems.model.dim=33", "systems.model: dim 33 is not right; expected an even number"),
    "heads": ("systems.model={encoder: conformer, dim: 20}", "expected a multiple of twice the heads, 8"),
    "no length": ("systems.student.epochs=null", "systems.student: epochs and steps: expected one of them"),
    "k of the sweep": ("sweep.k=[1,41]", "expected less than or equal to 40"),
    "kernel": (
        "systems.model={encoder: conformer, dim: 64, kernel: 4}",
        "kernel 4 is not right; expected an odd number",
    ),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_errors_when_the_recipe_is_read(tmp_path: Path, override: str, message: str) -> None:
    result = CliRunner().invoke(app, ["run", RECIPE, override, f"out={tmp_path / 'out'}"])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def systems(tmp_path: Path, settings: SystemSettings, vocabulary: int = 2) -> tuple[Systems, Data]:
    sealed = seal_tables(str(tmp_path / "set"), "set", [pa.table({"id": ["a"]})])
    teacher = put_artifact(str(tmp_path / "teacher"), {"model.safetensors": b"weights"}, {})
    letters = Units("characters", ("<blank>", *"abcdefgh"[: vocabulary - 1]))
    units = put_artifact(str(tmp_path / f"units{vocabulary}"), {"units.json": letters.to_json().encode()}, {})
    return Systems(settings, units, 0), Data(sealed, sealed, sealed, sealed, sealed, teacher)


def training(job: TrainJob) -> AcousticTraining:
    settings = resolved(job).settings
    assert isinstance(settings, AcousticTraining)
    return settings


def test_saved_settings_make_the_same_job(tmp_path: Path) -> None:
    """Defaults are part of a job, whether they are written out or not."""
    settings = SystemSettings.model_validate({"model": {"encoder": "gru", "dim": 32}, "specaugment": {"bands": 3}})
    again = SystemSettings.model_validate(settings.model_dump(mode="json"))
    jobs = []
    for given in (settings, again):
        made, data = systems(tmp_path, given)
        jobs.append(made.teacher(data))
    assert resolved(jobs[0]).identity() == resolved(jobs[1]).identity()
    assert training(jobs[0]).model.encoder == "gru"
    masks = training(jobs[0]).phases[0].specaugment
    assert masks is not None
    assert masks.bands == 3


def test_gold_text_comes_last_beside_the_soft_labels(tmp_path: Path) -> None:
    chosen = {"ema": 0.5, "student": {"epochs": 3, "k": 7, "temperature": 4.0}, "gold": {"epochs": 2, "lr": 1e-5}}
    made, data = systems(tmp_path, SystemSettings.model_validate(chosen), vocabulary=5)
    given = training(made.student(data))
    soft, gold = given.phases
    assert given.ema == 0.5
    assert (soft.soft_weight, soft.ctc_weight, soft.mwer_weight) == (1.0, 0.0, 0.0)
    assert (gold.soft_weight, gold.ctc_weight, gold.mwer_weight) == (1.0, 0.3, 0.0)
    assert (soft.sources, soft.schedule.epochs) == (None, 3)
    assert (gold.sources, gold.schedule.lr) == (("gold",), 1e-5)
    assert soft.soft == gold.soft == SoftTargetSettings(k=5, temperature=4.0), "k is at most the vocabulary"
    cells = [made.sweep_cell(data, k, 2.0, 1) for k in (4, 5, 40)]
    assert [training(cell).phases[0].soft.k for cell in cells] == [4, 5, 5]
    identities = [resolved(cell).identity() for cell in cells]
    assert identities[1] == identities[2] != identities[0]


def test_a_student_may_learn_the_teachers_transcripts_too(tmp_path: Path) -> None:
    given = {"specaugment": {}, "student": {"epochs": 1, "ctc_weight": 0.5, "transcripts": True}}
    made, data = systems(tmp_path, SystemSettings.model_validate(given))
    job = made.student(data)
    assert job.inputs["data"]["soft"]["text"] == "hypothesis"
    assert [phase.ctc_weight for phase in training(job).phases] == [0.5, 0.3]
    cell = made.sweep_cell(data, 1, 1.0, 2)
    assert "text" not in cell.inputs["data"]["soft"]
    assert training(cell).phases[0].ctc_weight == 0, "cells are trained on soft labels alone"
    assert training(made.hard_labels(data)).phases[0].specaugment is not None
    plain, _ = systems(
        tmp_path, SystemSettings.model_validate({"specaugment": {}, "hard_labels": {"epochs": 1, "specaugment": False}})
    )
    assert "text" not in plain.student(data).inputs["data"]["soft"]
    assert training(plain.hard_labels(data)).phases[0].specaugment is None
    assert training(plain.multicondition(data)).phases[0].specaugment is not None


def test_learners_of_labels_begin_with_the_teacher_where_that_is_asked(tmp_path: Path) -> None:
    for init in ("random", "teacher", "auto"):
        made, data = systems(tmp_path, SystemSettings.model_validate({"init": init}))
        for job in (made.student(data), made.hard_labels(data), made.sweep_cell(data, 1, 1.0, 2)):
            assert job.inputs.get("init") == (None if init == "random" else data.teacher)
            assert ("units" in job.inputs) == (init == "random")
        assert "init" not in made.multicondition(data).inputs, "the baseline has the annotated part alone"


def test_teacher_from_outside_has_no_weights_to_begin_with() -> None:
    result = CliRunner().invoke(app, ["run", RECIPE, "teacher.source=hama", "systems.init=teacher"])
    assert result.exit_code == 2
    assert "systems.init: 'teacher' needs a teacher trained here, not hama" in " ".join(result.stderr.split())
