"""Listing of objects: lines of JSONL and TSV, elements of JSON, all also compressed by gzip, and rows of Parquet.

Each is listed as JSON text, for what has many columns of its own, which an actor parses: turns of sessions, whole
dialogues, recordings with what was heard.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.columns import Parquet
from gristmill.actors.sources.documents import Element, elements
from gristmill.actors.sources.encoding import refuse_wide
from gristmill.actors.sources.fields import keys_in
from gristmill.actors.sources.files import LOOKED_AT, NOT_UTF8, Seen, base_of, in_tables, key_of, matches, visible
from gristmill.actors.sources.pointers import DUPLICATE
from gristmill.actors.sources.reading import LINE_BYTES, LONG_LINE, lines, opened
from gristmill.actors.sources.unlisted import (
    EMPTY_FILE,
    OTHER_COLUMNS,
    UNREADABLE,
    FileFault,
    begun,
    guarded,
    is_unlisted,
)
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.schema import ID
from gristmill.shards.walking import walk
from gristmill.shards.wording import nearest

OBJECTS = pa.schema(
    [
        ID,
        pa.field("format", pa.string()),  # json, jsonl, tsv, parquet, or unlisted (a file)
        pa.field("raw", pa.string()),  # the object, as JSON
        pa.field("problem", pa.string()),  # the reason to reject it, as far as the listing knows
    ]
)
OTHER_CELLS = "more or fewer cells than the header"  # the reason of a line of TSV
_TABLES = (".tsv", ".tsv.gz")
_DOCUMENTS = (".json", ".json.gz")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", *_DOCUMENTS, *_TABLES)
_EXPECTED = "expected .jsonl, .json, .tsv (also with .gz) or .parquet"
Required = Mapping[str, str | tuple[str, ...]]
"""Keys that a file has to have, by what they hold; of several names of one key, one is enough."""


def list_objects(
    url: str,
    corpus: str,
    *,
    required: Required | None = None,
    fields: str = "",
    own: Sequence[str] = ("id",),
    by_folder: bool = False,
    rows: int = 2000,
) -> Iterator[pa.Table]:
    """Yield the objects at a URL as tables of :data:`OBJECTS`, at most ``rows`` rows each, in the order of their files.

    ``url``: a file, a folder or a pattern with ``*``; ``corpus`` is the prefix of every id; ``required`` are keys of
    which a file of the corpus has all, and ``fields`` the setting by which a user names them; ``own`` are keys under
    which an object may have an id of its own, as has each element of a JSON object, its key; with ``by_folder`` such an
    id is one of its folder only, as where each part of a corpus numbers its own. In a folder, hidden files and those of
    other kinds are passed over.

    Raises:
        UserError: there is nothing to list, or none of the files can be listed.

    Example:
        >>> store.write_bytes("made/turns.jsonl", b'{"session": "s1", "text": "stop"}')
        >>> (table,) = list_objects("made/turns.jsonl", "own", required={"session": "session"})
        >>> table.select(["id", "raw"]).to_pylist()
        [{'id': 'own/turns.jsonl#1', 'raw': '{"session": "s1", "text": "stop"}'}]
    """
    if "*" not in url and not store.exists(url):
        raise UserError(f"{url}: no such file or folder; {_EXPECTED}")
    nothing = UserError(f"{url}: no records found; {_EXPECTED}")
    needed = _Needed(required or {}, fields)
    return in_tables(begun(_records(url, corpus, needed, own, by_folder), lambda: nothing), OBJECTS, rows)


def object_files(url: str) -> Iterator[str]:
    """Yield the files at a URL that :func:`list_objects` lists."""
    if "*" not in url and store.filesystem(url)[0].isfile(store.filesystem(url)[1]):
        yield url
        return
    base = base_of(url)
    for info in walk(base if "*" in url else url):
        fits = store.bare(info.url).lower().endswith(_SUFFIXES)
        if fits and visible(info.url, base) and matches(info.url, url):
            yield info.url


@dataclass(frozen=True)
class _Needed:
    """The keys that a file has to have, by what they hold, and the setting that names them."""

    keys: Required
    fields: str

    def missing(self, there: Collection[str]) -> dict[str, str]:
        """Return those of which no name is there."""
        named = {value: (names,) if isinstance(names, str) else names for value, names in self.keys.items()}
        return {value: " or ".join(names) for value, names in named.items() if not set(names) & set(there)}

    def check(self, file: str, there: Sequence[str]) -> None:
        """Raise :class:`FileFault` for a file without one of them."""
        for value, name in self.missing(there).items():
            hint = "" if not self.fields else f", as {self.fields} names the {value}"
            if self.fields and value == name:
                hint = f", or {self.fields}={{{value}: NAME}}"
            other = nearest(name, there) if name in self.keys.values() else ""  # of one name, not of several
            said = f"has no {name!r} among {', '.join(there)[:200]}; expected it{hint}{other}"
            raise FileFault(file, OTHER_COLUMNS, said)

    def look(self, file: str, there: dict[str, None], all_keys: Iterable[Iterable[str]]) -> None:
        """The same for a file of objects, of which the first have the keys ``there``: what few have may come late."""
        for keys in all_keys if self.missing(there) else ():
            there |= dict.fromkeys(keys)
            if not self.missing(there):
                break
        self.check(file, list(there))


def _records(url: str, corpus: str, needed: _Needed, own: Sequence[str], by_folder: bool) -> Iterator[dict[str, Any]]:
    seen, base = Seen(), base_of(url)
    for file in object_files(url):
        key = f"{corpus}/{key_of(file, base)}"
        among = posixpath.dirname(key) if by_folder else corpus
        for record in guarded(file, key, partial(_listing, file, needed)):
            if is_unlisted(record):
                yield record
                continue
            place = f"{key}#{record.pop('number')}"
            found = {**(record.pop("values", None) or {}), "": record.pop("key", None)}
            given = next((value for name in ("", *own) if isinstance(value := found.get(name), str | int)), None)
            record["id"] = place if given is None or isinstance(given, bool) else f"{among}/{given}"
            if seen.before(record["id"]):
                record |= {"id": f"{place}~again", "problem": DUPLICATE}
            yield record


def _listing(file: str, needed: _Needed) -> Iterator[dict[str, Any]]:
    low = store.bare(file).lower()
    if low.endswith(".parquet"):
        return _parquet(file, needed)
    if not low.endswith(_SUFFIXES):
        raise FileFault(file, UNREADABLE, f"is of an unknown kind; {_EXPECTED}")
    if low.endswith(_DOCUMENTS):
        return _json(file, needed)
    return _tsv(file, needed) if low.endswith(_TABLES) else _jsonl(file, needed)


def _jsonl(file: str, needed: _Needed) -> Iterator[dict[str, Any]]:
    refuse_wide(file)
    head = [line for _, line in itertools.islice(lines(file), LOOKED_AT)]
    if not head:
        raise FileFault(file, EMPTY_FILE, "is empty; expected an object on each line")
    there = dict.fromkeys(key for line in head for key in keys_in(line[:LINE_BYTES]))
    if not there:
        raise FileFault(file, UNREADABLE, "none of its first lines is a JSON object; expected one on each line")
    needed.look(file, there, (keys_in(line[:LINE_BYTES]) for _, line in lines(file)))
    for number, line in lines(file):
        yield {"format": "jsonl", "number": number, **_read(line)}


def _json(file: str, needed: _Needed) -> Iterator[dict[str, Any]]:
    """List the elements of an array of objects, or of an object of them by id."""
    refuse_wide(file, document=True)
    there: dict[str, None] | None = None
    try:
        for one in itertools.islice(elements(file), LOOKED_AT):
            if isinstance(one.value, dict):
                there = (there or {}) | dict.fromkeys(one.value)
    except FileFault:
        if there is None:
            raise
    if there is None:
        said = "none of its first elements is an object; expected an array of objects, or an object of them by id"
        raise FileFault(file, UNREADABLE, f"{said} (a file with an object on each line is named .jsonl)")
    needed.look(file, there, (one.value for one in _whole(file) if isinstance(one.value, dict)))
    for number, one in enumerate(elements(file), 1):
        values = one.value if isinstance(one.value, dict) else None
        yield {"format": "json", "number": number, "raw": one.text, "key": one.key, "values": values}


def _whole(file: str) -> Iterator[Element]:
    """Yield the elements up to a fault, which is told when the file is listed."""
    with contextlib.suppress(FileFault):
        yield from elements(file)


def _tsv(file: str, needed: _Needed) -> Iterator[dict[str, Any]]:
    """List the lines below the header, with text cells; quotes are ordinary characters, and empty cells are null."""
    refuse_wide(file)
    numbered = lines(file)
    head = next(numbered, (0, b""))[1][:LINE_BYTES].decode("utf-8-sig", "replace").rstrip("\r\n")
    if not head:
        raise FileFault(file, EMPTY_FILE, "is empty; expected a header, and a record on each line")
    names = head.split("\t")
    needed.check(file, names)
    for number, line in numbered:
        found: dict[str, Any] = {"format": "tsv", "number": number}
        try:
            cells = line.decode().rstrip("\r\n").split("\t")
        except UnicodeDecodeError:
            yield found | {"problem": NOT_UTF8}
            continue
        if len(line) > LINE_BYTES or len(cells) != len(names):
            yield found | {"problem": LONG_LINE if len(line) > LINE_BYTES else OTHER_CELLS}
            continue
        row = {name: cell or None for name, cell in zip(names, cells, strict=True)}
        yield found | {"raw": json.dumps(row, ensure_ascii=False), "values": row}


def _read(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        return {"problem": LONG_LINE}
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        return {"problem": NOT_UTF8}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None  # the actor that parses it says so
    return {"raw": text, "values": values if isinstance(values, dict) else None}


def _parquet(file: str, needed: _Needed) -> Iterator[dict[str, Any]]:
    number = 0
    with opened(file) as raw:
        parquet = Parquet(raw)
        needed.check(file, parquet.schema.names)
        for group in range(len(parquet.rows)):
            for batch in parquet.batches(group, parquet.schema.names):
                for row in batch.to_pylist():
                    number += 1
                    text = json.dumps(row, ensure_ascii=False, default=_plain)
                    yield {"format": "parquet", "number": number, "raw": text, "values": row}


def _plain(value: Any) -> Any:
    """Return a value that JSON does not have: a time as ISO 8601, other things as text."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
