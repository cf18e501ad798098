"""The lookup of rewrites: a mined table in compact form, in one process."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.models.sessions.interpretations import number, numbers, utterance
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.finding import find_below

_COLUMNS = ("source_interpretation", "source_text", "target_text", "support", "margin", "turns")
_NAME = "rewrites"  # begins the name of the set


class Rewrite(NamedTuple):
    """What a request is rewritten to."""

    text: str
    support: int
    """Users whose chains came from the request to success there."""
    margin: float
    """How much more probable success is there."""


class Rewriter:
    """Finds the rewrite of a request by its interpretation, or by its text.

    A rewrite is of an interpretation; by its text only the commonest one of the interpretation is found. Each rewrite
    takes 32 bytes in memory, and its text. Interpretations are written as by
    :func:`gristmill.models.sessions.interpretations.interpretation`.

    Example:
        >>> from gristmill.shards.dataset import seal_tables
        >>> row = {"source_interpretation": "music/play(song=maj and dragons)", "source_text": "play maj and dragons"}
        >>> row |= {"target_text": "play imagine dragons", "support": 12, "margin": 0.5, "turns": 40}
        >>> made = seal_tables("made/table", "rewrites", [pa.Table.from_pylist([{"id": "1", **row}])])
        >>> rewriter = Rewriter("made/table")
        >>> rewriter.rewrite("Play maj and dragons!")
        Rewrite(text='play imagine dragons', support=12, margin=0.5)
        >>> rewriter.rewrite("music/play(song=maj and dragons)").text
        'play imagine dragons'
        >>> rewriter.rewrite("play jazz") is None, len(rewriter)
        (True, 1)
    """

    def __init__(self, url: str) -> None:
        """Load the table at a URL, which is that of a set of rewrites or of the output of a run with one.

        Raises:
            UserError: there is none, or there are several.
        """
        made = _found(url)
        table = pa.concat_tables(made.tables(_COLUMNS))
        self._texts = table["target_text"].combine_chunks()
        self._support = table["support"].to_numpy().astype(np.int32)
        self._margin = table["margin"].to_numpy().astype(np.float32)
        turns = table["turns"].to_numpy()
        self._by_interpretation = _Index(numbers(table["source_interpretation"].combine_chunks()), turns)
        self._by_text = _Index(numbers(table["source_text"].combine_chunks()), turns)

    def __len__(self) -> int:
        return len(self._texts)

    def rewrite(self, request: str, lang: str = "") -> Rewrite | None:
        """Return the rewrite of a request, given by its interpretation, or by its text in the language ``lang``.

        It is ``None`` if the request has none, as one without a word ("", or punctuation alone).

        Raises:
            TypeError: the request is no string.
        """
        if not isinstance(request, str):
            raise TypeError(f"request is {request!r:.80}; expected a string: a text or an interpretation")
        heard = utterance(request, lang)
        if not heard:  # turns without a text have it in common, and nothing else
            return None
        row = self._by_interpretation.find(number(request))
        if row is None:
            row = self._by_text.find(number(heard))
        if row is None:
            return None
        margin = round(float(self._margin[row]), 6)
        return Rewrite(self._texts[row].as_py(), int(self._support[row]), margin)


class _Index:
    """Rows by the numbers of their keys; of equal keys, the row with the most turns."""

    def __init__(self, keys: np.ndarray, turns: np.ndarray) -> None:
        order = np.lexsort((-turns, keys))
        first = order[np.flatnonzero(np.diff(keys[order], prepend=-1))]
        self._keys, self._rows = keys[first], first.astype(np.int32)

    def find(self, key: int) -> int | None:
        """Return the row of a key."""
        place = int(np.searchsorted(self._keys, key))
        return int(self._rows[place]) if place < len(self._keys) and self._keys[place] == key else None


def _found(url: str) -> SealedSet:
    sealed = [one for one in find_below(url).sealed if one.name.startswith(_NAME)]
    sealed = [one for one in sealed if set(_COLUMNS) <= set(one.schema.names)]
    if len(sealed) != 1:
        there = f"{len(sealed)} sets of rewrites are" if sealed else "no set of rewrites is"
        named = f" ({', '.join(one.url for one in sealed)})" if sealed else ""
        raise UserError(f"{url}: {there} here or below{named}; expected the folder of one")
    return sealed[0]
