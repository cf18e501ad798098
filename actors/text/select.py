"""Selection in two passes: what is fitted on whole sets (a centroid, a threshold), and the actors that apply it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.audio import set_column
from gristmill.actors.text.embed import EMBEDDING, vectors_of
from gristmill.models.text.selection import BINS, Moments, border, histogram, load_centroid, places
from gristmill.shards import canonical
from gristmill.shards.artifact import Artifact, get_artifact, read_file
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.stage import BatchLimits, Stage

DISTANCE = pa.field("distance", pa.float32())
SAMPLES = (pa.field("general", pa.bool_()), pa.field("other", pa.bool_()))
TOO_FAR = "outside the radius"
THRESHOLD = "threshold.json"


def centroid(config: dict[str, Any], context: TrainContext) -> dict[str, Any]:
    """Fit the middle of the ``embedding`` of a set: moments shard by shard, merged in the order of the shards.

    ``data``: the url of the set; ``covariance``: whether distances are Mahalanobis's.

    Raises:
        UserError: no record counts, or for a covariance only one.
    """
    url = config["data"]
    whole: Moments | None = None
    for table in open_sealed(url).tables([EMBEDDING]):
        dim = table.schema.field(EMBEDDING).type.list_size
        found = Moments.of(vectors_of(table[EMBEDDING], dim), covariance=config["covariance"])
        whole = found if whole is None else whole.merged(found)
    try:
        files = (whole or Moments(0, np.zeros(0))).centroid().files()
    except ValueError as error:
        raise UserError(f"select: the in-domain set {url} has {error}; expected text to compare with") from None
    return {"files": files, "records": whole.count if whole else 0}


def threshold(config: dict[str, Any], context: TrainContext) -> dict[str, Any]:
    """Find the ``distance`` up to which ``count`` records of a set are, or count those up to a ``radius``.

    Of records at one distance those of the smaller ids are the nearer ones, so that exactly ``count`` are kept. Two
    readings: a histogram, and the records of the one bin in which the nearest ``count`` end. What is not finite is
    never near.

    Raises:
        UserError: nothing would be kept.
    """
    url, radius, count = config["data"], config["radius"], config["count"]
    counts, total, within, nearest = np.zeros(BINS, np.int64), 0, 0, math.inf
    for distances in _distances(url):
        finite = distances[np.isfinite(distances)]
        total += len(distances)
        nearest = min(nearest, float(finite.min(initial=math.inf)))
        within += int((finite <= np.float32(radius)).sum()) if radius is not None else len(finite)
        if radius is None:
            counts += histogram(finite)
    kept = within if radius is not None else min(count, within)
    if not kept:
        what = f"a radius of {radius:g}" if radius is not None else f"{count} of {total} records"
        raise UserError(
            f"select: {what} keeps nothing of {url}, where the nearest is {nearest:g} away; expected a threshold that "
            "some records are within"
        )
    told: dict[str, Any] = {"records": total, "kept": kept}
    if radius is not None:
        told |= {"distance": float(np.float32(radius)), "last_id": None}
    else:
        told |= _last(url, *border(counts, kept))
    return {"files": {THRESHOLD: canonical.dumps(told)}, **told}


def _last(url: str, place: int, number: int) -> dict[str, Any]:
    """Return distance and id of the last record that is kept: the ``number``-th of a bin, by distance and id."""
    far: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    for table in open_sealed(url).tables(["id", DISTANCE.name]):
        distances = _numbers(table)
        own = np.flatnonzero(np.isfinite(distances))
        own = own[places(distances[own]) == place]
        far.append(distances[own])
        ids.append(np.array(table["id"].take(own).to_pylist(), dtype=object))
    distances, names = np.concatenate(far), np.concatenate(ids)
    # By the bytes of UTF-8, as Arrow compares them; of code points that is the same order.
    last = sorted(range(len(names)), key=lambda row: (distances[row], names[row]))[number - 1]
    return {"distance": float(distances[last]), "last_id": names[last]}


def _distances(url: str) -> Iterator[np.ndarray]:
    for table in open_sealed(url).tables([DISTANCE.name]):
        yield _numbers(table)


def _numbers(table: pa.Table) -> np.ndarray:
    return np.asarray(table[DISTANCE.name].to_numpy(zero_copy_only=False), np.float32)


class Distance:
    """Adds ``distance`` of the ``embedding`` from a centroid; 1 - cosine, or the Mahalanobis distance."""

    def __init__(self, centroid: str) -> None:
        artifact = get_artifact(centroid)
        has_precision = artifact is not None and "precision.npy" in artifact.files
        precision = read_file(centroid, "precision.npy") if has_precision else None
        self._centroid = load_centroid(read_file(centroid, "centroid.npy"), precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        dim = batch.schema.field(EMBEDDING).type.list_size
        if dim != len(self._centroid.mean):
            raise UserError(
                f"select: vectors of {dim} numbers, and the in-domain ones have {len(self._centroid.mean)}; "
                "expected both of one model"
            )
        far = self._centroid.distances(vectors_of(batch[EMBEDDING], dim))
        return set_column(batch, DISTANCE.name, pa.array(far, DISTANCE.type))


class DrawnDistance:
    """Adds a ``distance`` from 0 to 1 that is drawn by seed and id: the nearest are a random share."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        drawn = [_drawn(self._seed, name) for name in batch["id"].to_pylist()]
        return set_column(batch, DISTANCE.name, pa.array(np.array(drawn, np.float32)))


