"""Listing of lists of hypotheses: records with ``id`` and ``hypotheses`` in JSONL or Parquet, in tables.

A line that is no such record, a row without an id, and one whose id was given before cost themselves: they are rows
with a ``problem``, named by their file and line, and a stage rejects them (:class:`RejectListed`).
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.records import Filter
from gristmill.actors.sources.columns import Parquet
from gristmill.actors.sources.encoding import refuse_wide
from gristmill.actors.sources.files import NOT_UTF8, Seen
from gristmill.actors.sources.pointers import DUPLICATE
from gristmill.actors.sources.reading import LINE_BYTES, LONG_LINE, lines, opened
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.schema import HYPOTHESES_FIELDS, ID

ROWS = 2000  # of a shard
BATCH_BYTES = 32 << 20  # of a shard of long records
DEPTH = 64  # of brackets in a line: Arrow's reader ends the process at some ten thousand
EXPECTED = "a .parquet or .jsonl file, of records with `id` and `hypotheses`"
NO_ID = "no id"
MALFORMED = "malformed record"
PROBLEM = pa.field("problem", pa.string())  # the reject reason

_KNOWN = pa.schema([ID, *HYPOTHESES_FIELDS])

Problems = Mapping[int, str]  # by the number of a line, or of a row of Parquet


class RejectListed(Filter):
    """Rejects the rows that have a ``problem``, for it."""

    name = "list"
    reads_input = True
    columns = (PROBLEM.name,)
    drops = (PROBLEM.name,)

    def reason(self, record: dict[str, Any]) -> str | None:
        """Return the problem of a row."""
        problem: str | None = record[PROBLEM.name]
        return problem


class ListFile:
    """A file of lists. It is read twice: for its columns and problems, and for ``tables``.

    Raises:
        UserError: it cannot be read, or holds no list.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.tables: Callable[[], Iterator[pa.Table]]
        """Yields the lists in their order, with ``problem`` if any of them has one."""
        if store.bare(url).endswith(".parquet"):
            self.problems, rows = _problems_of_rows(url)
            self.tables = partial(_parquet, url, self.problems)
        else:
            schema, self.problems, rows = _read_whole(url)
            self.tables = partial(_jsonl, url, schema, self.problems)
        if rows == len(self.problems):
            if not store.bare(url).endswith(".parquet"):
                refuse_wide(url)
            first = next(iter(self.problems.items()), None)
            which = "" if first is None else f" (the first is {_place(url, first[0])}: {first[1]})"
            raise UserError(f"{url}: holds no list{which}; expected {EXPECTED}")


def is_file(url: str) -> bool:
    """Return whether a URL is that of a file of lists, by its name."""
    return store.bare(url).endswith((".parquet", ".jsonl"))


def _place(url: str, number: int) -> str:
    what = "row" if store.bare(url).endswith(".parquet") else "line"
    return f"{store.last_name(store.bare(url))}#{what}{number}"


def _with_problems(url: str, table: pa.Table, numbers: Sequence[int], problems: Problems) -> pa.Table:
    """Return a table of rows of some numbers, in which those with a problem have nothing but a name and the problem."""
    found = [problems.get(number) for number in numbers]
    bad = pa.array([one is not None for one in found])
    columns = []
    for field in table.schema:
        column = pc.if_else(bad, pa.nulls(len(table), field.type), table[field.name])
        if field.name == ID.name:
            ids = [
                name if why is None else _place(url, number) for name, why, number in _zipped(column, found, numbers)
            ]
            column = pa.array(ids, ID.type)
        columns.append(column)
    made = pa.table(columns, schema=table.schema)
    return made.append_column(PROBLEM, pa.array(found, PROBLEM.type))


def _zipped(column: Any, found: Sequence[str | None], numbers: Sequence[int]) -> Iterator[tuple[Any, str | None, int]]:
    return zip(column.to_pylist(), found, numbers, strict=True)


# --- Parquet


