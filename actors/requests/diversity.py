"""Diverse requests of a set of any size: parts of it choose side by side, and of what they chose comes the result.

The exact greedy choice of a large set has no second worker, so it is made in two rounds (GreeDi: Mirzasoleiman et al.,
"Distributed submodular maximization", NeurIPS 2013). Each part chooses from its requests, and :func:`merge` chooses
from the union of these. A set that fits into one round is one part, and the result is the exact greedy one.

*Bound.* Parts are drawn by a hash of the id. If each chooses the whole budget (as it does where all that they choose
then fits into a round, or with ``oversample`` at the number of parts), the better of the merged choice and the best
part's has in expectation at least (1 - 1/e) / 2, 32 %, of the best objective that any choice has (Barbosa et al., "The
power of randomization", ICML 2015); for ``k_centre`` the radius is at most 4 times the least possible (Malkomes et al.,
NeurIPS 2015). If parts choose less, no such bound is known; ``benchmarks/diversity.py`` measures what two rounds lose
against the exact greedy choice. Products with uncertainty are rules of choice, and not objectives: they have no bound.

Facility location covers a *ground set*: all requests or, of more than ``ground_rows``, those with the smallest hashes.
All that is said of the objective is of that one. Its mean over a sample of g requests is off the whole set's by some
1 / (2 sqrt g).

The parts, the sample and every tie are decided by ids: neither the order of a set's rows nor the number of workers
matters. What each request decides by itself (at random, by relevance, by confidence) is chosen exactly by
:mod:`gristmill.actors.requests.choice_scores`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.embed import EMBEDDING
from gristmill.actors.nearest import DISTANCE
from gristmill.actors.requests.relevance import tokens_of
from gristmill.models.requests.diversity import (
    COVERING,
    SCORED,
    DiversitySettings,
    PairSimilarity,
    Picked,
    choose_rows,
    value,
)
from gristmill.models.requests.grams import RequestRows
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import MOST_PARTS, hashes
from gristmill.shards.job import TrainContext
from gristmill.shards.names import named
from gristmill.shards.random import mixed
from gristmill.shards.reducers import Reducer
from gristmill.shards.runs import LargeGroup, group_sizes, group_starts
from gristmill.shards.settings import Settings
from gristmill.shards.stage import GROUP, Actor, BatchLimits

NOT_CHOSEN = "not chosen"
CHOSEN, GROUND = "chosen.json", "ground.arrow"
CONFIDENCE = "confidence"
TO = pa.field("to", pa.int32())  # the part that a request is in
PLACE, GAIN = pa.field("place", pa.int32()), pa.field("gain", pa.float64())  # in its part's order of choice
_GROUND_SALT, _PART_SALT = 1, 2


class DiversityRound(DiversitySettings):
    """A selector, and the set that it chooses from."""

    records: int = Field(ge=0)
    """The number of requests."""
    columns: tuple[str, ...] = ()
    """The columns that the selector reads."""
    similarity: str = ""
    """The name of the function that loads the similarity of pairs; see :func:`loaded`."""

    @property
    def parts(self) -> int:
        """The number of parts."""
        return min(MOST_PARTS, max(1, math.ceil(self.records / self.round_rows)))

    @property
    def wanted(self) -> int:
        """The number of requests to choose."""
        return self.budget(self.records)

    @property
    def wanted_of_part(self) -> int:
        """The number of requests that each part chooses."""
        least = math.ceil(self.oversample * self.wanted / self.parts)
        return min(self.wanted, max(least, self.round_rows // self.parts))


def columns_of(
    settings: DiversitySettings, names: Sequence[str], where: str, *, pairs: bool = False, seeds: bool = False
) -> tuple[str, ...]:
    """Return the columns that a selector reads of those that there are.

    ``pairs``: it has a given similarity of pairs. ``seeds``: of what is there from the start, which nobody chooses.

    Raises:
        UserError: one that it needs is missing.

    Example:
        >>> columns_of(DiversitySettings(selector="unsure_coverage", count=1), ["id", "text", "confidence"], "pool")
        ('text', 'confidence')
    """
    words = next((name for name in ("tokens", "text") if name in names), "tokens or text")
    needed = [] if settings.selector in SCORED else [words]
    if pairs:
        needed = [one for one in (words, EMBEDDING) if one in names] or [words]
    elif settings.by_embeddings(EMBEDDING in names):
        needed = [EMBEDDING]
    if not seeds:
        needed += [DISTANCE.name] if settings.selector == "top" else []
        needed += [CONFIDENCE] if settings.is_unsure else []
    missing = [one for one in needed if one not in names]
    if missing:
        raise UserError(
            f"{where}: {settings.selector} needs {' and '.join(missing)}, and the columns are {', '.join(names)}; "
            "expected requests with that, or another selector"
        )
    return tuple(needed)


def rows_of(table: pa.Table) -> RequestRows:
    """Return the requests of a table, with those of the columns ``tokens`` or ``text``, ``embedding``, ``confidence``
    and ``distance`` that it has.

    Example:
        >>> rows = rows_of(pa.table({"id": ["a"], "text": ["wake me"], "confidence": pa.array([0.5], pa.float32())}))
        >>> rows.tokens, rows.confidence, rows.distance
        ([['wake', 'me']], array([0.5], dtype=float32), None)
    """
    names = table.column_names
    return RequestRows(
        ids=table["id"].to_pylist(),
        tokens=tokens_of(table) if "tokens" in names or "text" in names else None,
        embeddings=_embeddings(table[EMBEDDING]) if EMBEDDING in names else None,
        confidence=floats(table[CONFIDENCE]) if CONFIDENCE in names else None,
        distance=floats(table[DISTANCE.name]) if DISTANCE.name in names else None,
    )


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of numbers, (rows,) float32; one that is missing is not a number."""
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)


