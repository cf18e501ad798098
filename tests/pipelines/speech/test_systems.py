"""Settings of the systems: what the trainer would refuse is refused when they are read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gristmill.models.speech.acoustic import ENCODERS, STRIDES, AcousticConfig
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.pipelines import config
from gristmill.pipelines.command.cli import app
from gristmill.pipelines.speech.systems import Data, ModelSettings, SpecAugmentSettings, Systems, SystemSettings
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables

RECIPE = str(Path(config.__file__).parent.parent / "configs" / "distill.yaml")


def test_settings_are_those_of_the_models() -> None:
    sizes = asdict(AcousticConfig())
    del sizes["n_mels"], sizes["vocab"]
    assert ModelSettings().model_dump() == sizes
    assert SpecAugmentSettings().model_dump() == asdict(SpecAugment())
    for encoder in ENCODERS:
        for subsampling in STRIDES:
            given = ModelSettings.model_validate({"encoder": encoder, "subsampling": subsampling})
            AcousticConfig(**given.model_dump())


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
    "kernel": (
        "systems.model={encoder: conformer, dim: 64, kernel: 4}",
        "kernel 4 is not right; expected an odd number",
    ),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told_when_the_recipe_is_read(tmp_path: Path, override: str, message: str) -> None:
    result = CliRunner().invoke(app, ["run", RECIPE, override, f"out={tmp_path / 'out'}"])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_saved_settings_make_the_same_job(tmp_path: Path) -> None:
    """Defaults are part of a job, whether they were written down or not."""
    sealed = seal_tables(str(tmp_path / "set"), "set", [pa.table({"id": ["a"]})])
    settings = SystemSettings.model_validate({"model": {"encoder": "gru", "dim": 32}, "specaugment": {"bands": 3}})
    again = SystemSettings.model_validate(settings.model_dump(mode="json"))
    one, other = (Systems(s, {"tokens": []}, 0).teacher(Data(sealed, sealed, sealed)) for s in (settings, again))
    assert one.identity() == other.identity()
    assert AcousticConfig(**one.config["model"]).encoder == "gru"
    assert SpecAugment(**one.config["phases"][0]["specaugment"]).bands == 3


def test_learners_of_labels_begin_with_the_teacher_where_that_is_asked(tmp_path: Path) -> None:
    sealed = seal_tables(str(tmp_path / "set"), "set", [pa.table({"id": ["a"]})])
    teacher = put_artifact(str(tmp_path / "teacher"), {"model.safetensors": b"weights"}, {})
    data = Data(sealed, sealed, sealed, sealed, sealed, teacher)
    for init in ("random", "teacher", "auto"):
        made = Systems(SystemSettings.model_validate({"init": init}), {"tokens": ["<blank>", "a"]}, 0)
        for job in (made.student(data), made.hard_labels(data), made.sweep_cell(data, 1, 1.0, 2)):
            assert job.config.get("init") == (None if init == "random" else teacher)
            assert ("model" in job.config) == ("units" in job.config) == (init == "random")
        assert "init" not in made.multicondition(data).config, "the baseline has the annotated part alone"


def test_teacher_from_outside_has_no_weights_to_begin_with() -> None:
    result = CliRunner().invoke(app, ["run", RECIPE, "teacher.source=hama", "systems.init=teacher"])
    assert result.exit_code == 2
    assert "systems.init: 'teacher' needs a teacher trained here, not hama" in " ".join(result.stderr.split())