def _batches(url: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    with opened(url) as file:
        source = Parquet(file)
        missing = [name for name in ("id", "hypotheses") if name not in source.schema.names]
        if missing:
            raise UserError(f"{url}: has no column {missing[0]}; expected {EXPECTED}")
        for group in range(len(source.rows)):
            for batch in source.batches(group, columns or source.schema.names):
                yield _with_plain_ids(batch)


def _with_plain_ids(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with ids as texts where they are categories or views of texts, as of pandas and polars."""
    kind = batch["id"].type
    of_texts = pa.types.is_string_view(kind) or (pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))
    return (
        batch.set_column(batch.schema.get_field_index("id"), ID, batch["id"].cast(pa.string())) if of_texts else batch
    )


def _problems_of_rows(url: str) -> tuple[dict[int, str], int]:
    """Return the problems of rows that are no lists, and the number of rows."""
    problems: dict[int, str] = {}
    seen, number = Seen(), 0
    for batch in _batches(url):
        broken = set() if _is_valid(batch) else {i for i in range(len(batch)) if not _is_valid(batch.slice(i, 1))}
        if not _is_text(batch["id"]):
            raise UserError(f"{url}: the column id holds {batch['id'].type}; expected texts")
        for place, key in enumerate(batch["id"].cast(pa.binary()).to_pylist()):
            number += 1
            problem = NOT_UTF8 if place in broken else NO_ID if key is None else None
            if problem is None and seen.before(key.decode()):
                problem = DUPLICATE
            if problem is not None:
                problems[number] = problem
    return problems, number


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _parquet(url: str, problems: Problems) -> Iterator[pa.Table]:
    number = 1
    for batch in _batches(url):
        table = pa.Table.from_batches([batch])
        if problems:
            table = _with_problems(url, table, range(number, number + len(table)), problems)
        number += len(batch)
        yield table.combine_chunks()


# --- JSONL


def _read_whole(url: str) -> tuple[pa.Schema, dict[int, str], int]:
    """Return the columns of all lines, the problems of those that are no lists, and the number of lines."""
    schema, problems, seen, count = _KNOWN, dict[int, str](), Seen(), 0
    for piece in _pieces(url):
        count += len(piece)
        good = {}
        for number, line in piece.items():
            problem = _at_sight(line)
            if problem is None:
                good[number] = line
            else:
                problems[number] = problem
        schema, tables = _parsed(good, schema, problems)
        for numbers, table in tables:
            for number, key in zip(numbers, table["id"].to_pylist(), strict=True):
                if key is None:
                    problems[number] = NO_ID
                elif seen.before(key):
                    problems[number] = DUPLICATE
    return schema, problems, count


def _at_sight(line: bytes) -> str | None:
    """Return the problem of a line that may not be given to a reader."""
    if len(line) > LINE_BYTES:
        return LONG_LINE
    try:
        line.decode()
    except UnicodeDecodeError:
        return NOT_UTF8  # in the name of a column, Arrow would not see it
    if not line.lstrip().startswith(b"{"):
        return MALFORMED  # Arrow's reader ends the process at a piece of nothing but `null`
    return MALFORMED if line.count(b"[") + line.count(b"{") > DEPTH and _is_deep(line) else None


def _parsed(
    piece: Mapping[int, bytes], schema: pa.Schema, problems: dict[int, str]
) -> tuple[pa.Schema, list[tuple[list[int], pa.Table]]]:
    """Parse lines as one table if they are all good, else in halves, down to the lines that are not."""
    if not piece:
        return schema, []
    numbers = list(piece)
    try:
        table = _table(piece.values(), _KNOWN)
        return _unified(schema, table.schema), [(numbers, table)]
    except pa.ArrowException:
        if len(numbers) == 1:
            problems[numbers[0]] = MALFORMED
            return schema, []
    half, tables = len(numbers) // 2, []
    for part in (numbers[:half], numbers[half:]):
        schema, found = _parsed({number: piece[number] for number in part}, schema, problems)
        tables += found
    return schema, tables


def _table(given: Any, schema: pa.Schema) -> pa.Table:
    """Return the records of lines, one of each, or raise :class:`pyarrow.ArrowException`."""
    import pyarrow.json as pj

    held = list(given)
    reading = pj.ReadOptions(use_threads=False, block_size=max(1 << 20, 2 * max(map(len, held))))
    whole = io.BytesIO(b"".join(line.rstrip(b"\r\n") + b"\n" for line in held))
    table = pj.read_json(whole, reading, pj.ParseOptions(explicit_schema=schema))
    if table.num_rows != len(held):
        raise pa.ArrowInvalid("a line with several values, or a value over several lines")
    return table


def _unified(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """Return the columns of both, as the reader would have found them in one piece."""
    for field in one:
        at = other.get_field_index(field.name)
        kinds = {field.type, other.field(at).type} if at >= 0 else set()
        if pa.string() in kinds and any(pa.types.is_timestamp(kind) for kind in kinds):  # only some look like times
            one = one.set(one.get_field_index(field.name), field.with_type(pa.string()))
            other = other.set(at, field.with_type(pa.string()))
    return pa.unify_schemas([one, other], promote_options="permissive")


def _jsonl(url: str, schema: pa.Schema, problems: Problems) -> Iterator[pa.Table]:
    for piece in _pieces(url):
        # A line with a problem is a place in the table.
        table = _table((b"{}" if number in problems else line for number, line in piece.items()), schema)
        table = table.select(schema.names)
        yield (_with_problems(url, table, list(piece), problems) if problems else table).combine_chunks()


def _pieces(url: str) -> Iterator[dict[int, bytes]]:
    """Yield the lines of a file by number, as many as make a shard and no more than make a batch."""
    piece: dict[int, bytes] = {}
    size = 0
    for number, marked in lines(url):
        line = marked.removeprefix(codecs.BOM_UTF8)  # of each file that was joined to this one
        if piece and (len(piece) == ROWS or size + len(line) > BATCH_BYTES):
            yield piece
            piece, size = {}, 0
        piece[number] = line
        size += len(line)
    if piece:
        yield piece


def _is_deep(line: bytes) -> bool:
    """Return whether the brackets of a line of JSON go deeper than ``DEPTH``."""
    depth = 0
    for found in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', line):
        depth += (found[0] in b"[{") - (found[0] in b"]}")
        if depth > DEPTH:
            return True
    return False
