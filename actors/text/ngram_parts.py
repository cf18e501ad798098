"""Distributed estimation of n-gram models: units of text are counted, and the counts are processed in parts.

A part is a range of codes of an n-gram's last two words (:func:`gristmill.models.ngrams.counts.pair_code`). What
one part or unit has for another is a row with the number of that part, ``to``, by which rows are dealt and merged
(:mod:`gristmill.shards.exchange`):

1. ``CountUnit``: the n-grams of a unit, a row for each part.
2. ``MergeCounts``: a part's n-grams of all units, their adjusted counts, and those whose contexts are in other parts.
3. ``totals``: discounts, unigrams and contexts of one word, over all parts.
4. ``SumContexts``: a part's contexts, summed over all parts, and the replies to these.
5. ``WriteLines``: a part's n-grams with their probabilities, as lines of the ARPA text.
6. ``join``: the ARPA text.

What a part has for itself is in the row to itself. A worker holds one part or unit at a time; of the whole, only sums
by word.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.ngram_files import FILE
from gristmill.actors.text.ngram_texts import CountSettings, UnitTexts, UnitTextSettings, counted, read_vocabulary
from gristmill.models.ngrams import arpa, estimate
from gristmill.models.ngrams.counts import Counts, merge, part_of
from gristmill.models.ngrams.estimate import Level, NgramSettings, Summary, Totals
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.exchange import MOST_PARTS
from gristmill.shards.job import TrainContext
from gristmill.shards.reducers import Reducer
from gristmill.shards.stage import Actor, BatchLimits

SLICE = pa.struct([(name, pa.int64()) for name in ("texts", "shard", "start", "stop")])
UNIT_FIELDS = (pa.field("id", pa.string()), pa.field("slices", pa.list_(SLICE)))
TO = pa.field("to", pa.int32())  # the part that a row is for
BINARY = pa.large_binary()
_GRAMS, _REQUESTS, _REPLIES = (pa.field(name, BINARY) for name in ("grams", "requests", "replies"))
_SUMMARY: dict[str, type[np.generic]] = {
    "seen": np.int64,
    "ends": np.uint32,
    "end_counts": np.int64,
    "contexts": np.uint32,
    "sums": np.int64,
}
_LEVEL: dict[str, type[np.generic]] = {"words": np.uint32, "counts": np.int64, "kept": np.bool_, "suffix": np.int64}
_TOTALS = ("discounts", "probability", "denominator", "gamma")
WORD_BYTES = 128  # of memory for each word counted


class PartedNgramSettings(NgramSettings):
    """A model estimated in parts."""

    parts: int = Field(ge=1, le=MOST_PARTS)
    """The number of ranges that the codes of n-grams are split into."""


class UnitCountSettings(PartedNgramSettings, CountSettings, UnitTextSettings):
    """A model estimated in parts, the text of its units, and its counting."""


def level_column(name: str, order: int) -> str:
    """Return the name of the column of one array of a part's n-grams of an order."""
    return f"{name}_{order}"


