"""A toy language for tests of acoustic training: each letter is a band of its own for six frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.actors.speech.features import ragged
from gristmill.actors.speech.phases import AcousticTraining
from gristmill.actors.speech.trainer import train as train_by
from gristmill.models.speech.features import METADATA_KEY, FeatureSettings
from gristmill.models.speech.topk import METADATA_KEY as TOPK_KEY
from gristmill.models.speech.topk import TopKInfo
from gristmill.models.speech.units import UNITS_FILE, characters
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables

SETTINGS = FeatureSettings(sampling_rate=8000, n_mels=12)
UNITS = characters(["ab cd"])
MODEL = {"encoder": "lstm", "dim": 32, "layers": 1, "channels": 4, "subsampling": 2, "dropout": 0.1}


def spoken(text, rng):
    """Features in which each letter is a band of its own for six frames."""
    rows = np.zeros((6 * len(text), 12), np.float32)
    for i, letter in enumerate(text):
        rows[6 * i : 6 * i + 4, 2 * UNITS.tokens.index(letter) - 2 :][:, :2] = 3.0
    return (rows + 0.3 * rng.normal(size=rows.shape)).astype(np.float16)


def make_sets(root: Path) -> Path:
    """Make a gold set, a noisy copy of it, and top-k labels of the gold set that agree with its text."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcd "), rng.integers(3, 9))).strip() or "a" for _ in range(48)]

    def table(ids, parents):
        rows = [spoken(text, rng) for text in texts]
        return pa.table(
            {
                "id": ids,
                "parent_id": pa.array(parents, pa.string()),
                "text": texts,
                "features": ragged([r.ravel() for r in rows], pa.float16()),
                "feature_frames": pa.array([len(r) for r in rows], pa.int32()),
            }
        ).replace_schema_metadata({METADATA_KEY: SETTINGS.to_json()})

    ids = [f"r{i}" for i in range(len(texts))]
    for name, made in {
        "gold": table(ids, [None] * len(ids)),
        "noisy": table([f"{i}~0" for i in ids], ids),
    }.items():
        seal_tables(str(root / name), name, [made.slice(i, 12) for i in range(0, len(made), 12)])
    frames = [3 * len(text) for text in texts]
    labels = [[UNITS.tokens.index(c) if n == 1 else 0 for c in text for n in range(3)] for text in texts]
    ids_, logs = [], []
    for units in labels:
        pairs = np.array([[u, 1 if u == 0 else 0] for u in units])
        ids_.append(pairs.astype(np.uint16).ravel())
        logs.append(np.tile(np.log([0.9, 0.08]), len(units)).astype(np.float16))
    info = TopKInfo(k=2, frame_rate=50.0, vocabulary=UNITS.digest, teacher="t", features=vars(SETTINGS))
    columns = {
        "id": ids,
        "topk_ids": ragged(ids_, pa.uint16()),
        "topk_logprobs": ragged(logs, pa.float16()),
        "tail_logmass": ragged([np.full(n, np.log(0.02), np.float16) for n in frames], pa.float16()),
        "topk_frames": pa.array(frames, pa.int32()),
    }
    for name, described in {
        "labels": info,
        "other_rate": TopKInfo(2, 25.0, UNITS.digest, "t"),
        "other_units": TopKInfo(2, 50.0, "x", "t"),
        "other_features": TopKInfo(
            2, 50.0, UNITS.digest, "t", features=vars(FeatureSettings(sampling_rate=8000, n_mels=13))
        ),
    }.items():
        made = pa.table(columns).replace_schema_metadata({TOPK_KEY: described.to_json()})
        seal_tables(str(root / name), name, [made.slice(0, 30), made.slice(30)])
    put_artifact(str(root / "units"), {UNITS_FILE: UNITS.to_json().encode()}, {})
    return root


def config(sets, phases=None, **more):
    data = {
        "gold": {"features": str(sets / "gold"), "text": "text"},
        "noisy": {"features": str(sets / "noisy"), "labels": str(sets / "labels")},
    }
    first = phase("ctc", "gold", epochs=2, lr=5e-3) | {"specaugment": {"bands": 1}}
    base = {"data": data, "phases": phases or [first], "model": MODEL, "units": str(sets / "units")}
    return {**base, "batch_frames": 200, "seed": 3, **more}


def train(given, context):
    """Train with settings and inputs given in one mapping."""
    inputs = {name: given[name] for name in ("data", "units", "init") if name in given}
    settings = {name: value for name, value in given.items() if name not in inputs}
    return train_by(AcousticTraining.model_validate(settings), context, **inputs)


def phase(objective, *sources, **schedule):
    """Return a phase of one objective, on the given sources or all."""
    chosen = {"sources": sources} if sources else {}
    return {f"{objective}_weight": 1.0, "schedule": schedule, "soft": {"k": 2}, **chosen}


SCHEDULE = [
    phase("soft", "noisy", steps=7, lr=5e-3) | {"soft": {"k": 2, "tail": "bucket"}},
    phase("soft", epochs=0.5, lr=2e-3) | {"ctc_weight": 0.5, "soft": {"k": 1}},
    phase("mwer", "gold", steps=6, lr=1e-3) | {"ctc_weight": 0.1},
]
