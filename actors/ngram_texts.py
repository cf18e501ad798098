"""The text that n-gram models are made of: columns of sealed sets, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from models.ngram_counts import Vocabulary
from shards.artifact import read_file
from shards.dataset import SealedSet, open_sealed
from shards.errors import UserError

VOCABULARY = "vocabulary.txt"  # in its artifact: a word a line


def check_columns(data: SealedSet, column: str, only: str | None = None) -> bool:
    """Refuse a set without the column of text; tell whether it has the column that chooses its rows."""
    names = data.schema.names
    if column not in names:
        raise UserError(f"{data.name}: the records have no column {column!r}; they have {', '.join(names)}")
    kind = data.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{data.name}: column {column!r} is of type {kind}; expected text")
    if only is None or only not in names:
        return False
    if not pa.types.is_boolean(data.schema.field(only).type):
        raise UserError(
            f"{data.name}: column {only!r} is of type {data.schema.field(only).type}; expected truth values"
        )
    return True


def read_shard(data: SealedSet, shard: int, column: str, only: str | None = None) -> pa.ChunkedArray:
    """Return the text of a shard; with ``only``, of the rows where that column is true, if the set has it."""
    chooses = check_columns(data, column, only)
    table = data.read(shard, [column, only] if chooses and only is not None else [column])
    return table.filter(table[only])[column] if chooses else table[column]


def all_texts(given: Sequence[Sequence[str]], only: str | None = None) -> Iterator[pa.ChunkedArray]:
    """Give the text of sets, each named by its URL and a column, shard by shard."""
    for url, column in given:
        data = open_sealed(url)
        for shard in range(len(data.shards)):
            yield read_shard(data, shard, column, only)


def read_vocabulary(url: str) -> Vocabulary:
    """Read the vocabulary at a URL: an artifact, or a plain folder that holds ``vocabulary.txt``.

    Raises:
        UserError: there is none, or it is not UTF-8.
    """
    try:
        text = read_file(url, VOCABULARY).decode()
    except FileNotFoundError:
        raise UserError(f"{url}: holds no {VOCABULARY}; expected a vocabulary, a word a line") from None
    except UnicodeDecodeError:
        raise UserError(f"{url}: {VOCABULARY} is not UTF-8") from None
    return Vocabulary(line for line in text.split("\n") if line)
