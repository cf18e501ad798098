"""Files that cannot be listed, or not to their end: each is told and counted, and the other files go on.

Such a file is a row of its listing with ``UNLISTED`` as its kind (of speech) or format (of text and requests): it has
the reason in ``problem``, and the sentence in ``extra`` or ``raw``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.records import Filter
from gristmill.shards.errors import GristmillError, RejectRecord, UserError, with_class
from gristmill.shards.schema import ID

UNLISTED = "unlisted"

# The reasons. They are counted, so they contain no details of a file.
MISSING = "missing"
EMPTY_FILE = "empty"
UNREADABLE = "unreadable"
TRUNCATED = "truncated"
TOO_LARGE = "too large"
OTHER_ENCODING = "other encoding"
OTHER_COLUMNS = "other columns"
OTHER_LANGUAGE = "other language"
NOT_ALIGNED = "not line-aligned"

FILES = pa.schema([ID, pa.field("reason", pa.string()), pa.field("message", pa.string())])

Record = dict[str, Any]


class FileFault(UserError):
    """A file cannot be listed, or not to its end, for a ``reason`` that is counted."""

    def __init__(self, file: str, reason: str, message: str) -> None:
        super().__init__(printable(f"{file}: {message}"))
        self.reason = reason


def printable(text: str) -> str:
    """Return a text whose control characters and halves of surrogate pairs are escaped.

    Example:
        >>> printable("a\\nb")
        'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def guarded(file: str, key: str, records: Callable[[], Iterable[Record]]) -> Iterator[Record]:
    """Yield the records of a file; if it cannot be listed (to its end), the last row says so.

    Faults of storage are no faults of a file, and are raised: :mod:`gristmill.actors.sources.reading` tells them apart.

    Raises:
        UserError: the storage cannot be reached, or refuses access.
    """
    listed = 0
    try:
        for record in records():
            yield record
            listed += 1
    except FileFault as found:
        fault = found
    except GristmillError:
        raise
    except RejectRecord as reject:
        fault = FileFault(file, reject.reason, f"{reject.reason}; expected a file that can be read")
    except Exception as error:  # decoders of damaged files raise all kinds of errors
        reason = TOO_LARGE if isinstance(error, MemoryError) else UNREADABLE
        fault = FileFault(
            file, reason, f"cannot be listed ({with_class(error)[:300]}); expected a whole file of its kind"
        )
    else:
        return
    yield row_of(file, printable(f"{key}#rest" if listed else key), fault)


def row_of(file: str, key: str, fault: FileFault) -> Record:
    """Return the row of a file, or of the rest of it, in any kind of listing."""
    said = str(fault)
    kind = {"kind": UNLISTED, "format": UNLISTED}
    return {"id": key, **kind, "url": printable(file), "problem": fault.reason, "extra": said, "raw": said}


def is_unlisted(record: Record) -> bool:
    """Return whether a row stands for a file, not for a record."""
    return UNLISTED in (record.get("kind"), record.get("format"))


def begun(records: Iterator[Record], nothing: Callable[[], UserError]) -> Iterator[Record]:
    """Return the records, of which the first is read at once.

    Raises:
        NothingListed: none of the files can be listed.
        UserError: there is no record, nor a file that cannot be listed: what ``nothing`` returns.
    """
    held: list[Record] = []
    for record in records:
        held.append(record)
        if not is_unlisted(record):
            return itertools.chain(held, records)
    if held:
        raise NothingListed(held)
    raise nothing()


class NothingListed(UserError):
    """Of a source, none of the files can be listed: the sentence of the first one. ``files`` has all, as ``FILES``."""

    def __init__(self, rows: list[Record]) -> None:
        more = f"; nor can {len(rows) - 1} more be listed" if len(rows) > 1 else ""
        super().__init__(rows[0]["raw"] + more)
        self.files = pa.table([[row[name] for row in rows] for name in ("id", "problem", "raw")], schema=FILES)


def divided(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the records of a table of a listing, and the files that cannot be listed, as ``FILES``."""
    if table.schema.equals(FILES):
        return table.slice(0, 0), table
    names = table.column_names
    mark = table["kind" if "kind" in names else "format"]
    away = pc.equal(mark, UNLISTED).fill_null(False)
    if not pc.any(away).as_py():
        return table, FILES.empty_table()
    files = table.filter(away)
    columns = [files["id"], files["problem"], files["extra" if "extra" in names else "raw"]]
    return table.filter(pc.invert(away)), pa.table(columns, schema=FILES)


class RejectFile(Filter):
    """Rejects each of ``FILES``, for its reason."""

    name = "list"
    columns = ("reason",)

    def reason(self, record: Record) -> str | None:
        """Return the reason for which the file was not listed."""
        reason: str = record["reason"]
        return reason
