"""Listing of recordings in tables: TSV and CSV with a column of paths (Common Voice, ``metadata.csv``), and LJSpeech's.

A line is a record; in CSV, quoted ones may run over several. LJSpeech has neither a header nor quotes.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from gristmill.actors.sources.bases import base_of_entries
from gristmill.actors.sources.csv_records import csv_records
from gristmill.actors.sources.encoding import refuse_wide
from gristmill.actors.sources.fields import expected_column, own_id
from gristmill.actors.sources.files import LOOKED_AT, Say, Seen, named_or_found, pointers_of
from gristmill.actors.sources.keys import Keys, may_be_absolute
from gristmill.actors.sources.pointers import MALFORMED, NAMES, declared, named, resolve
from gristmill.actors.sources.reading import LINE_BYTES, lines
from gristmill.actors.sources.splits import corpus_of, of_splits
from gristmill.actors.sources.unlisted import OTHER_COLUMNS, FileFault, guarded
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.store import bare, list_names

USUAL = "metadata.csv"  # of Hugging Face's AudioFolder, and of LJSpeech
_CLIPS, _WAVS = "clips", "wavs"  # of Common Voice, of LJSpeech
_LJSPEECH = ("id", "transcript", "normalized_text")


def tables_in(folder: str) -> list[str]:
    """Return the table of a folder, if it has one of recordings."""
    names = [name for name in list_names(folder) if not name.startswith(".")]
    if USUAL in names:
        return [f"{folder}/{USUAL}"]
    tables = [name for name in names if name.endswith(".tsv")] if _CLIPS in names else []
    if len(tables) > 1:
        raise UserError(f"{folder}: holds several tables ({', '.join(tables[:9])}); name one of them")
    return [f"{folder}/{name}" for name in tables]


def _files(url: str, say: Say) -> list[str]:
    return named_or_found(url, "table", lambda folder: tables_in(folder) or of_splits(folder, "table", say))


def table_columns(url: str, fields: Mapping[str, str] | None) -> Iterator[list[str]]:
    """Yield the columns of each table, known ones by the names that they are known by."""
    for file in _files(url, lambda sentence: None):
        with contextlib.suppress(FileFault):
            for _, line in itertools.islice(lines(file), 1):
                form = _form(file, _first(line), fields)
                yield list(form.names) if form.header else [*form.names, *NAMES["text"]]


def _first(line: bytes) -> str:
    return line[:LINE_BYTES].decode("utf-8-sig", "replace").rstrip("\r\n")


def list_table(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each line below the header; a malformed line becomes a row of kind "bad"."""
    seen = Seen()
    for file in _files(url, say):
        own = corpus_of(file, url, corpus)
        yield from guarded(file, f"{own}/{posixpath.basename(bare(file))}", partial(_listed, file, own, fields, seen))


@dataclass(frozen=True)
class _Form:
    """How the lines of a table are read."""

    delimiter: str
    names: tuple[str, ...]
    header: bool

    def values(self, line: bytes) -> dict[str, str | None]:
        """Return the cells of a line by column; empty ones are ``None``."""
        is_quoted = self.header and self.delimiter != "\t"
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
        try:
            text = line.decode("utf-8-sig").rstrip("\r\n")
            (cells,) = csv.reader([text], delimiter=self.delimiter, quoting=quoting, strict=True)
        except (UnicodeDecodeError, csv.Error, ValueError):
            raise RejectRecord(MALFORMED) from None
        if len(cells) > len(self.names) or (self.header and len(cells) < len(self.names)):
            raise RejectRecord(MALFORMED)
        return {name: cell.strip() or None for name, cell in itertools.zip_longest(self.names, cells, fillvalue="")}


def _listed(file: str, corpus: str, fields: Mapping[str, str] | None, seen: Seen) -> Iterator[dict[str, Any]]:
    refuse_wide(file)
    head = [line for _, line in itertools.islice(lines(file), LOOKED_AT)]
    if not head:
        return iter(())
    form = _form(file, _first(head[0]), fields)
    folder = posixpath.dirname(bare(file))
    body = head[1:] if form.header else head
    base = base_of_entries(_places(body, form, fields), [folder, f"{folder}/{_CLIPS}", f"{folder}/{_WAVS}"])
    is_csv = form.header and form.delimiter != "\t"
    records = csv_records(file, form.delimiter) if is_csv else lines(file)
    numbered = csv_records(file, form.delimiter) if is_csv else lines(file)  # a first time, for the keys
    body_lines = (line for _, line in itertools.islice(numbered, int(form.header), None))
    absolute = (next(_places([line], form, fields), "") if may_be_absolute(line) else "" for line in body_lines)
    keys = Keys(folder, absolute)
    read = partial(_pointer, form=form, base=base, corpus=corpus, fields=fields, keys=keys)
    return pointers_of(file, corpus, itertools.islice(records, int(form.header), None), read, seen)


def _form(file: str, first: str, fields: Mapping[str, str] | None) -> _Form:
    wanted = {name.lower() for name in named(fields, "audio")}
    cells: list[list[str]] = []  # by each delimiter
    for delimiter in "\t" if bare(file).lower().endswith(".tsv") else ",;|\t":
        names = [name.strip().strip('"') for name in first.split(delimiter)]
        cells.append(names)
        if wanted.intersection(name.lower() for name in names):
            return _Form(delimiter, tuple(_as_known(names, fields)), header=True)
    if posixpath.basename(bare(file)) == USUAL and 1 <= first.count("|") < len(_LJSPEECH):
        return _Form("|", _LJSPEECH, header=False)
    said = f"no column of audio in its first line, {first[:200]!r}" + expected_column(
        "audio", fields, max(cells, key=len)
    )
    raise FileFault(file, OTHER_COLUMNS, said)


def _as_known(names: list[str], fields: Mapping[str, str] | None) -> Iterator[str]:
    """Yield the names of columns, those that the listing knows as it knows them, in whatever case they are."""
    known = {name: name for value in NAMES for name in NAMES[value]} | {
        name.lower(): name for name in (fields or {}).values()
    }
    return (known.get(name.lower(), name) for name in names)


def _audio(values: Mapping[str, str | None], form: _Form, fields: Mapping[str, str] | None) -> str:
    if not form.header:
        name = values["id"]
        return "" if name is None else f"{name.removesuffix('.wav')}.wav"
    return next((found for key in named(fields, "audio") if (found := values.get(key))), "")


def _places(body: list[bytes], form: _Form, fields: Mapping[str, str] | None) -> Iterator[str]:
    for line in body:
        try:
            place = _audio(form.values(line), form, fields)
        except RejectRecord:
            continue
        if place:
            yield place


def _pointer(
    line: bytes, form: _Form, base: str, corpus: str, fields: Mapping[str, str] | None, keys: Keys
) -> dict[str, Any]:
    values: dict[str, Any] = dict(form.values(line))
    place = _audio(values, form, fields)
    if not place:
        raise RejectRecord(MALFORMED)
    if not form.header:  # the normalised text is the spoken one
        values = {"audio": place, "text": values["normalized_text"] or values["transcript"]}
    found = declared(values, fields if form.header else None)
    own = own_id(values, fields) if form.header else None
    return {**found, "id": f"{corpus}/{own or keys(place)}", "kind": "file", "url": resolve(base, place)}
