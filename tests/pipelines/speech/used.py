"""A recogniser with random weights, and the output of a run that has it: what it hears is nonsense, always the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from gristmill.actors.speech.features import ragged
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.units import characters
from gristmill.pipelines.report.measures import WER
from gristmill.pipelines.report.report import LineageNode, MetricRow, Report, TestSet
from gristmill.pipelines.report.write import write_report
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact, put_artifact

UNITS = characters(["ab cd"])
FEATURES = FeatureSettings(n_mels=16, sampling_rate=8000)


def weights(seed: int = 0, encoder: str = "gru") -> bytes:
    torch.manual_seed(seed)
    sizes = AcousticSettings(encoder=encoder, dim=16, layers=1, heads=2, channels=2, subsampling=3)
    model = AcousticModel(sizes, FEATURES.n_mels, len(UNITS)).eval()
    with torch.no_grad():
        model.head.weight.mul_(9)  # else one unit is the likeliest in all frames
    return save_acoustic(model, UNITS, FEATURES)


def recogniser(url: Path, seed: int = 0) -> Artifact:
    files = {"model.safetensors": weights(seed), "training.json": b"{}"}
    return put_artifact(str(url), files, {"job": url.parent.name})


def spoken(frames: int) -> np.ndarray:
    """Features (frames, n_mels)."""
    return np.random.default_rng(frames).normal(size=(frames, FEATURES.n_mels)).astype(np.float16)


def features(*frames: int) -> pa.Table:
    """A row of features for each number of frames."""
    rows = ragged([spoken(number).ravel() for number in frames], pa.float16())
    return pa.table({"id": [str(place) for place in range(len(frames))], "features": rows})


def finished(out: Path, sets: Mapping[str, pa.Table] | None = None) -> Path:
    """A run of two systems and two seeds, of which ``student`` is the better one on the mean of both test sets.

    ``sets`` are what else it made.
    """
    run = Run(str(out), InProcessRunner(), seeds=[0, 1])
    rates = {"teacher": (0.1, 0.7), "student": (0.2, 0.3)}
    for seed in (0, 1):
        for number, system in enumerate(rates):
            made = recogniser(out / system / f"{seed}{number}", 2 * seed + number)
            run._note(run.plan.artifact(system, "training", None).node, made, 0.0, kept=False)
    rows = [
        MetricRow(system, test, "wer", rate + 0.1 * (seed == 1), rate, rate, 9, seed)
        for system, own in rates.items()
        for test, rate in zip(("clean", "noisy"), own, strict=True)
        for seed in (None, 0, 1)
    ]
    sealed = run.table("features_clean", features(40, 95))
    for name, made in (sets or {}).items():
        run.table(name, made)
    lineage = [LineageNode("features_clean", sealed.digest, (), "source")]
    lineage += [LineageNode(f"{one.name} {one.url[-2:]}", one.digest, ["features_clean"]) for one in run.trace[:4]]
    report = Report(
        title="T",
        recipe={"name": "distill", "corpus": {"digits": "/home/me/data/digits"}},
        measures=[WER],
        baseline="teacher",
        metrics=rows,
        test_sets={"clean": TestSet(), "noisy": TestSet()},
        run={"seeds": [0, 1]},
        lineage=lineage,
    )
    write_report(str(out), report)
    run.write_ledger("distill", "")
    return out
