"""The actor that transcribes utterances by CTC models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.decode import DecodingSettings, greedy, prefix_beam_search
from gristmill.models.speech.features import METADATA_KEY
from gristmill.shards.errors import UserError
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Resources, Stage


class RecogniserSettings(DecodingSettings):
    """Settings of decoding, and the device."""

    device: str = "cpu"


class Recogniser(Actor):
    """Transcribes each row's features by each model: one column ``hypothesis_<name>`` per model.

    On a CPU each utterance runs alone, so that its text cannot depend on its batch; on a GPU the batch runs at once.
    The features are dropped. :func:`recognition` makes its stage.
    """

    name = "recognise"
    version = 2
    drops = ("features",)
    batch = BatchLimits(rows=32, cost="feature_frames", max_cost=48000)
    settings: RecogniserSettings

    def __init__(self, settings: RecogniserSettings, **models: str) -> None:
        super().__init__(settings)
        self.models = {name: Checkpoint(url, settings.device, "float32") for name, url in models.items()}
        self.alone = settings.device == "cpu"

    @classmethod
    def contract(cls, settings: RecogniserSettings) -> Mapping[str, Any]:
        """Return the reproducibility of the texts: only a CPU is deterministic."""
        return {"deterministic": settings.device == "cpu"}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        flat = rows_of(batch["features"])
        written = (batch.schema.metadata or {}).get(METADATA_KEY.encode(), b"").decode()
        for name, model in self.models.items():
            settings = model.info.features
            if settings is None or written != settings.to_json():
                raise UserError(f"recognise: the features were made with {written or 'unknown settings'}, not {name}'s")
            rows = [row.reshape(-1, settings.n_mels) for row in flat]
            heard = [place for place, row in enumerate(rows) if len(row)]
            texts = [""] * len(rows)
            for group in [[place] for place in heard] if self.alone else [heard]:
                log_probs, frames = model([rows[place] for place in group])
                for place, scores, count in zip(group, log_probs.cpu().numpy(), frames, strict=True):
                    texts[place] = model.info.units.decode(self._units(scores[:count]))
            batch = set_column(batch, f"hypothesis_{name}", pa.array(texts, pa.string()))
        return batch

    def _units(self, scores: np.ndarray) -> list[int]:
        if self.settings.beam == 0:
            return list(greedy(scores))
        found = prefix_beam_search(scores, self.settings.beam)
        return list(found[0].units) if found else []


def recognition(
    models: Mapping[str, ArtifactRef], settings: RecogniserSettings | None = None, resources: Resources | None = None
) -> Stage:
    """Return the stage that transcribes features by the models of artifacts."""
    resources = resources or Resources()
    settings = (settings or RecogniserSettings()).but(device="cuda" if resources.gpus else "cpu")
    adds = tuple(pa.field(f"hypothesis_{model}", pa.string()) for model in models)
    return replace(Recogniser.stage(settings, resources=resources), adds=adds, artifacts=dict(models))
