"""The actor that writes down what CTC models hear."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.decode import greedy, prefix_beam_search
from gristmill.models.speech.features import METADATA_KEY
from gristmill.shards.errors import UserError
from gristmill.shards.stage import ArtifactRef, BatchLimits, Resources, Stage

VERSION = 2


class Recognise:
    """Writes each row's features down by each of some models: one column ``hypothesis_<name>`` a model.

    ``beam`` 0 takes the best path. On a CPU each utterance runs alone, so that its text cannot depend on its batch; on
    a GPU the batch runs at once.
    """

    def __init__(self, beam: int = 0, tokens: int = 8, device: str = "cpu", **models: str) -> None:
        self.models = {name: Checkpoint(url, device, "float32") for name, url in models.items()}
        self.beam, self.tokens, self.alone = beam, tokens, device == "cpu"

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch; rows without a frame of features are empty texts."""
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
        if self.beam == 0:
            return list(greedy(scores))
        found = prefix_beam_search(scores, self.beam, tokens=self.tokens)
        return list(found[0].units) if found else []


def stage(
    models: Mapping[str, ArtifactRef], name: str = "recognise", beam: int = 0, resources: Resources | None = None
) -> Stage:
    """Return the stage that writes features down by the models of some artifacts, and leaves the features behind."""
    resources = resources or Resources()
    return Stage(
        name=name,
        actor="gristmill.actors.speech.recognise:Recognise",
        adds=tuple(pa.field(f"hypothesis_{model}", pa.string()) for model in models),
        drops=("features",),
        params={"beam": beam, "device": "cuda" if resources.gpus else "cpu"},
        artifacts=dict(models),
        version=VERSION,
        batch=BatchLimits(rows=32, cost="feature_frames", max_cost=48000),
        resources=resources,
        deterministic=not resources.gpus,
    )