class CountUnit(Actor):
    """Counts the n-grams of units: slices of the shards of the texts ``texts_0``, ``texts_1``, ..."""

    name = "count"
    columns = ("slices",)
    keeps = ()
    adds = (TO, _GRAMS)
    batch = BatchLimits(rows=1)
    fan_out = True
    settings: UnitCountSettings

    def __init__(self, settings: UnitCountSettings, vocabulary: str, **texts: str) -> None:
        super().__init__(settings)
        self.vocabulary = read_vocabulary(vocabulary)
        self.texts = UnitTexts(settings, texts)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each part with the counts of each unit."""
        schema = pa.schema([("id", pa.string()), ("parent_id", pa.string()), TO, _GRAMS])
        return pa.Table.from_pylist([row for unit in batch.to_pylist() for row in self._count(**unit)], schema)

    def _count(self, id: str, slices: Sequence[Mapping[str, int]]) -> Iterator[dict[str, Any]]:
        order, parts = self.settings.order, self.settings.parts
        counts, _, _ = counted(self.texts.read(slices), self.vocabulary, order, self.settings.at_once)
        bounds = np.searchsorted(part_of(counts.codes, parts), np.arange(parts + 1))
        for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
            grams = _packed(counts.grams[start:stop], counts.counts[start:stop])
            yield {"id": f"{id}/{part:04d}", "parent_id": id, TO.name: part, _GRAMS.name: grams}


class MergeCounts(Reducer):
    """Merges the counts of a part and adjusts them: a row for each part, with the requests to it."""

    name = "merged"
    columns = (_GRAMS.name,)
    settings: PartedNgramSettings

    def __init__(self, settings: PartedNgramSettings, vocabulary: str) -> None:
        super().__init__(settings)
        self.known = read_vocabulary(vocabulary).first_unknown

    @classmethod
    def contract(cls, settings: PartedNgramSettings) -> Mapping[str, Any]:
        """Return the columns of the requests to a part, and of the part's own summary and n-grams."""
        names = [level_column(name, size) for size in range(2, settings.order + 1) for name in _LEVEL]
        return {"adds": (TO, _REQUESTS, *(pa.field(name, BINARY) for name in [*_SUMMARY, *names]))}

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield the rows of a part."""
        order, parts = self.settings.order, self.settings.parts
        kinds = (np.uint32, order), (np.int64, 1)
        whole = merge([Counts(*_unpacked(value, *kinds)) for value in _values(tables)], order)
        levels = estimate.adjust(whole, self.settings.thresholds, self.known)
        del whole
        own: dict[str, Any] = {}
        summary = estimate.summary(levels, self.known)
        for column in _SUMMARY:
            own[column] = _packed(getattr(summary, column))
        for level in levels:
            for column in _LEVEL:
                own[level_column(column, level.words.shape[1])] = _packed(getattr(level, column))
        asked = [estimate.requests(level, self.known) for level in levels[1:]]
        bounds = [estimate.bounds(one, parts) for one in asked]
        for owner in range(parts):
            arrays = []
            for one, at in zip(asked, bounds, strict=True):
                some = slice(at[owner], at[owner + 1])
                arrays += [one.words[some, :-1], one.counts[some], one.kept[some]]
            yield _message(name, owner, own) | {_REQUESTS.name: _framed(arrays)}


def totals(settings: NgramSettings, context: TrainContext, *, merged: str, vocabulary: str) -> dict[str, Any]:
    """Return the statistics over all parts, one ``.npy`` file each.

    ``merged`` is the URL of the set of parts, ``vocabulary`` that of the vocabulary.
    """
    summaries = (_summary(row) for row in _own_rows(open_sealed(merged), list(_SUMMARY)))
    found = estimate.total(summaries, read_vocabulary(vocabulary), settings.order)
    return {"files": {f"{name}.npy": _npy(getattr(found, name)) for name in _TOTALS}}


def _summary(table: pa.Table) -> Summary:
    arrays = {name: _unpacked(table[name][0].as_buffer(), (kind, 1))[0] for name, kind in _SUMMARY.items()}
    arrays["seen"] = arrays["seen"].reshape(-1, 4)
    arrays["sums"] = arrays["sums"].reshape(-1, estimate.SUMS)
    return Summary(**arrays)


def read_totals(url: str) -> Totals:
    """Read the artifact of :func:`totals`."""
    arrays = {name: np.load(io.BytesIO(read_file(url, f"{name}.npy")), allow_pickle=False) for name in _TOTALS}
    return Totals(**arrays)


class SumContexts(Reducer):
    """Sums a part's contexts over all parts, and replies to each with the denominator and gamma of its n-grams'
    contexts."""

    name = "contexts"
    columns = (_REQUESTS.name,)
    settings: NgramSettings

    def __init__(self, settings: NgramSettings, merged: str, totals: str) -> None:
        super().__init__(settings)
        self.merged = open_sealed(merged)
        self.discounts = read_totals(totals).discounts

    @classmethod
    def contract(cls, settings: NgramSettings) -> Mapping[str, Any]:
        """Return the columns of the replies to a part, and of the part's own back-offs."""
        names = [level_column("gamma", size) for size in range(2, settings.order)]
        return {"adds": (TO, _REPLIES, *(pa.field(name, BINARY) for name in names))}

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield a part's replies to each."""
        order = self.settings.order
        levels = read_levels(self.merged, int(name), order - 1)
        sums = [np.zeros((len(level), estimate.SUMS), np.int64) for level in levels]
        places: list[list[np.ndarray]] = []
        for value in _values(tables):
            arrays, rows = _unframed(value), []
            for size, level in enumerate(levels, start=2):
                words, counts, kept = arrays[3 * (size - 2) : 3 * (size - 1)]
                row = estimate.locate(levels, words.view(np.uint32).reshape(-1, size))
                sums[size - 2] += estimate.context_sums(row, counts.view(np.int64), kept.view(np.bool_), len(level))
                rows.append(row.astype(np.uint32))
            places.append(rows)
        gammas = [estimate.gammas(sums[size - 2], self.discounts[size]) for size in range(2, order)]
        backoffs = {level_column("gamma", size): _packed(gammas[size - 2]) for size in range(2, order)}
        for asker, rows in enumerate(places):
            arrays = []
            for row, own, gamma in zip(rows, sums, gammas, strict=True):
                arrays += [own[row, 0], gamma[row]]
            yield _message(name, asker, backoffs) | {_REPLIES.name: _framed(arrays)}


