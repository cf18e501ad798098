"""Translators trained and texts translated on Ray: the bytes of one process, whatever the workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.models.text.translator import TranslatorSizes
from gristmill.pipelines.run import Run
from gristmill.pipelines.scheduler import Cluster
from gristmill.pipelines.text.translators import (
    TranslateSettings,
    TranslatorSettings,
    translate,
    translator_job,
)
from gristmill.shards.artifact import Artifact
from tests.actors.text.translators import sealed, sentences

SETTINGS = TranslatorSettings(
    model=TranslatorSizes(dim=32, encoder_layers=1, decoder_layers=1, ff=64, heads=2),
    units=120,
    epochs=3,
    lr=4e-3,
    batch_units=200,
)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    pairs = sealed(tmp_path, "pairs", sentences(120))
    texts = sealed(tmp_path, "texts", sentences(60, seed=1))
    how = TranslateSettings(n=3, rows=7, shard={"rows": 16})

    def trained(cluster: Cluster, name: str) -> Artifact:
        return Run(str(tmp_path / name), cluster).train(translator_job("translator", [pairs], SETTINGS))

    def translated(cluster: Cluster, name: str, translator: Artifact) -> str:
        run = Run(str(tmp_path / name), cluster)
        found = translate(run, "translations", texts, translator, how, source_lang="en", target_lang="hi")
        assert len(found.shards) == 4
        return found.digest

    here, there = trained(InProcessRunner(), "here"), trained(RayRunner(2), "there")
    assert here.digest == there.digest, "one rank trains it, whatever the workers beside it"
    whole = translated(InProcessRunner(), "here", here)
    for number in (1, 2, 4):
        assert translated(RayRunner(number), f"ray{number}", there) == whole


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_two_ranks_train_together(tmp_path: Path) -> None:
    pairs = sealed(tmp_path, "pairs", sentences(120))
    settings = SETTINGS.but(ranks=2)
    made = [
        Run(str(tmp_path / name), RayRunner(2)).train(translator_job("translator", [pairs], settings))
        for name in ("one", "other")
    ]
    assert made[0].digest == made[1].digest
    curves = json.loads(made[0].read("training.json"))["curves"]
    assert curves[-1]["loss"] < curves[0]["loss"]
