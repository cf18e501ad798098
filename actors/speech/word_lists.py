"""The list of words that a recogniser is given with an utterance: its rare words, or none of them, among others.

An actor that needs lists has a :class:`WordLists`, so that all systems of a comparison get the same ones.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import NAMES
from gristmill.shards.settings import Batch, Settings

LISTED = pa.field("listed", pa.list_(pa.string()))  # a record's own list


class WordListSettings(Settings):
    """Settings of lists of words."""

    size: Batch | None = Field(100, ge=0)
    """Words of a list, drawn but for the record's own rare words, all of which are on it; 0: no list; null: the
    record's own list, of its column ``listed``."""
    present: bool = True
    """Whether the record's rare words are on its list; if not, no word of its text is."""
    seed: int = 0
    """Of the drawing."""


class WordLists:
    """Makes the lists of records, each sorted and without repetitions.

    ``distractors`` are what lists are filled up with; none of them is in the record's own text. The draws depend on the
    seed and the record's id only: a smaller list's are among those of a larger one, so that sizes can be compared. A
    training that draws anew each epoch gives ids with the epoch in them. A list of 10,000 words takes 2 ms.

    Raises:
        UserError: there are fewer distractors than a list has words.

    Example:
        >>> lists = WordLists(["bob", "carla", "dora", "ann"], WordListSettings(size=3))
        >>> lists.of("record 1", "call ann", ["ann"])
        ['ann', 'carla', 'dora']
        >>> WordLists(["bob", "dora", "ann"], WordListSettings(size=2, present=False)).of("1", "call ann", ["ann"])
        ['bob', 'dora']
    """

    def __init__(self, distractors: Collection[str], settings: WordListSettings) -> None:
        self.settings = settings
        self._pool = np.array(sorted(set(distractors)), object)
        self._places = {word: place for place, word in enumerate(self._pool)}
        self._random = RecordRandom(settings.seed, "word lists")
        self._refuse_few(settings.size or 0, len(self._pool), "")

    def of(self, record: str, text: str, names: Collection[str], own: Collection[str] | None = None) -> list[str]:
        """Return the list of a record of an id, a text (its words with spaces between) and rare words.

        ``own`` is the list that the record has, if it has one.

        Raises:
            UserError: the record has no list of its own, and none is to be drawn; or there are too few distractors that
                are not in its text.
        """
        size, said = self.settings.size, {*text.split(), *names}
        if size == 0:
            return []
        wanted = set(names) if self.settings.present else set()
        if size is not None:
            words = self._drawn(record, size - len(wanted), said)
            for word in wanted:
                insort(words, word)
            return words
        if own is None:
            raise UserError(
                f"word lists: {record} has no list of its own in `listed`; expected one, or a size of lists"
            )
        return sorted({*own, *wanted} if self.settings.present else set(own) - said)

    def of_batch(self, batch: pa.Table) -> list[list[str]]:
        """Return the list of each record of a table with ``id``, ``text`` and ``names``, and ``listed`` if it has it.

        Raises:
            UserError: as of :meth:`of`.
        """
        columns = [batch[name].to_pylist() for name in ("id", "text", NAMES.name)]
        has_own = LISTED.name in batch.column_names and self.settings.size is None
        own = batch[LISTED.name].to_pylist() if has_own else [None] * len(batch)
        return [
            self.of(record, text or "", names or (), listed)
            for record, text, names, listed in zip(*columns, own, strict=True)
        ]

    def _drawn(self, record: str, count: int, said: set[str]) -> list[str]:
        """Return distractors that are not among the words that were said, sorted."""
        if count <= 0:
            return []
        out = [self._places[word] for word in said if word in self._places]
        self._refuse_few(count, len(self._pool) - len(out), f" that are not in the text of {record}")
        order = self._random(record).permutation(len(self._pool))[: count + len(out)]
        places = order[~np.isin(order, out)][:count]
        return self._pool[np.sort(places)].tolist()

    def _refuse_few(self, count: int, there: int, which: str) -> None:
        if there < count:
            raise UserError(
                f"word lists: a list of {count} words, but {there} distractors{which}; expected more of them"
            )


def read_entries(url: str, sentence: str) -> list[str]:
    """Return the lines of a text that are not empty; ``sentence`` tells, with the fault in place of ``{}``, of others.

    Raises:
        UserError: there is no such file, or it is no text.
    """
    try:
        lines = store.read_bytes(url).decode("utf-8-sig").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(sentence.replace("{}", "no such file")) from None
    except UnicodeDecodeError:
        raise UserError(sentence.replace("{}", "not UTF-8")) from None
    return [line.strip() for line in lines if line.strip()]
