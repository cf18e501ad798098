"""The actor that writes down what a CTC model hears."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from actors.audio import set_column
from actors.features import rows_of
from models.decode import greedy, prefix_beam_search
from shards.stage import ArtifactRef, BatchLimits, Resources, Stage
from shards.store import join, read_bytes

VERSION = 1


class Recognise:
    """Adds ``hypothesis``, the text of each row's features. ``beam`` 0 takes the best path.

    On a CPU each utterance runs alone, so that its text cannot depend on its batch; on a GPU the batch runs at once.
    """

    def __init__(self, model: str, beam: int = 0, tokens: int = 8, device: str = "auto") -> None:
        import torch

        from models.checkpoint import load_acoustic

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        network, self.units, self.settings = load_acoustic(read_bytes(join(model, "model.safetensors")))
        self.network = network.to(self.device)
        self.beam, self.tokens = beam, tokens

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        rows = [r.reshape(-1, self.settings.n_mels) for r in rows_of(batch.column("features"))]
        groups = [[row] for row in rows] if self.device.type == "cpu" else [rows]
        texts = [self._text(scores) for group in groups if group for scores in self._scores(group)]
        return set_column(batch, "hypothesis", pa.array(texts, pa.string()))

    def _scores(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """Return log-probabilities (T', V) of each of some utterances."""
        import torch

        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        padded = np.zeros((len(rows), max(1, *map(len, rows), 1), self.settings.n_mels), np.float32)
        for into, row in zip(padded, rows, strict=True):
            into[: len(row)] = row
        with torch.inference_mode():
            scores, frames = self.network(torch.from_numpy(padded).to(self.device), lengths)
        out = scores.cpu().numpy()
        return [out[i, :n] for i, n in enumerate(frames.tolist())]

    def _text(self, scores: np.ndarray) -> str:
        if self.beam == 0:
            return self.units.decode(greedy(scores))
        found = prefix_beam_search(scores, self.beam, tokens=self.tokens)
        return self.units.decode(found[0].units if found else ())


def stage(model: ArtifactRef, name: str = "recognise", beam: int = 0, resources: Resources | None = None) -> Stage:
    """Return the stage that decodes features with the model of an artifact."""
    return Stage(
        name=name,
        actor="actors.recognise:Recognise",
        adds=(pa.field("hypothesis", pa.string()),),
        params={"beam": beam},
        artifacts={"model": model},
        version=VERSION,
        batch=BatchLimits(rows=32, cost="feature_frames", max_cost=48000),
        resources=resources or Resources(),
    )
