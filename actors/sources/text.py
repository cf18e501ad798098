"""Listing of texts and of translation pairs: each record as it is in its file.

TSV, CSV, JSONL, Parquet, TMX, gettext catalogues, line-aligned pairs of files (``x.en`` and ``x.hi``, as in Moses) and,
for one language, plain lines. The name of a file decides its format. Files are streamed, except gettext catalogues.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.actors.sources.catalogues import list_gettext, list_tmx
from gristmill.actors.sources.files import Seen, all_lines, base_of, key_of, lines, matches, visible
from gristmill.models.normalise import base_language
from gristmill.shards import store
from gristmill.shards.errors import UserError, one_line
from gristmill.shards.schema import ID

NOT_UTF8 = "not UTF-8"
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
_WIDE = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
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
        lang = self.langs[place]
        more = ["sentence"] if self.sides == TEXT_SIDES else []
        return list(dict.fromkeys([self.sides[place], *more, lang, base_language(lang)]))


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
    A missing path, a folder without text, a missing column and a file in UTF-16 raise :class:`UserError` here, not at
    the first table; an unreadable record becomes a row with a ``problem``.

    Raises:
        UserError: also during iteration: line-aligned files have different numbers of lines, or a catalogue is damaged.
    """
    files = list(_files(url, wanted))
    if not files:
        raise UserError(f"{url}: no text found; {_EXPECTED[wanted.sides]}")
    listings = [(file, kind, _prepared(file, kind, wanted, named=file == url)) for file, kind in files]
    return _tables(listings, base_of(files[0][0]) if _is_stem(url, wanted) else base_of(url), corpus, wanted, rows)


Listing = Callable[[str], Iterator[dict[str, Any]]]  # key of a file -> its records, with ids without the key


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
    for info in store.walk(base if "*" in url else url):
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
    low = file.lower()
    packed = low.endswith(".gz")
    suffix = "." + low.removesuffix(".gz").rpartition(".")[2]
    kind = _BY_SUFFIX.get(suffix)
    if kind is None and suffix == f".{wanted.langs[0].lower()}":
        kind = "moses" if wanted.sides == PAIR_SIDES else "lines"
    return None if packed and kind not in _BY_LINE else kind


def _ends(stem: str, lang: str) -> list[str]:
    return [f"{stem}.{lang}", f"{stem}.{lang}.gz"]


def _is_stem(url: str, wanted: Wanted) -> bool:
    """Return whether a URL is the common prefix of two files, ``url.en`` and ``url.hi``."""
    if wanted.sides != PAIR_SIDES or "*" in url or store.exists(url):
        return False
    return all(any(map(store.exists, _ends(url, lang))) for lang in wanted.langs)


def _partner(file: str, wanted: Wanted) -> str:
    """Return the second of two line-aligned files, compressed or not."""
    stem = file.removesuffix(".gz")[: -len(wanted.langs[0])]
    plain, packed = f"{stem}{wanted.langs[1]}", f"{stem}{wanted.langs[1]}.gz"
    return packed if not store.exists(plain) and store.exists(packed) else plain


def _other(file: str, wanted: Wanted) -> str:
    other = _partner(file, wanted)
    if not store.exists(other):
        raise UserError(f"{other}: missing; expected it beside {file}, with a line for each of its lines")
    return other


def _prepared(file: str, kind: str, wanted: Wanted, named: bool) -> Listing:
    """Return the listing of a file; faults that show at once raise :class:`UserError` here."""
    if kind in _BY_LINE:
        _refuse_wide(file)
    if kind in ("tsv", "csv"):
        return _table(file, kind, wanted)
    if kind == "moses":
        other = _other(file, wanted)
        _refuse_wide(other)
        return lambda key: _side_by_side(file, other)
    if kind == "parquet":
        return _parquet(file, wanted)
    if kind == "tmx":
        return lambda key: list_tmx(file, wanted.sides, wanted.langs)
    if kind == "gettext":
        return lambda key: list_gettext(file, wanted.sides, wanted.langs, named=named)
    if kind == "jsonl":
        return lambda key: _lines(file, "raw")
    return lambda key: _lines(file, wanted.sides[0])


def _refuse_wide(file: str) -> None:
    begin = next(all_lines(file), b"")
    for mark, name in _WIDE:
        if begin.startswith(mark):
            raise UserError(f"{file}: its text is {name}; expected UTF-8")


def _tables(
    listings: Iterable[tuple[str, str, Listing]], base: str, corpus: str, wanted: Wanted, rows: int
) -> Iterator[pa.Table]:
    seen, schema = Seen(), listed(wanted.sides)

    def records() -> Iterator[dict[str, Any]]:
        for file, kind, listing in listings:
            key = key_of(file, base)
            for record in listing(key):
                where = f"{corpus}/{key}#{record['id']}"
                if seen.before(where):
                    yield {"id": f"{where}~again", "format": kind, "problem": REPEATED}
                else:
                    yield {"format": kind} | record | {"id": where}

    every = records()
    while batch := list(itertools.islice(every, rows)):
        yield pa.Table.from_pylist(batch, schema=schema)


