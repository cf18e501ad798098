"""Published lists of words for utterances, in the form of the public contextual-biasing benchmark for LibriSpeech.

A TSV has a line an utterance: its id, its text, its rare words and its list of words, both as JSON; the list has all of
the rare words (``is21_deep_bias`` of https://github.com/facebookresearch/fbai-speech).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.word_lists import LISTED
from gristmill.shards import store
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.schema import ID, NAMES
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor

LISTS_FILE = "lists.tsv"  # of an artifact
LISTS = pa.schema([ID, pa.field("text", pa.string()), NAMES, LISTED])

_EXPECTED = "an id, a text, its rare words and its list of words, with tabs between and both as JSON"


def read_lists(url: str) -> pa.Table:
    """Return the lines of a file as a table (``LISTS``), by the ids that they have.

    Raises:
        UserError: there is no such file, or a line has another form: the sentence names it.
    """
    try:
        data = store.read_bytes(url)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{url}: no such file; expected lists of words: a line has {_EXPECTED}") from None
    return parse_lists(data, url)


def parse_lists(data: bytes, source: str) -> pa.Table:
    r"""Return the lines of a file's content as a table (``LISTS``); sentences name the source.

    Raises:
        UserError: as of :func:`read_lists`.

    Example:
        >>> parse_lists(b'1-2\tcall ann\t["ann"]\t["ann", "bob"]\n', "lists.tsv").to_pylist()
        [{'id': '1-2', 'text': 'call ann', 'names': ['ann'], 'listed': ['ann', 'bob']}]
    """
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{source}: not UTF-8; expected lists of words") from None
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line.rstrip("\r"), f"{source}: line {number}")
        if row["id"] in rows:
            raise UserError(f"{source}: line {number} is of {row['id']} again; expected a line an utterance")
        rows[row["id"]] = row
    if not rows:
        raise UserError(f"{source}: has no line; expected {_EXPECTED}")
    return pa.Table.from_pylist(list(rows.values()), schema=LISTS)


class GiveLists(Actor):
    """Adds ``names`` and ``listed`` to records by their ids, from an artifact with ``lists.tsv`` of the public form.

    Raises:
        UserError: the file has another form, or a record has no list.
    """

    name = "give_lists"
    adds = (NAMES, LISTED)
    settings: Settings

    def __init__(self, settings: Settings, lists: str) -> None:
        super().__init__(settings)
        self.lists = parse_lists(read_file(lists, LISTS_FILE), lists)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the rare words of each record's text, and its list."""
        found = lists_of(self.lists, batch["id"].to_pylist())
        for field in self.adds:
            batch = set_column(batch, field.name, found[field.name].combine_chunks())
        return batch


def lists_of(lists: pa.Table, records: Iterable[str]) -> pa.Table:
    """Return the lists of records, in their order and by their ids, from a table of :func:`read_lists`.

    A record's id is that of its utterance, or has it as the name of its file: "corpus/1-2.flac".

    Raises:
        UserError: a record has no list.
    """
    ids = list(records)
    places = {utterance: place for place, utterance in enumerate(lists["id"].to_pylist())}
    found = [places.get(one, places.get(_file_name(one))) for one in ids]
    missing = [one for one, place in zip(ids, found, strict=True) if place is None]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"lists of words: there is none for {some}; expected one for each of {len(ids)} records")
    taken = lists.take(pa.array(found, pa.int64()))
    return taken.set_column(0, ID, pa.array(ids, pa.string()))


def _file_name(record: str) -> str:
    """Return the name of a record's file, without its ending."""
    name = record.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _row(line: str, where: str) -> dict[str, Any]:
    fields = line.split("\t")
    if len(fields) != len(LISTS):
        count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        raise UserError(f"{where} has {count}; expected {_EXPECTED}")
    utterance, text, names, listed = fields
    if not utterance.strip():
        raise UserError(f"{where} has no id; expected {_EXPECTED}")
    rare, words = _words(names, f"{where}: rare words"), _words(listed, f"{where}: list of words")
    said = set(text.split())
    _refuse(f"{where}: the text lacks", [word for word in rare if word not in said], "the rare words of the text")
    _refuse(f"{where}: the list lacks", sorted(set(rare) - set(words)), "a list with all of the rare words")
    return {"id": utterance.strip(), "text": text, "names": rare, "listed": words}


def _words(given: str, where: str) -> list[str]:
    expected = 'expected single words as JSON, such as ["anon", "harshly"]'
    try:
        words = json.loads(given)
    except (ValueError, RecursionError):
        raise UserError(f"{where} are {given[:80]!r}; {expected}") from None
    if not isinstance(words, list):
        raise UserError(f"{where} are {given[:80]!r}; {expected}")
    for word in words:
        if not isinstance(word, str) or word.split() != [word]:
            raise UserError(f"{where} have {word!r}; {expected}")
    return words


def _refuse(what: str, missing: Sequence[str], expected: str) -> None:
    if missing:
        raise UserError(f"{what} {', '.join(map(repr, missing[:3]))}; expected {expected}")
