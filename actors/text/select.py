"""Selection in two passes: a centroid or a threshold is fitted on a whole set, and actors apply it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.text.embed import EMBEDDING, vectors_of
from gristmill.models.text.selection import BINS, Metric, Moments, border, histogram, load_centroid, places
from gristmill.shards import canonical
from gristmill.shards.artifact import get_artifact, read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

DISTANCE = pa.field("distance", pa.float32())
SAMPLES = (pa.field("general", pa.bool_()), pa.field("other", pa.bool_()))
TOO_FAR = "outside the radius"
THRESHOLD = "threshold.json"


class CentroidSettings(Settings):
    """The distance of a text from the in-domain texts."""

    metric: Metric = "cosine"
    """The distance: 1 - cosine (0 to 2), or Mahalanobis."""


class ThresholdSettings(Settings):
    """The number or distance of the records to keep."""

    radius: float | None = None
    """The distance up to which records are kept; ``None``: the nearest ``count`` records."""
    count: int = Field(0, ge=0)
    """The number of records to keep if there is no radius."""


def centroid(settings: CentroidSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Fit the centroid of a set's ``embedding``: moments shard by shard, merged in the order of the shards.

    Raises:
        UserError: there are no non-zero vectors, or fewer than two for a covariance.
    """
    whole: Moments | None = None
    for table in open_sealed(data).tables([EMBEDDING]):
        dim = table.schema.field(EMBEDDING).type.list_size
        found = Moments.of(vectors_of(table[EMBEDDING], dim), covariance=settings.metric == "mahalanobis")
        whole = found if whole is None else whole.merged(found)
    try:
        files = (whole or Moments(0, np.zeros(0))).centroid().files()
    except ValueError as error:
        raise UserError(f"select: the in-domain set {data} has {error}; expected text to compare with") from None
    return {"files": files, "records": whole.count if whole else 0}


def threshold(settings: ThresholdSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Find the ``distance`` within which ``count`` records of a set lie, or count those within a ``radius``.

    Ties are broken by id, smaller ids first, so that exactly ``count`` are kept. The set is read twice: for a
    histogram, and for the records of the bin that holds the last of the nearest ``count``. Records with a non-finite
    distance are never kept.

    Raises:
        UserError: no record would be kept.
    """
    radius, count = settings.radius, settings.count
    counts, total, within, nearest = np.zeros(BINS, np.int64), 0, 0, math.inf
    for distances in _distances(data):
        finite = distances[np.isfinite(distances)]
        total += len(distances)
        nearest = min(nearest, float(finite.min(initial=math.inf)))
        within += int((finite <= np.float32(radius)).sum()) if radius is not None else len(finite)
        if radius is None:
            counts += histogram(finite)
    kept = within if radius is not None else min(count, within)
    if not kept:
        asked = f"a radius of {radius:g}" if radius is not None else f"{count} of {total} records"
        raise UserError(
            f"select: {asked} keeps nothing of {data}, whose nearest record is at {nearest:g}; expected a threshold "
            "that some records are within"
        )
    if radius is not None:
        limit = _Limit(distance=float(np.float32(radius)), last_id=None)
    else:
        limit = _last(data, *border(counts, kept))
    found = {"records": total, "kept": kept, **limit}
    return {"files": {THRESHOLD: canonical.dumps(found)}, **found}


class _Limit(TypedDict):
    """The last record that is kept; without an id, all records at its distance are."""

    distance: float
    last_id: str | None


def _last(url: str, place: int, number: int) -> _Limit:
    """Return the distance and id of the last record that is kept: the ``number``-th of a bin, by distance and id."""
    far: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    for table in open_sealed(url).tables(["id", DISTANCE.name]):
        distances = _numbers(table)
        own = np.flatnonzero(np.isfinite(distances))
        own = own[places(distances[own]) == place]
        far.append(distances[own])
        ids.append(np.array(table["id"].take(own).to_pylist(), dtype=object))
    distances, names = np.concatenate(far), np.concatenate(ids)
    # By UTF-8 bytes, as Arrow compares; this is also code-point order.
    last = sorted(range(len(names)), key=lambda row: (distances[row], names[row]))[number - 1]
    return _Limit(distance=float(distances[last]), last_id=names[last])


def _distances(url: str) -> Iterator[np.ndarray]:
    for table in open_sealed(url).tables([DISTANCE.name]):
        yield _numbers(table)


def _numbers(table: pa.Table) -> np.ndarray:
    return np.asarray(table[DISTANCE.name].to_numpy(zero_copy_only=False), np.float32)


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
        far = self._centroid.distances(vectors_of(batch[EMBEDDING], dim))
        return set_column(batch, DISTANCE.name, pa.array(far, DISTANCE.type))


class DrawSettings(Settings):
    """A random order of records."""

    seed: int = 0
    """The seed of the order."""


class DrawnDistance(Actor):
    """Adds a random ``distance`` from 0 to 1, drawn by seed and id: the nearest records are a random sample."""

    name = "distance"
    adds = (DISTANCE,)
    batch = BatchLimits(4096)
    settings: DrawSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``distance``."""
        drawn = [_drawn(self.settings.seed, name) for name in batch["id"].to_pylist()]
        return set_column(batch, DISTANCE.name, pa.array(np.array(drawn, np.float32)))


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
        drawn = np.array([_drawn("general", name) for name in batch["id"].to_pylist()])
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


class Keep(Actor):
    """Rejects records beyond a threshold; at its distance, those with a greater id than its last record."""

    name = "keep"
    batch = BatchLimits(4096)

    def __init__(self, settings: Settings, threshold: str) -> None:
        super().__init__(settings)
        limit = json.loads(read_file(threshold, THRESHOLD))
        self._distance, self._last = np.float32(limit["distance"]), limit["last_id"]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        far = _numbers(batch)
        kept = far < self._distance if self._last is not None else far <= self._distance
        if self._last is not None:
            for row in np.flatnonzero(far == self._distance).tolist():
                kept[row] = batch["id"][row].as_py() <= self._last
        reasons = pc.if_else(pa.array(kept), pa.scalar(None, pa.string()), TOO_FAR)
        return set_column(batch, "reject_reason", reasons)


def _drawn(seed: int | str, name: str) -> float:
    """Return a number from 0 to 1, hashed, since a generator per record would be slow."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
