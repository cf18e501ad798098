"""The actor that reads listed text into records, cleans it, and turns down what is no good text or translation."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from gristmill.actors.sources.text import PAIR_SIDES, listed, split_line
from gristmill.models.normalise import base_language, is_language, normalise, words
from gristmill.models.text import minhash
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.schema import PAIR_FIELDS, TEXT_FIELDS
from gristmill.shards.stage import ArtifactRef, BatchLimits, Resources, Stage

MALFORMED = "malformed record"
LENGTH_RATIO = "length ratio"
EQUAL_SIDES = "equal sides"
IN_TEST = "in the test text"
HAS_FORMATS = "printf formats"

Formats = Literal["keep", "remove", "reject"]

KEY = pa.field("key", pa.int64())  # equal where the words of all sides are equal
SIGNATURE = pa.field("signature", pa.binary(2 * minhash.NUMBERS))  # 64 uint16

_SPACELESS = frozenset({"zh", "ja", "th", "lo", "km", "my"})  # written without spaces between words
_SLACK = 2  # words by which short texts may differ beyond the ratio
_LETTERS = 12  # so many signs a word at most, on average
_TAG = re.compile(r"<[!/]?[A-Za-z][^<>]*>|&(?:#\d+|#x[0-9A-Fa-f]+|[A-Za-z]+);")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_APPENDED = re.compile(r"\s*\([&_~]\w\)")  # an accelerator beside a text that lacks its letter: "फ़ाइल (&F)"
_BEFORE = re.compile(r"[&~](?=\w)")
_UNDERLINE = re.compile(r"_(?=[^\W_])")
_FORMAT = re.compile(
    r"%%|%(?:\(\w+\))?(?:\d+\$)?[-+0#]*(?:\d+|\*)?(?:\.\d+)?(?:hh|h|ll|l|L|z|j|t)?[diouxXeEfFgGaAcsSpnL@]"
    r"|%L?\d+|\$\{\w+\}|\{\w*\}|\$\(\w+\)"
)


class Parse:
    """Reads listed records of ``sides`` into records of text, and turns down what ``reject_reason`` says.

    ``names``: of each side the names that its value may have in JSONL. ``max_words`` a side; ``max_ratio`` of the words
    of the longer side to the shorter one's, two more being free; ``least_script``: the share of a text's letters that
    must be of a script its language is written in. ``interface``: text is that of a program's windows, in catalogues
    (``None``) or everywhere: markup and accelerators are taken out of it. ``formats``: what is done about printf
    formats in such text. ``test``: the url of a set in whose column ``test_column`` stands what must not come out.
    Adds ``key`` and, if asked for, ``signature`` for the search of duplicates.
    """

    def __init__(
        self,
        sides: Sequence[str],
        langs: Sequence[str],
        names: Sequence[Sequence[str]],
        max_words: int = 100,
        max_ratio: float = 3.0,
        least_script: float = 0.5,
        interface: bool | None = None,
        formats: Formats = "remove",
        label_source: str = "gold",
        signature: bool = True,
        test_column: str = "text",
        test: str | None = None,
    ) -> None:
        self._sides, self._langs, self._names = tuple(sides), tuple(langs), names
        self._max_words, self._max_ratio, self._least_script = max_words, max_ratio, least_script
        self._interface, self._formats, self._label_source = interface, formats, label_source
        self._signature = signature
        self._test = set() if test is None else _keys(open_sealed(test), test_column, self._langs[-1])

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        made = [self._row(row) for row in batch.to_pylist()]
        columns = {f.name: pa.array([row.get(f.name) for row in made], f.type) for f in fields_of(self._sides)}
        columns[KEY.name] = pa.array([row.get("key") for row in made], KEY.type)
        if self._signature:
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
        interface = row["format"] == "gettext" if self._interface is None else self._interface
        texts = []
        for text in self._texts(row):
            texts.append(normalise(self._cleaned(text) if interface else text))
        found = [words(text, lang) for text, lang in zip(texts, self._langs, strict=True)]
        self._judge(texts, found)
        joined = [" ".join(each) for each in found]
        if self._test and key_of([joined[-1]]) in self._test:
            raise RejectRecord(IN_TEST)
        told: dict[str, Any] = dict(zip(self._sides, texts, strict=True))
        names = ["lang"] if len(self._sides) == 1 else [f"{side}_lang" for side in self._sides]
        told |= dict(zip(names, self._langs, strict=True))
        return told | {"label_source": self._label_source, "key": key_of(joined), "words": "\x1f".join(joined)}

    def _texts(self, row: Mapping[str, Any]) -> list[str]:
        """Return the sides as they stand; of lines that are yet to be parsed too."""
        values: list[Any]
        if row["raw"] is None:
            values = [row[side] for side in self._sides]
        elif row["format"] == "jsonl":
            values = self._object(row["raw"])
        else:
            try:
                cells = split_line(row["raw"], row["format"])
                values = [cells[place] for place in row["places"]]
            except (csv.Error, IndexError):
                raise RejectRecord(MALFORMED) from None
        if not all(value is None or isinstance(value, str) for value in values):
            raise RejectRecord(MALFORMED)
        return [value or "" for value in values]

    def _object(self, raw: str) -> list[Any]:
        try:
            values = json.loads(raw)
        except (ValueError, RecursionError):
            raise RejectRecord(MALFORMED) from None
        if not isinstance(values, dict):
            raise RejectRecord(MALFORMED)
        inner = values.get("translation")
        if isinstance(inner, dict):
            values = {**inner, **values}
        found = [next((name for name in names if name in values), None) for names in self._names]
        for side, name, names in zip(self._sides, found, self._names, strict=True):
            if name is None:
                raise RejectRecord(f"{side}: no field {' or '.join(names)}")
        return [values[name] for name in found]

    def _cleaned(self, text: str) -> str:
        """Return a text of a program's windows as it is read there."""
        if self._formats == "reject" and _FORMAT.search(text):
            raise RejectRecord(HAS_FORMATS)
        text = _TAG.sub(lambda found: _ENTITIES.get(found[0].lower(), " "), text)
        text = _UNDERLINE.sub("", _BEFORE.sub("", _APPENDED.sub("", text)))
        text = text.replace("\\n", " ").replace("\\t", " ").replace("\\'", "'").replace('\\"', '"')
        return _FORMAT.sub(" ", text) if self._formats == "remove" else text

    def _judge(self, texts: Sequence[str], found: Sequence[Sequence[str]]) -> None:
        """Turn down what is no text of its language, or no translation of the other side."""
        for side, text, own in zip(self._sides, texts, found, strict=True):
            if not own:
                raise RejectRecord(f"{side}: empty")
            if len(own) > self._max_words or len(text) > _LETTERS * self._max_words:
                raise RejectRecord(f"{side}: too long")
        if len(found) > 1 and found[0] == found[1]:
            raise RejectRecord(EQUAL_SIDES)
        for side, text, lang in zip(self._sides, texts, self._langs, strict=True):
            if not is_language(text, lang, self._least_script):
                raise RejectRecord(f"{side}: wrong language")
        if len(found) > 1:
            spaceless = any(base_language(lang) in _SPACELESS for lang in self._langs)
            sizes = sorted(map(len, texts if spaceless else found))
            if sizes[1] > self._max_ratio * sizes[0] + _SLACK:
                raise RejectRecord(LENGTH_RATIO)