def _embeddings(column: pa.ChunkedArray) -> np.ndarray:
    """Return vectors, (rows, dim) float16; one that is missing is not a number."""
    if not pa.types.is_fixed_size_list(column.type):
        raise UserError(f"{EMBEDDING}: its type is {column.type}; expected a fixed_size_list of float16")
    dim = column.type.list_size
    found = [np.zeros((0, dim), np.float16)]
    for chunk in column.chunks:
        flat = chunk.values.slice(chunk.offset * dim, len(chunk) * dim).to_numpy(zero_copy_only=False)
        own = flat.reshape(len(chunk), dim).astype(np.float16)
        own[chunk.is_null().to_numpy(zero_copy_only=False)] = np.nan
        found.append(own)
    return np.concatenate(found)


def loaded(similarity: str, detector: str | None) -> PairSimilarity | None:
    """Return the similarity of pairs that a function of some name loads: it is given the URL of the artifact
    ``detector``, if there is one, and returns a :data:`~gristmill.models.requests.diversity.PairSimilarity`."""
    if not similarity:
        return None
    load = named(similarity)
    return load() if detector is None else load(detector)


class Scatter(Actor):
    """Adds ``to``: the part that a request is in, drawn by seed and id."""

    name = "scatter"
    adds = (TO,)
    batch = BatchLimits(1 << 16)
    settings: DiversityRound

    @classmethod
    def contract(cls, settings: DiversityRound) -> Mapping[str, Any]:
        """Return the columns that are read and kept."""
        return {"columns": settings.columns, "keeps": settings.columns}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``to``."""
        drawn = _drawn(batch["id"], self.settings.seed, _PART_SALT) >> np.uint64(32)
        parts = (drawn * np.uint64(self.settings.parts)) >> np.uint64(32)
        return set_column(batch, TO.name, pa.array(parts.astype(np.int32)))


def _drawn(ids: pa.ChunkedArray, seed: int, salt: int) -> np.ndarray:
    """Return a number for each id, (rows,) uint64, as good as random."""
    key = mixed(np.array([(seed << 8 | salt) & (1 << 64) - 1], np.uint64))
    return mixed(hashes(pa.concat_arrays([pa.array([], pa.string()), *ids.chunks])) ^ key)


def sample_ground(settings: DiversityRound, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Return ``ground.arrow``: the ``ground_rows`` requests of a set with the smallest hashes of their ids."""
    held: pa.Table | None = None
    for table in open_sealed(data).tables(["id", *settings.columns]):
        table = table.append_column("drawn", pa.array(_drawn(table["id"], settings.seed, _GROUND_SALT)))
        held = table if held is None else pa.concat_tables([held, table])
        if held.num_rows > 2 * settings.ground_rows:
            held = _first(held, settings.ground_rows)
    if held is None:
        raise UserError(f"{data}: the set is empty; expected requests to choose from")
    held = _first(held, settings.ground_rows).drop_columns("drawn").replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, held.schema) as writer:
        writer.write_table(held)
    return {"files": {GROUND: sink.getvalue().to_pybytes()}, "records": held.num_rows}


