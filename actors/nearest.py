"""The nearest records of a whole set, in two passes: a threshold is fitted on the set, and an actor applies it.

What is near is for the stage that adds ``distance``: the less, the nearer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, ClassVar, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.models.nearest import BINS, border, histogram, places
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

DISTANCE = pa.field("distance", pa.float32())
THRESHOLD = "threshold.json"


class ThresholdSettings(Settings):
    """The number or distance of the records to keep."""

    radius: float | None = None
    """The distance up to which records are kept; ``None``: the nearest ``count`` records."""
    count: int = Field(0, ge=0)
    """The number of records to keep if there is no radius."""


def threshold(settings: ThresholdSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Find the ``distance`` within which ``count`` records of a set lie, or count those within a ``radius``.

    Ties are broken by id, smaller ids first, so that exactly ``count`` are kept. The set is read twice: for a
    histogram, and for the records of the bin that holds the last of the nearest ``count``. Records with a non-finite
    distance are never kept. Of a set without records none is.

    Raises:
        UserError: no record of some would be kept.
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
    if total and not kept:
        asked = f"a radius of {radius:g}" if radius is not None else f"{count} of {total} records"
        raise UserError(
            f"select: {asked} keeps nothing of {data}, whose nearest record is at {nearest:g}; expected a threshold "
            "that some records are within"
        )
    if radius is not None:
        limit = _Limit(distance=float(np.float32(radius)), last_id=None)
    elif not total:
        limit = _Limit(distance=0.0, last_id=None)
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
        drawn = [draw(self.settings.seed, name) for name in batch["id"].to_pylist()]
        return set_column(batch, DISTANCE.name, pa.array(np.array(drawn, np.float32)))


class Keep(Actor):
    """Rejects records beyond a threshold; at its distance, those with a greater id than its last record.

    ``why``, in which ``{kept}`` is the number of records within, is the reason in the words of who uses it.
    """

    name = "keep"
    batch = BatchLimits(4096)
    why: ClassVar[str] = "outside the radius"

    def __init__(self, settings: Settings, threshold: str) -> None:
        super().__init__(settings)
        limit = json.loads(read_file(threshold, THRESHOLD))
        self._distance, self._last = np.float32(limit["distance"]), limit["last_id"]
        self._reason = self.why.format(kept=limit["kept"])

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        far = _numbers(batch)
        kept = far < self._distance if self._last is not None else far <= self._distance
        if self._last is not None:
            for row in np.flatnonzero(far == self._distance).tolist():
                kept[row] = batch["id"][row].as_py() <= self._last
        reasons = pc.if_else(pa.array(kept), pa.scalar(None, pa.string()), self._reason)
        return set_column(batch, "reject_reason", reasons)


def draw(seed: int | str, name: str) -> float:
    """Return a number from 0 to 1, hashed, since a generator per record would be slow."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
