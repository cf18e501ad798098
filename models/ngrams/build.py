"""Building a compact n-gram store: the records of :mod:`gristmill.models.ngrams.lookup`, packed to the bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from gristmill.models.kernels import kernel
from gristmill.models.ngrams import lookup
from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.numbering import Numbering, OrderArcs, flag_lines
from gristmill.models.ngrams.words import WordTable
from gristmill.shards.settings import Settings

_GAIN = 0.95  # of its size without a table, at most, if exact values are to be in a table: that costs an access
_SPARE = np.zeros(1, np.uint64)  # behind the last cell, as a field is read from two
_ROUNDS = 20  # of Lloyd's iteration


class StoreSettings(Settings):
    """What a store leaves out; by default nothing, and scores are those of the ARPA file to the last bit.

    Example:
        >>> StoreSettings(quantise=8).quantise, StoreSettings().quantise
        (8, None)
    """

    quantise: int | None = Field(None, ge=2, le=16)
    """Bits of the log-probabilities and back-offs of all orders but the first; none: they are exact."""
    fingerprint: int | None = Field(None, ge=4, le=31)
    """Bits of a word in n-grams of three words and more; an unlisted n-gram may then be taken for a listed one."""


@dataclass
class BuiltStore:
    """A store's arrays and words, and what is told of it."""

    body: np.ndarray
    words: WordTable
    facts: dict[str, Any]


def build(model: Arpa, settings: StoreSettings | None = None, source: str = "the model") -> BuiltStore:
    """Return the store of a model; the result depends on the model and the settings only.

    Raises:
        UserError: see :class:`~gristmill.models.ngrams.numbering.Numbering`.
    """
    settings = settings or StoreSettings()
    numbering = Numbering(model, source)
    writer = _Writer(settings, numbering)
    for level in range(model.order):
        writer.add(level)
    facts = {
        "order": model.order,
        "grams": [len(arcs) for arcs in numbering.orders],
        "states": numbering.first_state[-1],
        "begin": numbering.state_of_word(numbering.begin_word),
        "end_word": numbering.end_word,
        "unknown_word": numbering.unknown_word,
        "settings": settings.model_dump(mode="json"),
        "errors": writer.errors(),
    }
    return BuiltStore(writer.body(), numbering.words, facts)