def _read(line: bytes) -> str | None:
    """Return a line's text, or ``None`` if it is not UTF-8."""
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        return None


def _lines(file: str, into: str) -> Iterator[dict[str, Any]]:
    for number, line in lines(file):
        text = _read(line)
        yield {"id": number, into: text, "problem": NOT_UTF8 if text is None else None}


def _table(file: str, kind: str, wanted: Wanted) -> Listing:
    """List the lines of a table. A line is a record: an unclosed quote costs only its own line."""
    first = next((line for _, line in lines(file)), None)
    if first is None:
        return lambda key: iter(())
    cells = split_line(first.decode("utf-8-sig", "replace").rstrip("\r\n"), kind)
    places, headed = _columns(file, [cell.strip().lower() for cell in cells], wanted)

    def listing(key: str) -> Iterator[dict[str, Any]]:
        for record in itertools.islice(_lines(file, "raw"), int(headed), None):
            yield {**record, "places": places}

    return listing


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
                raise UserError(
                    f"{file}: {side} is set to column {given}; expected 1 to {len(header)}, as in its first line"
                )
            places.append(given - 1)
            continue
        found = next((header.index(name.lower()) for name in wanted.names(place) if name.lower() in header), None)
        if found is not None:
            places.append(found)
        elif given is not None:
            raise UserError(f"{file}: no column {given!r} among {', '.join(header)}; expected the one of {side}")
    if len(places) == len(wanted.sides):
        return places, not all(isinstance(given, int) for given in wanted.columns)
    if len(header) < len(wanted.sides):
        raise UserError(f"{file}: its first line has {len(header)} column; expected {' and '.join(wanted.sides)}")
    return list(range(len(wanted.sides))), False


def _side_by_side(file: str, other: str) -> Iterator[dict[str, Any]]:
    """List two line-aligned files, including blank lines; different numbers of lines are an error."""
    counts = [0, 0]
    for number, pair in enumerate(itertools.zip_longest(all_lines(file), all_lines(other)), 1):
        for side, line in enumerate(pair):
            counts[side] += line is not None
        if counts[0] == counts[1]:
            texts = [_read(line) for line in pair]
            problem = NOT_UTF8 if None in texts else None
            yield {"id": number, "source": texts[0], "target": texts[1], "problem": problem}
    if counts[0] != counts[1]:
        raise UserError(
            f"{file} has {counts[0]} lines and {other} has {counts[1]}; expected line-aligned files of equal length"
        )


def _parquet(file: str, wanted: Wanted) -> Listing:
    """List the rows of a Parquet file: string columns, or Hugging Face's ``translation`` with a field per language."""
    with store.open_read(file) as opened:
        try:
            schema = pq.read_schema(opened)
        except pa.ArrowInvalid:
            raise UserError(f"{file}: damaged or not Parquet; expected a Parquet file") from None
    paths = []
    for place, side in enumerate(wanted.sides):
        names = wanted.names(place)
        found = next((name for name in names if name in schema.names), None)
        inner = schema.field("translation").type if "translation" in schema.names else None
        if found is None and inner is not None and pa.types.is_struct(inner):
            fields = [field.name for field in inner]
            found = next((f"translation.{name}" for name in names if name in fields), None)
        if found is None:
            raise UserError(
                f"{file}: no column of {side} among {', '.join(schema.names)}; expected {' or '.join(names)}"
            )
        paths.append(found)

    def listing(key: str) -> Iterator[dict[str, Any]]:
        number = 0
        with store.open_read(file) as opened:
            for batch in _batches(file, opened, paths):
                for row in batch.to_pylist():
                    number += 1
                    values = [_inner(row, path) for path in paths]
                    if all(value is None or isinstance(value, str) for value in values):
                        yield {"id": number, **dict(zip(wanted.sides, values, strict=True))}
                    else:
                        yield {"id": number, "problem": "malformed record"}

    return listing


def _batches(file: str, opened: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from pq.ParquetFile(opened).iter_batches(2000, columns=columns, use_threads=False)
    except OSError as error:
        if error.errno is not None:  # an error of storage, not of Arrow's decoder
            raise
        raise UserError(
            f"{file}: damaged ({one_line(error)}); expected a Parquet file that can be read to its end"
        ) from None


def _inner(row: dict[str, Any], path: str) -> Any:
    if path in row:
        return row[path]
    outer, _, inner = path.partition(".")
    return (row[outer] or {}).get(inner)
