"""The distance of a record from in-domain text, by a centroid that is fitted on a whole set or by language models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.embed import EMBEDDING, vectors_of
from gristmill.actors.nearest import DISTANCE, draw
from gristmill.models.text.selection import Metric, Moments, load_centroid
from gristmill.shards.artifact import get_artifact, read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

SAMPLES = (pa.field("general", pa.bool_()), pa.field("other", pa.bool_()))


class CentroidSettings(Settings):
    """The distance of a text from the in-domain texts."""

    metric: Metric = "cosine"
    """The distance: 1 - cosine (0 to 2), or Mahalanobis."""


def centroid(settings: CentroidSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Fit the centroid of a set's ``embedding``: moments shard by shard, merged in the order of the shards.

    Raises:
        UserError: there are no non-zero vectors, or fewer than two for a covariance.
    """
    whole: Moments | None = None
    for table in open_sealed(data).tables([EMBEDDING]):
        found = Moments.of(vectors_of(table[EMBEDDING]), covariance=settings.metric == "mahalanobis")
        whole = found if whole is None else whole.merged(found)
    try:
        files = (whole or Moments(0, np.zeros(0))).centroid().files()
    except ValueError as error:
        raise UserError(f"select: the in-domain set {data} has {error}; expected text to compare with") from None
    return {"files": files, "records": whole.count if whole else 0}


class Distance(Actor):
    """Replaces ``embedding`` by ``distance`` from a centroid: 1 - cosine, or the Mahalanobis distance."""

    name = "distance"
    adds = (DISTANCE,)
    drops = (EMBEDDING,)
    batch = BatchLimits(4096)

    def __init__(self, settings: Settings, centroid: str) -> None:
        super().__init__(settings)
        artifact = get_artifact(centroid)
        has_precision = artifact is not None and "precision.npy" in artifact.files
        precision = read_file(centroid, "precision.npy") if has_precision else None
        self._centroid = load_centroid(read_file(centroid, "centroid.npy"), precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``distance``."""
        dim = batch.schema.field(EMBEDDING).type.list_size
        if dim != len(self._centroid.mean):
            raise UserError(
                f"select: vectors have {dim} dimensions, the in-domain ones {len(self._centroid.mean)}; "
                "expected both from one model"
            )
        far = self._centroid.distances(vectors_of(batch[EMBEDDING]))
        return set_column(batch, DISTANCE.name, pa.array(far, DISTANCE.type))


class SampleSettings(Settings):
    """Two disjoint random samples of records."""

    share: float = Field(gt=0, le=0.5)
    """The share of the records in each."""


class Sampled(Actor):
    """Adds ``general`` and ``other``: whether a record, drawn by its id, is in the first or the second sample."""

    name = "sampled"
    adds = SAMPLES
    batch = BatchLimits(4096)
    settings: SampleSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``general`` and ``other``."""
        share = self.settings.share
        drawn = np.array([draw("general", name) for name in batch["id"].to_pylist()])
        batch = set_column(batch, SAMPLES[0].name, pa.array(drawn < share))
        return set_column(batch, SAMPLES[1].name, pa.array((drawn >= share) & (drawn < 2 * share)))


class EntropyDistance(Actor):
    """Adds ``distance``: cross-entropy difference, in nats per word, of the in-domain and a general model.

    Moore and Lewis, "Intelligent Selection of Language Model Training Data" (ACL 2010). The models share a vocabulary,
    and their scores are in ``in_logprob``, ``general_logprob``, ``other_logprob`` and ``in_words``. A text that the
    general model was estimated from is scored by the other model, to which it is as unseen as all others.
    """

    name = "distance"
    adds = (DISTANCE,)
    batch = BatchLimits(4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``distance``."""
        inside, general, other, words = (
            np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64)
            for name in ("in_logprob", "general_logprob", "other_logprob", "in_words")
        )
        seen = np.asarray(batch[SAMPLES[0].name].to_numpy(zero_copy_only=False), bool)
        far = (np.where(seen, other, general) - inside) / words
        return set_column(batch, DISTANCE.name, pa.array(far.astype(np.float32)))