def _first(table: pa.Table, number: int) -> pa.Table:
    order = pc.sort_indices(table, [("drawn", "ascending"), ("id", "ascending")])
    return table.take(order[:number]).combine_chunks()


class _Beside:
    """What a choice is made beside: seeds, the ground set and the similarity of pairs; each may be missing."""

    def __init__(self, settings: DiversityRound, seeds: str | None, ground: str | None, detector: str | None) -> None:
        self._settings = settings
        self._given: dict[str, Any] = {"similarity": loaded(settings.similarity, detector)}
        if seeds is not None:
            given = open_sealed(seeds)
            pairs = bool(settings.similarity)
            columns = columns_of(settings, given.schema.names, seeds, pairs=pairs, seeds=True)
            tables = [given.schema.empty_table().select(["id", *columns]), *given.tables(["id", *columns])]
            self._given["seeds"] = rows_of(pa.concat_tables([one.replace_schema_metadata(None) for one in tables]))
        if ground is not None:
            self._given["ground"] = rows_of(pa.ipc.open_file(read_file(ground, GROUND)).read_all())

    def choose(self, rows: RequestRows, count: int) -> Picked:
        """Choose some requests."""
        return choose_rows(rows, count, self._settings, **self._given)

    def value(self, rows: RequestRows) -> float | None:
        """Return the objective of chosen requests; ``None`` where it is not known without those that were not."""
        if self._settings.selector not in COVERING:
            return None
        return value(rows, np.arange(len(rows)), self._settings, **self._given)


