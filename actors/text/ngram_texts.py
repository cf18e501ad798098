"""The text of n-gram models: columns of sealed sets, read shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.models.ngrams.counts import Counts, Vocabulary, count, merge
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.settings import HOW, Settings

VOCABULARY = "vocabulary.txt"  # in its artifact: one word per line
_ROWS = 1 << 16  # of text split into words at a time


class RowSettings(Settings):
    """The rows to read."""

    only: str | None = None
    """A boolean column that selects the rows of the sets that have it."""


class UnitTextSettings(RowSettings):
    """The text of units: slices of the shards of several sets."""

    columns: tuple[str, ...]
    """The text column of each set, in order."""


class CountSettings(Settings):
    """The counting of n-grams."""

    at_once: int = Field(1 << 21, ge=1, json_schema_extra=HOW)
    """Words counted at a time."""


def check_columns(data: SealedSet, column: str, only: str | None = None) -> bool:
    """Check that a set has the text column; return whether it has the column that selects rows."""
    names = data.schema.names
    if column not in names:
        raise UserError(f"{data.name}: the records have no column {column!r}; they have {', '.join(names)}")
    kind = data.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{data.name}: column {column!r} is of type {kind}; expected text")
    if only is None or only not in names:
        return False
    if not pa.types.is_boolean(data.schema.field(only).type):
        raise UserError(f"{data.name}: column {only!r} is of type {data.schema.field(only).type}; expected booleans")
    return True


def read_shard(
    data: SealedSet, shard: int, column: str, only: str | None = None, rows: slice = slice(None)
) -> pa.ChunkedArray:
    """Return the text of a shard's rows; with ``only``, of those where that column, if present, is true."""
    chooses = check_columns(data, column, only)
    table = data.read(shard, [column, only] if chooses and only is not None else [column])
    start, stop, _ = rows.indices(table.num_rows)
    table = table.slice(start, stop - start)
    return table.filter(table[only])[column] if chooses else table[column]


class UnitTexts:
    """The texts ``texts_0``, ``texts_1``, ... of which units are slices."""

    def __init__(self, settings: UnitTextSettings, urls: Mapping[str, str]) -> None:
        self._columns, self._only = settings.columns, settings.only
        self._texts = [open_sealed(urls[f"texts_{number}"]) for number in range(len(urls))]

    def read(self, slices: Iterable[Mapping[str, int]]) -> Iterator[pa.ChunkedArray]:
        """Yield the text of a unit, slice by slice."""
        for one in slices:
            rows = slice(one["start"], one["stop"])
            yield read_shard(self._texts[one["texts"]], one["shard"], self._columns[one["texts"]], self._only, rows)


def all_texts(given: Iterable[tuple[str, str]], only: str | None = None) -> Iterator[pa.ChunkedArray]:
    """Yield the text of sets, each given by its URL and a column, shard by shard."""
    for url, column in given:
        data = open_sealed(url)
        for shard in range(len(data.shards)):
            yield read_shard(data, shard, column, only)


def counted(
    texts: Iterable[pa.ChunkedArray], vocabulary: Vocabulary, order: int, at_once: int
) -> tuple[Counts, int, int]:
    """Count the n-grams of texts, about ``at_once`` words at a time; also return the numbers of words and sentences.

    Runs are merged with runs of similar size, so that each n-gram is merged few times.
    """
    runs: list[Counts] = []
    held: list[tuple[np.ndarray, np.ndarray]] = []
    words = sentences = waiting = 0

    def take() -> None:
        ids, lengths = (np.concatenate(parts) for parts in zip(*held, strict=True))
        held.clear()
        runs.append(count(ids, lengths, order))
        while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
            runs[-2:] = [merge(runs[-2:], order)]

    for array in texts:
        for start in range(0, len(array), _ROWS):
            ids, lengths = vocabulary.encode_texts(array.slice(start, _ROWS))
            held.append((ids, lengths))
            words, sentences, waiting = words + len(ids), sentences + len(lengths), waiting + len(ids)
            if waiting >= at_once:
                take()
                waiting = 0
    if held:
        take()
    return merge(runs, order) if len(runs) != 1 else runs[0], words, sentences


def read_vocabulary(url: str) -> Vocabulary:
    """Read the vocabulary at a URL: an artifact, or a plain folder that holds ``vocabulary.txt``.

    Raises:
        UserError: it does not exist or is not UTF-8.
    """
    try:
        text = read_file(url, VOCABULARY).decode()
    except FileNotFoundError:
        raise UserError(f"{url}: holds no {VOCABULARY}; expected a vocabulary, one word per line") from None
    except UnicodeDecodeError:
        raise UserError(f"{url}: {VOCABULARY} is not UTF-8") from None
    return Vocabulary(line for line in text.split("\n") if line)