def key_of(texts: Sequence[str]) -> int:
    """Return a number by which equal texts are found: the first 64 bits of their digest."""
    digest = hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _keys(test: SealedSet, column: str, lang: str) -> set[int]:
    """Return the keys of the texts in a column of a set."""
    return {
        key_of([" ".join(words(text or "", lang))])
        for table in test.tables([column])
        for text in table[column].to_pylist()
    }


def fields_of(sides: Sequence[str]) -> tuple[pa.Field, ...]:
    """Return the columns of records of these sides."""
    return PAIR_FIELDS if tuple(sides) == PAIR_SIDES else TEXT_FIELDS


def stage(
    sides: Sequence[str],
    langs: Sequence[str],
    names: Sequence[Sequence[str]],
    name: str = "parse",
    *,
    test: SealedSet | None = None,
    resources: Resources | None = None,
    **settings: Any,
) -> Stage:
    """Return the stage over what ``gristmill.actors.sources.text`` lists; ``settings`` are those of :class:`Parse`.

    ``test``: a set whose ``text`` (or else ``target``) in the language of the last side must not come out.
    """
    params = {"sides": list(sides), "langs": list(langs), "names": [list(each) for each in names], **settings}
    artifacts = {}
    if test is not None:
        column = next((column for column in ("text", "target") if column in test.schema.names), None)
        if column is None:
            raise UserError(f"{test.url}: no text among {test.schema.names}; expected a column text or target")
        params["test_column"] = column
        artifacts["test"] = ArtifactRef(test.url, test.digest)
    fields = fields_of(sides)
    adds = (*fields[1:], KEY, *([SIGNATURE] if settings.get("signature", True) else []))
    drops = tuple(set(listed(sides).names) - {field.name for field in fields})
    return Stage(
        name,
        "gristmill.actors.text.parsing:Parse",
        adds,
        tuple(sorted(drops)),
        params,
        artifacts,
        version=3,  # quotes of CSV, and fields that are missing
        batch=BatchLimits(512),
        resources=resources or Resources(),
    )