class _Writer:
    """Packs the levels of a store, from the empty context on."""

    def __init__(self, settings: StoreSettings, numbering: Numbering) -> None:
        self._settings, self._numbering = settings, numbering
        self._word_bits = (len(numbering.words) - 1).bit_length()
        self._levels = np.zeros((len(numbering.orders) + 1, lookup.COLUMNS), np.int64)
        self._levels[:, lookup.FIRST] = numbering.first_state
        self._levels[:, lookup.FIRST_ARC] = numbering.first_arc
        self._cells, self._values = _Packer(bits=64 * (lookup.ROWS + self._levels.size)), _Values()
        self._shared = [(np.zeros(0, np.uint32), np.zeros(0, np.uint32))]  # arcs, and their words
        self._doubts: list[tuple[np.ndarray, np.ndarray]] = []  # of a level's states: their share of doubt, their arcs

    def add(self, level: int) -> None:
        """Add a level: its states, but for the empty context, and their arcs."""
        row, arcs = self._levels[level], self._numbering.orders[level]
        dropped = 0
        if self._settings.fingerprint is not None and level > 1:
            dropped = max(0, self._word_bits - self._settings.fingerprint)
        row[lookup.DROPPED], row[lookup.WORD_BITS] = dropped, self._word_bits - dropped if level else 0
        codes, bits, table = self._values.code("logprob", arcs.logprob, 31, self._quantise(level))
        row[lookup.VALUE_BITS], row[lookup.VALUE_TABLE] = bits, table
        fields = [(arcs.words >> np.uint32(dropped), int(row[lookup.WORD_BITS])), (codes, bits)]
        row[lookup.ARC_AT], _ = self._cells.add(fields)
        if level:
            offsets = self._numbering.offsets(level)
            self._add_states(level, row, offsets)
            if dropped:
                self._tell_apart(arcs, offsets, dropped, self._numbering.first_arc[level])

    def _quantise(self, level: int) -> int | None:
        return self._settings.quantise if level else None  # a unigram's value is in many sums, and there are few

    def _add_states(self, level: int, row: np.ndarray, offsets: np.ndarray) -> None:
        count = len(offsets) - 1
        below, first = self._numbering.orders[level - 1], self._numbering.first_state[level]
        codes, bits, table = self._values.code("backoff", below.backoff[below.is_state], 32, self._quantise(level))
        row[lookup.BACKOFF_BITS], row[lookup.BACKOFF_TABLE] = bits, table
        anchors = offsets[:: 1 << lookup.ANCHORED]
        begins = offsets - np.repeat(anchors, 1 << lookup.ANCHORED)[: len(offsets)]
        row[lookup.BEGIN_BITS], row[lookup.BACK_BITS] = int(begins.max()).bit_length(), (first - 1).bit_length()
        back = self._numbering.back[first : first + count]
        # One record more than there are states, as the arcs of a state end where those of the next begin.
        fields = [(begins, int(row[lookup.BEGIN_BITS])), (np.append(back, 0), int(row[lookup.BACK_BITS]))]
        row[lookup.STATE_AT], row[lookup.STATE_BITS] = self._cells.add([*fields, (np.append(codes, 0), bits)])
        row[lookup.ANCHORS_AT], _ = self._cells.add([(anchors, 32)])

    def _tell_apart(self, arcs: OrderArcs, offsets: np.ndarray, dropped: int, first_arc: int) -> None:
        """Note the arcs whose stored bits are not theirs alone, and how many unlisted words match an arc."""
        kept = arcs.words >> np.uint32(dropped)
        same = kept[1:] == kept[:-1]
        begins = np.zeros(len(kept) + 1, bool)
        begins[offsets] = True
        same &= ~begins[1:-1]
        among = np.zeros(len(kept), bool)
        among[1:] |= same
        among[:-1] |= same
        rows = np.flatnonzero(among)
        self._shared.append(((rows + first_arc).astype(np.uint32), arcs.words[rows]))
        # Only a word that shares its stored bits with one listed word is mistaken: where two share them, all are told.
        words = len(self._numbering.words)
        alike = np.minimum((kept.astype(np.int64) + 1) << dropped, words) - (kept.astype(np.int64) << dropped) - 1
        alike[among] = 0
        counts = np.diff(offsets)
        sums = np.diff(np.concatenate([[0], np.cumsum(alike)])[offsets])
        self._doubts.append((sums / np.maximum(1, words - counts), counts))

    def errors(self) -> dict[str, dict[str, float]]:
        """Return the errors of the values, and the share of unlisted words that are taken for a listed one."""
        found = self._values.told()
        if self._doubts:
            shares, counts = (np.concatenate([one[side] for one in self._doubts]) for side in (0, 1))
            weighted = float((shares * counts).sum() / max(1, counts.sum()))
            found["taken_for_listed"] = {"of_states": float(shares.mean()), "of_states_by_arcs": weighted}
        return found

    def body(self) -> np.ndarray:
        """Return the cells (cells,) uint64, once all levels were added."""
        numbering, words = self._numbering, len(self._numbering.words)
        rows, shared = (np.concatenate(some) for some in zip(*self._shared, strict=True))
        tables = np.concatenate([np.zeros(0, np.float32), *self._values.tables])
        first = np.zeros(lookup.ROWS, np.int64)
        first[lookup.WORDS], first[lookup.SCALE] = words, (1 << lookup.FRACTION) // words
        first[lookup.FLAGGED], first[lookup.ORDER] = numbering.first_arc[-2], len(numbering.orders)
        first[lookup.FLAGS_AT], _ = self._cells.add([(flag_lines(numbering.orders), 64)])
        first[lookup.TABLES_AT], _ = self._cells.add([(tables.view(np.uint32), 32)])
        first[lookup.SHARED] = len(rows)
        first[lookup.SHARED_AT], _ = self._cells.add([(rows, 32)])
        first[lookup.SHARED_WORDS_AT], _ = self._cells.add([(shared, 32)])
        return np.concatenate([first.view(np.uint64), self._levels.ravel().view(np.uint64), *self._cells.parts, _SPARE])


