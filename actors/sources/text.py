"""Listing of texts and of translation pairs: each record as it is in its file.

TSV, CSV, JSONL, Parquet, TMX, gettext catalogues, line-aligned pairs of files (``x.en`` and ``x.hi``, as in Moses) and,
for one language, plain lines. The name of a file decides its format. Files are streamed, except gettext catalogues,
whose size is limited.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.catalogues import list_gettext
from gristmill.actors.sources.columns import Parquet
from gristmill.actors.sources.csv_records import csv_records
from gristmill.actors.sources.encoding import refuse_wide
from gristmill.actors.sources.files import NOT_UTF8, Seen, base_of, in_tables, key_of, matches, visible
from gristmill.actors.sources.reading import LINE_BYTES, LONG_LINE, all_lines, lines, opened
from gristmill.actors.sources.tmx import list_tmx
from gristmill.actors.sources.unlisted import (
    MISSING,
    NOT_ALIGNED,
    OTHER_COLUMNS,
    UNREADABLE,
    FileFault,
    begun,
    guarded,
    is_unlisted,
)
from gristmill.models.languages import tags_of
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.schema import ID
from gristmill.shards.walking import walk
from gristmill.shards.wording import nearest

REPEATED = "repeated id"
PAIR_SIDES = ("source", "target")
TEXT_SIDES = ("text",)

_BY_SUFFIX = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".tmx": "tmx",
    ".po": "gettext",
    ".mo": "gettext",
    ".gmo": "gettext",
    ".txt": "lines",
}
_BY_LINE = ("tsv", "csv", "jsonl", "lines", "moses")  # may be compressed by gzip
_EXPECTED = {
    PAIR_SIDES: "expected .tsv, .csv, .jsonl, .parquet, .tmx, .po or .mo, or two files that end in the two languages",
    TEXT_SIDES: "expected .txt, .tsv, .csv, .jsonl, .parquet, .tmx, .po or .mo, or a file that ends in the language",
}
_OWN_ID = "id"


@dataclass(frozen=True)
class Wanted:
    """The parts to read of each record: its sides (``source`` and ``target``, or ``text``) and their languages.

    ``columns`` gives the column of each side in a table: a number, from 1, or a name; ``None``: the column named after
    the side or its language, else the first columns.
    """

    sides: tuple[str, ...]
    langs: tuple[str, ...]
    columns: tuple[str | int | None, ...]

    def names(self, place: int) -> list[str]:
        """Return the possible column names of a side, the most likely first."""
        given = self.columns[place]
        if given is not None:
            return [str(given)]
        more = ["sentence"] if self.sides == TEXT_SIDES else []
        return list(dict.fromkeys([self.sides[place], *more, *tags_of(self.langs[place])]))


def listed(sides: Sequence[str]) -> pa.Schema:
    """Return the columns of a listing."""
    return pa.schema(
        [
            ID,
            pa.field("format", pa.string()),
            pa.field("raw", pa.string()),  # a line, for a record that is not parsed yet
            pa.field("places", pa.list_(pa.int32())),  # column numbers of the sides in that line, from 0
            *(pa.field(side, pa.string()) for side in sides),  # if the listing had to parse them
            pa.field("problem", pa.string()),  # the reject reason, if the listing found one
        ]
    )


def list_texts(url: str, corpus: str, wanted: Wanted, *, rows: int = 2000) -> Iterator[pa.Table]:
    """Yield the records at a URL as tables of :func:`listed`, at most ``rows`` rows each, in the order of files.

    ``url``: a file, a folder or a pattern with ``*``, or for pairs the common prefix of two files' names before the
    languages; ``corpus`` is the first part of every id. In a folder, hidden files and those of other kinds are skipped.
    A missing path and a folder without text raise :class:`UserError` here, not at the first table; an unreadable record
    becomes a row with a ``problem``, and so does a file that cannot be listed (to its end), with "unlisted" as its
    format: damage, UTF-16, a missing column, line-aligned files of different lengths.

    Raises:
        UserError: there is nothing to list, or none of the files can be listed.
    """
    files = list(_files(url, wanted))
    if not files:
        raise UserError(f"{url}: no text found; {_EXPECTED[wanted.sides]}")
    base = base_of(files[0][0]) if _is_stem(url, wanted) else base_of(url)
    nothing = UserError(f"{url}: holds no text; {_EXPECTED[wanted.sides]}")
    return in_tables(begun(_records(files, url, base, corpus, wanted), lambda: nothing), listed(wanted.sides), rows)


def text_files(url: str, wanted: Wanted) -> Iterator[str]:
    """Yield the files at a URL whose records :func:`list_texts` lists, both of two that are line-aligned."""
    for file, kind in _files(url, wanted):
        yield file
        if kind == "moses":
            yield _partner(file, wanted)


def _files(url: str, wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Yield the files at a URL with their kinds; of two line-aligned files, the first."""
    if _is_stem(url, wanted):
        yield next(file for file in _ends(url, wanted.langs[0]) if store.exists(file)), "moses"
        return
    if "*" not in url and not store.exists(url):
        raise UserError(f"{url}: no such file or folder; {_EXPECTED[wanted.sides]}")
    if "*" not in url and store.filesystem(url)[0].isfile(store.filesystem(url)[1]):
        kind = _kind(url, wanted)
        if kind is None or (kind == "lines" and wanted.sides == PAIR_SIDES):
            raise UserError(f"{url}: unknown kind of file; {_EXPECTED[wanted.sides]}")
        if kind == "moses":
            _other(url, wanted)
        yield url, kind
        return
    base = base_of(url)
    for info in walk(base if "*" in url else url):
        if not visible(info.url, base) or not matches(info.url, url):
            continue
        kind = _kind(info.url, wanted)
        if kind == "lines" and wanted.sides == PAIR_SIDES:
            continue
        if kind == "moses" and not store.exists(_partner(info.url, wanted)):
            continue
        if kind is not None:
            yield info.url, kind