class WriteLines(Reducer):
    """Writes the lines of a part's n-grams."""

    name = "lines"
    columns = (_REPLIES.name,)
    settings: NgramSettings

    def __init__(self, settings: NgramSettings, merged: str, contexts: str, totals: str, vocabulary: str) -> None:
        super().__init__(settings)
        self.merged, self.contexts = open_sealed(merged), open_sealed(contexts)
        self._totals = read_totals(totals)
        words = read_vocabulary(vocabulary)
        self.known, self.names = words.first_unknown, pa.array(words.names, pa.string())

    @classmethod
    def contract(cls, settings: NgramSettings) -> Mapping[str, Any]:
        """Return ``grams``, the number of n-grams of each order, and the column of each order's lines."""
        names = [level_column("lines", size) for size in range(2, settings.order + 1)]
        lines = (pa.field(name, BINARY) for name in names)
        return {"adds": (pa.field("grams", pa.list_(pa.int64())), *lines)}

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        """Yield a part's numbers of n-grams and lines."""
        part, order = int(name), self.settings.order
        levels = read_levels(self.merged, part, order)
        own = _own_row(self.contexts, part, [level_column("gamma", size) for size in range(2, order)])
        backoffs = [_unpacked(own[name][0].as_buffer(), (np.float64, 1))[0] for name in own.column_names]
        answers = [_unframed(value) for value in _values(tables)]
        contexts = []
        for place in range(order - 2):
            denominators = [arrays[2 * place].view(np.int64) for arrays in answers]
            gammas = [arrays[2 * place + 1].view(np.float64) for arrays in answers]
            contexts.append((np.concatenate(denominators), np.concatenate(gammas)))
        found = estimate.interpolate(levels, contexts, backoffs, self._totals, self.known)
        row: dict[str, Any] = {"grams": [len(grams) for grams in found]}
        for size, grams in enumerate(found, start=2):
            row[level_column("lines", size)] = b"".join(arpa.lines(self.names, grams))
        yield row