@dataclass
class _Packer:
    """Records of bits; each kind of them begins at a cell of 64 bits."""

    parts: list[np.ndarray] = field(default_factory=list)
    bits: int = 0

    def add(self, fields: list[tuple[np.ndarray, int]]) -> tuple[int, int]:
        """Add records: of each field the values and their width; return the first bit and the bits of a record."""
        width = sum(bits for _, bits in fields)
        words = np.zeros((len(fields[0][0]) * width + 63) // 64, np.uint64)
        at = 0
        for values, bits in fields:
            if bits:
                pack(words, at, width, bits, np.ascontiguousarray(values, np.uint64))
            at += bits
        begin, self.bits = self.bits, self.bits + 64 * len(words)
        self.parts.append(words)
        return begin, width


@kernel
def pack(words, at, stride, width, values):
    """Put values of ``width`` bits, at most 64, at every ``stride`` bits from bit ``at`` on."""
    for row in range(len(values)):
        place = (at + row * stride) >> 6
        shift = np.uint64((at + row * stride) & 63)
        words[place] |= values[row] << shift
        if shift + np.uint64(width) > np.uint64(64):
            words[place + 1] |= values[row] >> (np.uint64(64) - shift)


@dataclass
class _Values:
    """The tables of values, and by kind the errors: their sum, the largest, and the number of values."""

    tables: list[np.ndarray] = field(default_factory=list)
    found: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)

    def code(self, kind: str, values: np.ndarray, raw: int, quantise: int | None) -> tuple[np.ndarray, int, int]:
        """Return values as codes, the bits of a code, and where its table begins; -1: the code is the value's bits."""
        if not len(values):
            return np.zeros(0, np.uint32), 0, -1
        table, codes = np.unique(values, return_inverse=True)
        if quantise is not None:
            if len(table) > 1 << quantise:
                table = _lloyd(table, np.bincount(codes), 1 << quantise)
                codes = np.searchsorted((table[1:] + table[:-1]) / 2, values)
            error = np.abs(table[codes].astype(np.float64) - values)
            self.found.setdefault(kind, []).append((float(error.sum()), float(error.max()), len(values)))
        bits = (len(table) - 1).bit_length()
        if quantise is None and len(values) * bits + 32 * len(table) > _GAIN * raw * len(values):
            return values.view(np.uint32) & np.uint32((1 << raw) - 1), raw, -1
        begin = sum(map(len, self.tables))
        self.tables.append(table)
        return codes, bits, begin

    def told(self) -> dict[str, dict[str, float]]:
        """Return the mean and the largest error of each kind, in units of log10."""
        made = {}
        for kind, some in sorted(self.found.items()):
            total, count = sum(one[0] for one in some), sum(one[2] for one in some)
            made[kind] = {"mean": total / count, "largest": max(one[1] for one in some)}
        return made


def _lloyd(values: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    """Return a table of ``size`` values that stand for sorted distinct ones with the least squared error.

    From bins of equal mass on; Lloyd, Least Squares Quantization in PCM, 1982 (of one dimension, on sums of a range).
    """
    weight = np.concatenate([[0], np.cumsum(counts)])
    mass = np.concatenate([[0.0], np.cumsum(values.astype(np.float64) * counts)])
    ends = np.searchsorted(weight, np.arange(1, size) * (weight[-1] / size))
    for _ in range(_ROUNDS):
        # A bin has one value at least, so that no place of the table is left empty.
        ends = np.maximum.accumulate(ends - np.arange(1, size)) + np.arange(1, size)
        ends = np.minimum(np.maximum(ends, np.arange(1, size)), len(values) - np.arange(size - 1, 0, -1))
        edges = np.concatenate([[0], ends, [len(values)]])
        centres = np.diff(mass[edges]) / np.diff(weight[edges])
        ends = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
    return centres.astype(np.float32)