def _kind(file: str, wanted: Wanted) -> str | None:
    """Return the kind of a file by its name; ``None`` if it is not one that is wanted."""
    low = store.bare(file).lower()
    packed = low.endswith(".gz")
    suffix = "." + low.removesuffix(".gz").rpartition(".")[2]
    kind = _BY_SUFFIX.get(suffix)
    if kind is None and suffix.removeprefix(".") in map(str.lower, tags_of(wanted.langs[0])):
        kind = "moses" if wanted.sides == PAIR_SIDES else "lines"
    return None if packed and kind not in _BY_LINE else kind


def _ends(stem: str, lang: str) -> list[str]:
    """Return the names that a line-aligned file may have, the most likely first."""
    return [f"{stem}.{tag}{packed}" for tag in tags_of(lang) for packed in ("", ".gz")]


def _is_stem(url: str, wanted: Wanted) -> bool:
    """Return whether a URL is the common prefix of two files, ``url.en`` and ``url.hi``."""
    if wanted.sides != PAIR_SIDES or "*" in url or store.exists(url):
        return False
    return all(any(map(store.exists, _ends(url, lang))) for lang in wanted.langs)


def _partner(file: str, wanted: Wanted) -> str:
    """Return the second of two line-aligned files, compressed or not."""
    names = _ends(file.removesuffix(".gz").rpartition(".")[0], wanted.langs[1])
    return next(filter(store.exists, names), names[0])


def _other(file: str, wanted: Wanted) -> str:
    other = _partner(file, wanted)
    if not store.exists(other):
        raise FileFault(other, MISSING, f"missing; expected it beside {file}, with a line for each of its lines")
    return other


def _records(
    files: Iterable[tuple[str, str]], url: str, base: str, corpus: str, wanted: Wanted
) -> Iterator[dict[str, Any]]:
    seen = Seen()
    for file, kind in files:
        key = f"{corpus}/{key_of(file, base)}"
        for record in guarded(file, key, partial(_listing, file, kind, wanted, named=file == url)):
            if is_unlisted(record):
                yield record
                continue
            where = f"{key}#{record['id']}"
            if seen.before(where):
                yield {"id": f"{where}~again", "format": kind, "problem": REPEATED}
            else:
                yield {"format": kind} | record | {"id": where}


def _listing(file: str, kind: str, wanted: Wanted, *, named: bool) -> Iterator[dict[str, Any]]:
    """Return the records of a file, with ids without its key."""
    if kind in _BY_LINE:
        refuse_wide(file)
    if kind in ("tsv", "csv"):
        return _table(file, kind, wanted)
    if kind == "moses":
        return _side_by_side(file, _other(file, wanted))
    if kind == "parquet":
        return _parquet(file, wanted)
    if kind == "tmx":
        return list_tmx(file, wanted.sides, wanted.langs)
    if kind == "gettext":
        return list_gettext(file, wanted.sides, wanted.langs, named=named)
    return _lines(file, "raw" if kind == "jsonl" else wanted.sides[0])


def _read(line: bytes) -> dict[str, Any]:
    """Return a line's text, or the problem with it."""
    if len(line) > LINE_BYTES:
        return {"problem": LONG_LINE}
    try:
        return {"text": line.decode("utf-8-sig").rstrip("\r\n"), "problem": None}
    except UnicodeDecodeError:
        return {"problem": NOT_UTF8}


def _lines(file: str, into: str) -> Iterator[dict[str, Any]]:
    for number, line in lines(file):
        read = _read(line)
        yield {"id": number, into: read.get("text"), "problem": read["problem"]}


