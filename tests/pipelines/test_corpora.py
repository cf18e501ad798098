"""The user's own files: several places in one part, and what a change of a file redoes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cluster.inprocess import InProcessRunner
from pipelines.corpora import Corpora, CorpusSettings, prepare_corpora
from pipelines.run import Run

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
    """Make the corpora of a run; its trace tells what was done and what was kept."""

    def prepared(**settings: object) -> tuple[Corpora, Run]:
        run = Run(str(tmp_path / "out"), InProcessRunner())  # type: ignore[arg-type]
        return prepare_corpora(run, CorpusSettings(sampling_rate=RATE, **settings)), run

    return prepared


def test_places_of_one_name_are_numbered(tmp_path: Path, prepare: Callable[..., tuple[Corpora, Run]]) -> None:
    for place in ("a/train", "b/train", "c/train-1", "d/other", "test"):
        utterance(tmp_path / place / "x.wav")
    places = tuple(str(tmp_path / place) for place in ("a/train", "b/train", "c/train-1", "d/other"))
    corpora, _ = prepare(labelled=places, unlabelled=places[0] + "/", test=str(tmp_path / "test"))
    ids = [key for table in corpora.labelled.tables(["id"]) for key in table["id"].to_pylist()]
    assert ids == ["train-2/x.wav", "train-3/x.wav", "train-1/x.wav", "other/x.wav"]
    assert corpora.unlabelled.read(0)["id"].to_pylist() == ["train/x.wav"]
