"""Word counts of texts: by one process, or of units by many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.text.ngram_texts import UnitTexts, UnitTextSettings
from gristmill.models.ngrams.counts import split_words
from gristmill.shards.dataset import open_sealed
from gristmill.shards.stage import Actor, BatchLimits

FIELDS = (pa.field("words", pa.large_list(pa.large_string())), pa.field("counts", pa.large_list(pa.int64())))


class CollectWords(Actor):
    """Adds the distinct words of units and their counts; units are slices of the shards of ``texts_0``, ..."""

    name = "words"
    adds = FIELDS
    batch = BatchLimits(rows=1)
    settings: UnitTextSettings

    def __init__(self, settings: UnitTextSettings, **texts: str) -> None:
        super().__init__(settings)
        self.texts = UnitTexts(settings, texts)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``words`` and ``counts``."""
        found = [tally(self.texts.read(slices)) for slices in batch["slices"].to_pylist()]
        words = [sorted(counts) for counts in found]
        counts = [[own[word] for word in names] for own, names in zip(found, words, strict=True)]
        for field, values in zip(FIELDS, (words, counts), strict=True):
            batch = batch.append_column(field, pa.array(values, field.type))
        return batch


def tally(texts: Iterable[pa.ChunkedArray]) -> Counter[str]:
    """Count the words of texts."""
    found: Counter[str] = Counter()
    for text in texts:
        for chunk in text.chunks:
            words = pc.value_counts(pc.list_flatten(split_words(chunk)))
            _add(found, words.field("values"), words.field("counts"))
    return found


def tally_of_units(url: str) -> Counter[str]:
    """Sum the counts of :class:`CollectWords` over the units of a set, one unit at a time."""
    found: Counter[str] = Counter()
    for table in open_sealed(url).tables([field.name for field in FIELDS]):
        for row in range(table.num_rows):
            _add(found, table["words"][row].values, table["counts"][row].values)
    return found


def _add(found: Counter[str], words: pa.Array, counts: pa.Array) -> None:
    for word, times in zip(words.to_pylist(), counts.to_pylist(), strict=True):
        found[word] += times