def _table(file: str, kind: str, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """List the records of a table: of TSV the lines, of CSV also those that run over lines, in quotes."""
    records = csv_records if kind == "csv" else lines
    first = next((line for _, line in records(file)), None)
    if first is None:
        return
    head = first[:LINE_BYTES].decode("utf-8-sig", "replace").rstrip("\r\n")
    try:
        cells = split_line(head, kind)
    except csv.Error as error:
        _refuse_other_delimiter(file, head, wanted)
        raise FileFault(file, UNREADABLE, f"its first line is not {kind.upper()}: {error}") from None
    if len(cells) == 1:
        _refuse_other_delimiter(file, head, wanted)
    places, headed = _columns(file, [cell.strip().lower() for cell in cells], wanted)
    for number, line in itertools.islice(records(file), int(headed), None):
        read = _read(line)
        yield {"id": number, "raw": read.get("text"), "problem": read["problem"], "places": places}


def _refuse_other_delimiter(file: str, head: str, wanted: Wanted) -> None:
    """Refuse a table whose first line names a wanted column if it is parted by something else."""
    names = {name.lower() for place in range(len(wanted.sides)) for name in wanted.names(place)}
    for delimiter in "\t;,|":
        cells = [cell.strip().strip('"').lower() for cell in head.split(delimiter)]
        if len(cells) > 1 and names.intersection(cells):
            said = f"its cells are parted by {delimiter!r}; expected commas in .csv, and tabs in .tsv"
            raise FileFault(file, OTHER_COLUMNS, said)


def split_line(line: str, kind: str) -> list[str]:
    """Return the cells of a line; in TSV, quotes are ordinary characters. An unclosed quote raises ``csv.Error``."""
    if kind == "tsv":
        return line.split("\t")
    if line.count('"') % 2:  # the reader accepts one within a cell, such as the end of a cell begun a line before
        raise csv.Error("a quote that is not closed")
    return next(csv.reader([line], strict=True), [])


def _columns(file: str, header: list[str], wanted: Wanted) -> tuple[list[int], bool]:
    """Return the column numbers of the sides in a table, and whether its first line is a header."""
    places: list[int] = []
    for place, side in enumerate(wanted.sides):
        given = wanted.columns[place]
        if isinstance(given, int):
            if not 1 <= given <= len(header):
                said = f"{side} is set to column {given}; expected 1 to {len(header)}, as in its first line"
                raise FileFault(file, OTHER_COLUMNS, said)
            places.append(given - 1)
            continue
        found = next((header.index(name.lower()) for name in wanted.names(place) if name.lower() in header), None)
        if found is not None:
            places.append(found)
        elif given is not None:
            said = f"no column {given!r} among {', '.join(header)[:200]}; expected the one of {side}"
            said += nearest(given.lower(), header)
            raise FileFault(file, OTHER_COLUMNS, said)
    if len(places) == len(wanted.sides):
        return places, not all(isinstance(given, int) for given in wanted.columns)
    if len(header) < len(wanted.sides):
        said = f"its first line has {len(header)} column; expected {' and '.join(wanted.sides)}"
        raise FileFault(file, OTHER_COLUMNS, said)
    return list(range(len(wanted.sides))), False


def _side_by_side(file: str, other: str) -> Iterator[dict[str, Any]]:
    """List two line-aligned files, including blank lines; with different numbers of lines, all pairs are in doubt."""
    refuse_wide(other)
    counts = [sum(1 for _ in all_lines(one)) for one in (file, other)]
    if counts[0] != counts[1]:
        said = f"{file} has {counts[0]} lines and {other} has {counts[1]}; expected line-aligned files of equal length"
        raise FileFault(file, NOT_ALIGNED, said.removeprefix(f"{file}: "))
    for number, pair in enumerate(zip(all_lines(file), all_lines(other), strict=True), 1):
        source, target = map(_read, pair)
        problem = source["problem"] or target["problem"]
        yield {"id": number, "source": source.get("text"), "target": target.get("text"), "problem": problem}


def _parquet(file: str, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """List the rows of a Parquet file: string columns, or Hugging Face's ``translation`` with a field per language."""
    number = 0
    with opened(file) as raw:
        parquet = Parquet(raw)
        paths = [_path(file, parquet.schema, wanted, place) for place in range(len(wanted.sides))]
        for group in range(len(parquet.rows)):
            for batch in parquet.batches(group, paths):
                for row in batch.to_pylist():
                    number += 1
                    values = [_inner(row, path) for path in paths]
                    yield {"id": number, **_sides(values, wanted)}


def _path(file: str, schema: pa.Schema, wanted: Wanted, place: int) -> str:
    """Return the column of a side, or the field in a column."""
    names = wanted.names(place)
    found = next((name for name in names if name in schema.names), None)
    inner = schema.field("translation").type if schema.names.count("translation") == 1 else None
    if found is None and inner is not None and pa.types.is_struct(inner):
        fields = [field.name for field in inner]
        found = next((f"translation.{name}" for name in names if name in fields), None)
    if found is None:
        there = ", ".join(schema.names)[:200]
        near = nearest(names[0], schema.names)
        said = f"no column of {wanted.sides[place]} among {there}; expected {' or '.join(names)}{near}"
        raise FileFault(file, OTHER_COLUMNS, said)
    return found


def _sides(values: Sequence[Any], wanted: Wanted) -> dict[str, Any]:
    if not all(value is None or isinstance(value, str) for value in values):
        return {"problem": "malformed record"}
    if any(value is not None and len(value) > LINE_BYTES for value in values):
        return {"problem": LONG_LINE}
    return dict(zip(wanted.sides, values, strict=True))


def _inner(row: dict[str, Any], path: str) -> Any:
    if path in row:
        return row[path]
    outer, _, inner = path.partition(".")
    return (row[outer] or {}).get(inner)