class ChoosePart(Reducer):
    """Returns the requests that a part chooses, with ``place`` and ``gain``. Each group is the requests of one part.

    Where more than a part has are wanted of it, all are passed on as they are.
    """

    name = "choose_part"
    settings: DiversityRound

    def __init__(
        self, settings: DiversityRound, seeds: str | None = None, ground: str | None = None, detector: str | None = None
    ) -> None:
        super().__init__(settings)
        self._beside = _Beside(settings, seeds, ground, detector)

    @classmethod
    def contract(cls, settings: DiversityRound) -> Mapping[str, Any]:
        """Return the columns that are read, kept and added."""
        return {"columns": ("id",), "keeps": settings.columns, "adds": (PLACE, GAIN)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the chosen rows of whole groups."""
        starts = group_starts(batch)
        sizes = group_sizes(starts, batch.num_rows).tolist()
        return pa.concat_tables(
            [self._chosen(batch.slice(start, size)) for start, size in zip(starts.tolist(), sizes, strict=True)]
        )

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the chosen rows of a part that is larger than a worker's share of memory."""
        yield self._chosen(pa.concat_tables([*group]))

    def _chosen(self, table: pa.Table) -> pa.Table:
        wanted = self.settings.wanted_of_part
        if self.settings.parts > 1 and wanted > table.num_rows:
            order = pc.sort_indices(table, [("id", "ascending")])
            picked = Picked(order.to_numpy().astype(np.int64), np.full(table.num_rows, np.nan))
        else:
            picked = self._beside.choose(rows_of(table), wanted)
        names = ["id", GROUP.name, *self.settings.columns]
        out = table.select(names).take(picked.places).rename_columns(["id", "parent_id", *self.settings.columns])
        if not out.num_rows:
            name = table[GROUP.name][0]
            none = pa.Table.from_pylist([{"id": name.as_py(), "parent_id": name.as_py()}], out.schema)
            out = none.append_column("reject_reason", pa.array(["no request can be chosen"]))
        else:
            out = out.append_column("reject_reason", pa.nulls(out.num_rows, pa.string()))
        places = pa.array(np.arange(out.num_rows), PLACE.type)
        gains = pa.array(picked.gains if len(picked.gains) else np.full(out.num_rows, np.nan), GAIN.type)
        return out.append_column(PLACE, places).append_column(GAIN, gains)


def merge(
    settings: DiversityRound,
    context: TrainContext,
    *,
    parts: str,
    seeds: str | None = None,
    ground: str | None = None,
    detector: str | None = None,
) -> dict[str, Any]:
    """Choose from what the parts chose.

    Returns ``chosen.json``: ``ids`` in the order of choice and the ``gains`` of each; and beside it the numbers of
    records, of parts and of requests chosen, and the ``value`` of the objective where it has one. One process holds
    what the parts chose: a round, or ``oversample`` times the budget. Of a set without requests none is chosen.

    Raises:
        UserError: no request of some can be chosen.
    """
    if not settings.records:
        return {"files": {CHOSEN: canonical.dumps({"ids": [], "gains": []})}, "records": 0, "chosen": 0}
    chosen = open_sealed(parts)
    tables = [chosen.read(place) for place, shard in enumerate(chosen.shards) if shard.rows]
    if not tables:
        raise _none(settings)
    union = pa.concat_tables(tables)
    beside, rows = _Beside(settings, seeds, ground, detector), rows_of(union)
    if settings.parts == 1:
        picked = Picked(np.arange(len(rows)), np.asarray(union[GAIN.name].to_numpy()))
    else:
        picked = beside.choose(rows, settings.wanted)
    if not len(picked.places):
        raise _none(settings)
    found = beside.value(rows.take(picked.places))
    if settings.parts > 1 and settings.wanted_of_part == settings.wanted and found is not None:
        # One part's own choice may be better: that belongs to the bound.
        for table in tables:
            own = rows_of(table)
            other = beside.value(own)
            if table.num_rows == settings.wanted and other is not None and other > found:
                rows, found = own, other
                picked = Picked(np.arange(len(own)), np.asarray(table[GAIN.name].to_numpy()))
    ids = [rows.ids[place] for place in picked.places.tolist()]
    context.report({"step": 0, "chosen": float(len(ids))})
    told = {"records": settings.records, "parts": settings.parts, "candidates": union.num_rows, "chosen": len(ids)}
    files = {CHOSEN: canonical.dumps({"ids": ids, "gains": picked.gains.tolist()})}
    return {"files": files, **told, **({} if found is None else {"value": found})}


def _none(settings: DiversityRound) -> UserError:
    return UserError(
        f"{settings.selector}: none of {settings.records} requests can be chosen; expected some with what it needs (a "
        "finite confidence or embedding)"
    )


class Chosen(Actor):
    """Rejects the records that were not chosen."""

    name = "chosen"
    batch = BatchLimits(4096)

    def __init__(self, settings: Settings, chosen: str) -> None:
        super().__init__(settings)
        self._ids = pa.array(json.loads(read_file(chosen, CHOSEN))["ids"], pa.string())

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        kept = pc.is_in(batch["id"], value_set=self._ids)
        return set_column(batch, "reject_reason", pc.if_else(kept, pa.scalar(None, pa.string()), NOT_CHOSEN))
