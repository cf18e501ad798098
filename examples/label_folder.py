"""Label a folder of audio by an acoustic checkpoint: top-k distributions of each frame, and a transcript.

python examples/label_folder.py
"""

import tempfile
from functools import partial
from pathlib import Path

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe
from gristmill.actors.speech.teacher import TeacherSettings, labelling
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.units import characters
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import digest_of
from gristmill.shards.step import Step

import numpy as np
import soundfile
import torch


def make(folder: Path) -> None:
    """Write tones as audio, and a model with random weights; give your own folders instead."""
    for name in ("audio", "model"):
        (folder / name).mkdir()
    for number in range(4):
        tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * np.arange(8000) / 16000)
        soundfile.write(folder / "audio" / f"{number}.wav", tone, 16000)
    features, units = FeatureSettings(n_mels=40), characters(["abc"])
    torch.manual_seed(0)
    model = AcousticModel(AcousticSettings(dim=16, layers=1, channels=4), features.n_mels, len(units))
    (folder / "model" / "model.safetensors").write_bytes(save_acoustic(model, units, features))


def main(folder: Path) -> None:
    """List, read and label the folder, in this process."""
    make(folder)
    run = Run(str(folder / "out"), InProcessRunner())
    tables = partial(list_sources, str(folder / "audio"))
    listed = run.source("listed", tables, {"rows": digest_of(tables())})  # a listing that changed is another set
    teacher = labelling(TeacherSettings(source="checkpoint", k=3, hypothesis=True), str(folder / "model"))
    stages = (Probe.stage(), Load.stage(LoadSettings(annotated=False)), teacher)
    labelled = run.step(Step("labelled", stages, listed))
    for row in labelled.read(0).to_pylist():
        print(f"{row['id']}: {row['duration']} s, {row['topk_frames']} frames, {row['hypothesis']!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