def join(settings: NgramSettings, context: TrainContext, *, lines: str, totals: str, vocabulary: str) -> dict[str, Any]:
    """Return ``lm.arpa``, the lines of all parts in order, with one part in memory at a time.

    ``lines`` is the URL of the set of parts, ``totals`` and ``vocabulary`` are URLs of artifacts.
    """
    written, order = open_sealed(lines), settings.order
    unigrams = estimate.unigrams(read_totals(totals))
    names = pa.array(read_vocabulary(vocabulary).names, pa.string())
    parts = [row["grams"][0].as_py() for row in _rows(written, ["grams"])]
    grams = [len(unigrams), *(sum(column) for column in zip(*parts, strict=True))]

    def chunks() -> Iterator[bytes]:
        yield arpa.header(grams)
        yield arpa.section(1)
        yield from arpa.lines(names, unigrams)
        for size in range(2, order + 1):
            yield arpa.section(size)
            for value in _values(_rows(written, [level_column("lines", size)])):
                yield value.to_pybytes()
        yield arpa.END

    return {"files": {FILE: chunks}, "grams": grams}


def read_levels(merged: SealedSet, part: int, order: int) -> list[Level]:
    """Return a part's n-grams of the orders from 2."""
    levels = []
    for size in range(2, order + 1):
        table = _own_row(merged, part, [level_column(name, size) for name in _LEVEL])
        kinds = [(kind, size if name == "words" else 1) for name, kind in _LEVEL.items()]
        arrays = [
            _unpacked(table[name][0].as_buffer(), kind)[0] for name, kind in zip(table.column_names, kinds, strict=True)
        ]
        levels.append(Level(*arrays))
    return levels


def _rows(data: SealedSet, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows of each part in order; a requeued one has left an empty shard."""
    for place, shard in enumerate(data.shards):
        if shard.rows:
            yield data.read(place, columns)


def _own_rows(data: SealedSet, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the row to itself of each part."""
    for part, rows in enumerate(_rows(data, columns)):
        yield rows.slice(part, 1)


def _own_row(data: SealedSet, part: int, columns: list[str]) -> pa.Table:
    """Return the row to itself of a part; in the others, its columns are null."""
    place = [place for place, shard in enumerate(data.shards) if shard.rows][part]
    return data.read(place, columns).slice(part, 1)


def _message(part: str, to: int, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part's row to a part; the one to itself has what it keeps."""
    return {"id": f"{part}/{to:04d}", TO.name: to, **(own if to == int(part) else {})}


def _values(tables: Iterable[pa.Table]) -> Iterator[pa.Buffer]:
    """Yield the values of the tables' binary column, row by row."""
    for table in tables:
        (name,) = (f.name for f in table.schema if f.type == BINARY)
        for value in table[name]:
            yield value.as_buffer()


def _packed(*arrays: np.ndarray) -> bytes:
    """Return arrays with equal numbers of rows, concatenated as bytes."""
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def _unpacked(value: pa.Buffer, *kinds: tuple[type[np.generic], int]) -> list[np.ndarray]:
    """Return the arrays of :func:`_packed`, given the type and width of each."""
    row = sum(np.dtype(kind).itemsize * width for kind, width in kinds)
    rows, found, start = value.size // row, [], 0
    for kind, width in kinds:
        array = np.frombuffer(value, kind, rows * width, start)
        found.append(array.reshape(rows, width) if width > 1 else array)
        start += array.nbytes
    return found


def _framed(arrays: Sequence[np.ndarray]) -> bytes:
    """Return arrays of any length, preceded by their sizes in bytes."""
    data = [np.ascontiguousarray(array).tobytes() for array in arrays]
    return b"".join([np.array([len(arrays), *map(len, data)], np.int64).tobytes(), *data])


def _unframed(value: pa.Buffer) -> list[np.ndarray]:
    """Return the bytes of each array of :func:`_framed`."""
    count = int(np.frombuffer(value, np.int64, 1)[0])
    ends = np.cumsum(np.frombuffer(value, np.int64, count + 1)) - count + 8 * (count + 1)
    return [np.frombuffer(value, np.uint8, int(b - a), int(a)) for a, b in itertools.pairwise(ends)]


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