class Sampled:
    """Adds ``general`` and ``other``: whether a record is of one share that is drawn by its id, or of another."""

    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        drawn = np.array([_drawn("general", name) for name in batch["id"].to_pylist()])
        batch = set_column(batch, SAMPLES[0].name, pa.array(drawn < self._share))
        return set_column(batch, SAMPLES[1].name, pa.array((drawn >= self._share) & (drawn < 2 * self._share)))


class EntropyDistance:
    """Adds ``distance``: how many nats a word a text costs more in the in-domain model than in a general one.

    Moore and Lewis, "Intelligent Selection of Language Model Training Data" (ACL 2010). The models are on one
    vocabulary, and have told ``in_logprob``, ``general_logprob``, ``other_logprob`` and ``in_words``. A text that the
    general model was made of is judged by the other one, for which it is as new as others are.
    """

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        inside, general, other, words = (
            np.asarray(batch[name].to_numpy(zero_copy_only=False), np.float64)
            for name in ("in_logprob", "general_logprob", "other_logprob", "in_words")
        )
        seen = np.asarray(batch[SAMPLES[0].name].to_numpy(zero_copy_only=False), bool)
        far = (np.where(seen, other, general) - inside) / words
        return set_column(batch, DISTANCE.name, pa.array(far.astype(np.float32)))


class Keep:
    """Turns down what is farther than a threshold; at its distance, what has a greater id than its last record."""

    def __init__(self, threshold: str) -> None:
        told = json.loads(read_file(threshold, THRESHOLD))
        self._distance, self._last = np.float32(told["distance"]), told["last_id"]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        far = _numbers(batch)
        kept = far < self._distance if self._last is not None else far <= self._distance
        if self._last is not None:
            for row in np.flatnonzero(far == self._distance).tolist():
                kept[row] = batch["id"][row].as_py() <= self._last
        reasons = pc.if_else(pa.array(kept), pa.scalar(None, pa.string()), TOO_FAR)
        return set_column(batch, "reject_reason", reasons)


def _drawn(seed: int | str, name: str) -> float:
    """Return a number from 0 to 1; without a generator, of which each record would need one of its own."""
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def distance_stage(centroid: Artifact, name: str = "distance") -> Stage:
    """Return the stage that puts ``distance`` in the place of ``embedding``."""
    return _stage(name, "Distance", (EMBEDDING,), {}, {"centroid": centroid})


def drawn_stage(given: SealedSet, seed: int, name: str = "distance") -> Stage:
    """Return the stage that draws a ``distance``; an ``embedding`` goes."""
    drops = (EMBEDDING,) if EMBEDDING in given.schema.names else ()
    return _stage(name, "DrawnDistance", drops, {"seed": seed}, {})


def sampled_stage(share: float, name: str = "sampled") -> Stage:
    """Return the stage that marks two shares of the records, each at most a half."""
    return Stage(
        name, "gristmill.actors.text.select:Sampled", SAMPLES, params={"share": share}, batch=BatchLimits(4096)
    )


def entropy_stage(drops: tuple[str, ...], name: str = "distance") -> Stage:
    """Return the stage that puts ``distance`` in the place of what two language models told."""
    return _stage(name, "EntropyDistance", drops, {}, {})


def _stage(name: str, actor: str, drops: tuple[str, ...], params: dict[str, Any], given: dict[str, Artifact]) -> Stage:
    refs = {key: artifact.ref for key, artifact in given.items()}
    return Stage(
        name, f"gristmill.actors.text.select:{actor}", (DISTANCE,), drops, params, refs, batch=BatchLimits(4096)
    )


def keep_stage(threshold: Artifact, name: str = "keep") -> Stage:
    """Return the stage that keeps what is within a threshold."""
    return Stage(
        name, "gristmill.actors.text.select:Keep", artifacts={"threshold": threshold.ref}, batch=BatchLimits(4096)
    )
