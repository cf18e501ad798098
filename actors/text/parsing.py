"""The actor that parses listed text into records, cleans it, and rejects bad text and bad translations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from gristmill.actors.near_duplicates import KEY, SIGNATURE, key_of
from gristmill.actors.sources.sides import sides_of
from gristmill.actors.sources.text import PAIR_SIDES, listed
from gristmill.models import minhash
from gristmill.models.normalise import length_in_words, normalise, words
from gristmill.models.text.displayed import as_displayed, unescaped, without_formats
from gristmill.models.text.identify import is_written_in
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import PAIR_FIELDS, TEXT_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

LENGTH_RATIO = "length ratio"
EQUAL_SIDES = "equal sides"
IN_TEST = "in the test text"
HAS_FORMATS = "printf formats"

Formats = Literal["keep", "remove", "reject"]

_SLACK = 2  # words by which short texts may differ beyond the ratio
_LETTERS = 12  # maximum letters per word, on average


class CleaningSettings(Settings):
    """Cleaning and rejection of text."""

    max_words: int = Field(100, ge=1)
    """Maximum words of a side."""
    least_script: float = Field(0.5, ge=0, le=1)
    """The least share of a text's letters in a script of its language, names left out."""
    language_odds: float | None = Field(10, gt=1)
    """How many times as likely another language of the same script must be for a text to be rejected; ``null``:
    languages of one script are not told apart."""
    interface: bool | None = None
    """Whether text is from user interfaces, whose markup and accelerators are removed; ``null``: only in gettext
    catalogues."""
    formats: Formats = "remove"
    """The treatment of formats (``%s``, ``{0:.2f}``) in such text; of ICU plurals, ``remove`` leaves the last form."""
    label_source: str = "gold"
    """The ``label_source`` of each record."""


class PairCleaningSettings(CleaningSettings):
    """Cleaning and rejection of pairs."""

    max_ratio: float = Field(3.0, ge=1)
    """Maximum words of the longer side per word of the shorter one; two more are allowed. Text that is written without
    spaces counts by its characters."""


class TextParsingSettings(PairCleaningSettings):
    """The fields of listed records, and their cleaning."""

    sides: tuple[str, ...]
    """``source`` and ``target``, or ``text``."""
    langs: tuple[str, ...]
    """The language of each side."""
    names: tuple[tuple[str, ...], ...]
    """The names that each side's field may have in JSONL."""
    signature: bool = True
    """Whether to add ``signature``, by which near duplicates are found."""
    test_column: str = "text"
    """The text column of the test set."""


class ParseText(Actor):
    """Parses the listings of ``gristmill.actors.sources.text`` into records of text, or rejects them with the reason.

    Adds ``key`` and, if set, ``signature`` for the search of duplicates. ``test``: a set whose texts, in the language
    of the last side, are rejected.
    """

    name = "parse"
    reads_input = True
    version = 4  # joiners, languages of one script, names, lengths without spaces, formats
    batch = BatchLimits(512)
    settings: TextParsingSettings

    def __init__(self, settings: TextParsingSettings, test: str | None = None) -> None:
        super().__init__(settings)
        self._sides, self._langs = settings.sides, settings.langs
        self._test = set() if test is None else _keys(open_sealed(test), settings.test_column, self._langs[-1])

    @classmethod
    def contract(cls, settings: TextParsingSettings) -> Mapping[str, Any]:
        """Return the added and dropped columns, those of records with these sides."""
        fields = fields_of(settings.sides)
        signature = (SIGNATURE,) if settings.signature else ()
        drops = set(listed(settings.sides).names) - {field.name for field in fields}
        return {"adds": (*fields[1:], KEY, *signature), "drops": tuple(sorted(drops))}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a record for each row, with ``key``, ``signature`` if set, and ``reject_reason``."""
        made = [self._row(row) for row in batch.to_pylist()]
        columns = {f.name: pa.array([row.get(f.name) for row in made], f.type) for f in fields_of(self._sides)}
        columns[KEY.name] = pa.array([row.get("key") for row in made], KEY.type)
        if self.settings.signature:
            taken = [place for place, row in enumerate(made) if "key" in row]
            found = minhash.signatures([made[place]["words"] for place in taken])
            values: list[bytes | None] = [None] * len(made)
            for place, numbers in zip(taken, found, strict=True):
                values[place] = numbers.tobytes()
            columns[SIGNATURE.name] = pa.array(values, SIGNATURE.type)
        reasons = pa.array([row.get("reject_reason") for row in made], pa.string())
        return pa.table({**columns, "reject_reason": reasons})

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            if row["problem"]:
                raise RejectRecord(row["problem"])
            return {"id": row["id"], **self._record(row)}
        except RejectRecord as reject:
            return {"id": row["id"], "reject_reason": reject.reason}

    def _record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        interface = row["format"] == "gettext" if self.settings.interface is None else self.settings.interface
        texts = []
        for text, lang in zip(sides_of(row, self._sides, self.settings.names), self._langs, strict=True):
            if row["format"] == "moses":
                text = unescaped(text)
            texts.append(normalise(self._cleaned(text) if interface else text, lang))
        found = [words(text, lang) for text, lang in zip(texts, self._langs, strict=True)]
        self._judge(texts, found)
        joined = [" ".join(each) for each in found]
        if self._test and key_of([joined[-1]]) in self._test:
            raise RejectRecord(IN_TEST)
        record: dict[str, Any] = dict(zip(self._sides, texts, strict=True))
        names = ["lang"] if len(self._sides) == 1 else [f"{side}_lang" for side in self._sides]
        record |= dict(zip(names, self._langs, strict=True))
        return record | {
            "label_source": self.settings.label_source,
            "key": key_of(joined),
            "words": "\x1f".join(joined),
        }

    def _cleaned(self, text: str) -> str:
        """Return a user interface's text as displayed."""
        bare = without_formats(text)
        if self.settings.formats == "reject" and bare != text:
            raise RejectRecord(HAS_FORMATS)
        return as_displayed(bare if self.settings.formats == "remove" else text)

    def _judge(self, texts: Sequence[str], found: Sequence[Sequence[str]]) -> None:
        """Reject text that is not in its language, or not a translation of the other side."""
        most = self.settings.max_words
        sizes = [length_in_words(own) for own in found]
        for side, text, size in zip(self._sides, texts, sizes, strict=True):
            if not size:
                raise RejectRecord(f"{side}: empty")
            if size > most or len(text) > _LETTERS * most:
                raise RejectRecord(f"{side}: too long")
        if len(found) > 1 and found[0] == found[1]:
            raise RejectRecord(EQUAL_SIDES)
        least, odds = self.settings.least_script, self.settings.language_odds
        for place, (side, text, lang) in enumerate(zip(self._sides, texts, self._langs, strict=True)):
            beside = [word for other, some in enumerate(found) if other != place for word in some]
            if not is_written_in(text, lang, least, odds, beside):
                raise RejectRecord(f"{side}: wrong language")
        if max(sizes) > self.settings.max_ratio * min(sizes) + _SLACK:
            raise RejectRecord(LENGTH_RATIO)


def _keys(test: SealedSet, column: str, lang: str) -> set[int]:
    """Return the keys of the texts in a column of a set."""
    return {
        key_of([" ".join(words(text or "", lang))])
        for table in test.tables([column])
        for text in table[column].to_pylist()
    }


def fields_of(sides: Sequence[str]) -> tuple[pa.Field, ...]:
    """Return the columns of records with these sides."""
    return PAIR_FIELDS if tuple(sides) == PAIR_SIDES else TEXT_FIELDS
