"""Listing of annotated requests: each annotation record verbatim, with the metadata of its file.

SNIPS and ATIS folders (``seq.in``, ``seq.out``, ``label``), HWU64 CSV, TOP and TOPv2 parses as TSV, CLINC150 JSON, and
JSONL of SLURP, MASSIVE or columns text, domain, intent, slots. A file's format is detected from its content. Only
CLINC150, one JSON document, is held in memory; its size is limited.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from gristmill.actors.sources.csv_records import csv_records
from gristmill.actors.sources.encoding import refuse_wide
from gristmill.actors.sources.files import LOOKED_AT, NOT_UTF8, Seen, base_of, in_tables, key_of, matches, visible
from gristmill.actors.sources.pointers import DUPLICATE
from gristmill.actors.sources.reading import LINE_BYTES, LONG_LINE, all_lines, lines, read_document
from gristmill.actors.sources.unlisted import (
    EMPTY_FILE,
    MISSING,
    OTHER_COLUMNS,
    OTHER_ENCODING,
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

LISTED = pa.schema(
    [
        ID,
        pa.field("format", pa.string()),  # one of FORMATS, or unlisted (a file)
        pa.field("raw", pa.string()),  # the record; for several files (snips) one line each
        pa.field("header", pa.string()),  # the header line of a table
        pa.field("told_domain", pa.string()),  # from a file beside the record
        pa.field("part", pa.string()),  # "test": from a location for test
        pa.field("problem", pa.string()),  # the reason to reject the record, as far as the listing knows
    ]
)
FORMATS = ("snips", "hwu64", "top", "clinc150", "slurp", "massive", "jsonl", "table")
DELIMITERS = {"hwu64": ";", "top": "\t"}
TABLE = ("\t", ",", ";", "|")  # what may part the cells of a table, the first that makes the columns
FIELDS = ("text", "domain", "intent", "slots", "lang", "tokens", "id")
"""What the columns of a table of requests, or the keys of JSONL, may hold; each has this name, unless the user gives
another."""
PARSES = {"en_parse", "cs_parse", "semantic_parse"}  # columns of TOP, in English and mixed with Hindi, and of TOPv2

_DOCUMENT_BYTES = 16 << 20  # parsed, it takes up to 25 times as many
_TAGS, _LABELS = "seq.out", "label"  # beside seq.in
_DOMAINS = "domains.json"
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".jsonl.gz")
_EXPECTED = (
    "expected folders of seq.in, seq.out and label (SNIPS, ATIS), CSV with answer_annotation (HWU64), TSV with "
    "en_parse, cs_parse or semantic_parse (TOP, TOPv2), JSON with domains.json beside it (CLINC150), or JSONL, TSV or "
    "CSV (SLURP, MASSIVE, or text, domain, intent, slots)"
)


def list_requests(
    url: str, corpus: str, *, part: str | None = None, fields: Mapping[str, str] | None = None, rows: int = 2000
) -> Iterator[pa.Table]:
    """Yield the records of a corpus as tables of ``LISTED``, at most ``rows`` rows each, in the order of their files.

    ``url``: a file, a folder or a pattern with ``*``; ``corpus`` is the prefix of every id; ``part`` is that of every
    record; ``fields`` are the corpus's own names of columns, by what they hold (``FIELDS``). In a folder, hidden files,
    plain text and JSON without ``domains.json`` beside it are ignored. A missing path and a location without requests
    raise :class:`UserError` in this call, not at the first table; an unreadable record becomes a row with a
    ``problem``, and so does a file that cannot be listed (to its end), with "unlisted" as its format, unless there is
    no other.

    Example:
        >>> row = {"text": "stop", "domain": "music", "intent": "stop", "slots": []}
        >>> store.write_bytes("made/own.jsonl", json.dumps(row).encode())
        >>> (table,) = list_requests("made/own.jsonl", "own")
        >>> table["id"].to_pylist(), table["format"].to_pylist()
        (['own/own.jsonl#1'], ['jsonl'])
    """
    if "*" not in url and not store.exists(url):
        raise UserError(f"{url}: no such file or folder; {_EXPECTED}")
    nothing = UserError(f"{url}: no requests found; {_EXPECTED}")
    return in_tables(begun(_records(url, corpus, part, fields or {}), lambda: nothing), LISTED, rows)


def request_files(url: str, fields: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the files at a URL whose records :func:`list_requests` lists."""
    for file in _files(url):
        with contextlib.suppress(FileFault):
            if _format(file, fields or {}, file == url) is not None:
                yield file


def _files(url: str) -> list[str]:
    if "*" not in url and store.filesystem(url)[0].isfile(store.filesystem(url)[1]):
        return [url]
    base = base_of(url)
    found = (info.url for info in walk(base if "*" in url else url))
    return [file for file in found if visible(file, base) and matches(file, url)]


def _format(file: str, fields: Mapping[str, str], named: bool) -> str | None:
    """Return the format of a file; ``None`` if it is not a corpus, or is listed with another file."""
    folder, _, name = store.bare(file).rpartition("/")
    low = name.lower()
    if low == "seq.in":
        for path in _beside(file):
            if not store.exists(path):
                raise FileFault(path, MISSING, "missing; expected it beside seq.in, with a line for each of its lines")
        return "snips"
    if low.endswith(".json"):
        if name != _DOMAINS and store.exists(store.join(folder, _DOMAINS)):
            return "clinc150"
        if named:
            said = f"there is no {_DOMAINS} beside it; expected CLINC150, with the domains of intents"
            raise FileFault(file, MISSING, said)
        return None
    if not low.endswith(_SUFFIXES):
        if named:
            raise FileFault(file, UNREADABLE, f"not a corpus of requests; {_EXPECTED}")
        return None
    head = itertools.islice(lines(file), LOOKED_AT)
    _, first = next(head, (0, None))
    if first is None:
        if named:
            raise FileFault(file, EMPTY_FILE, f"is empty; {_EXPECTED}")
        return None
    columns = first[:LINE_BYTES].decode("utf-8-sig", "replace").strip()
    if fields and table_form(columns, fields) is not None:
        return "table"
    if low.endswith(".csv") and "answer_annotation" in _columns(file, columns, ";"):
        return "hwu64"
    if low.endswith(".tsv") and PARSES.intersection(_columns(file, columns, "\t")):
        return "top"
    if low.endswith((".csv", ".tsv")) and table_form(columns, fields) is not None:
        return "table"
    keys = dict[str, None]()
    if low.endswith((".jsonl", ".jsonl.gz")):
        for line in itertools.chain([first], (line for _, line in head)):
            values = _object(line) or {}
            keys |= dict.fromkeys(values)
            kinds = (("sentence_annotation", "slurp"), ("annot_utt", "massive"))
            for key, kind in ((fields.get("text", "text"), "jsonl"), *(() if "text" in fields else kinds)):
                if key in values:
                    if fields:
                        _check_keys(file, fields)
                    return kind
    refuse_wide(file)
    for _, line in itertools.islice(lines(file), LOOKED_AT):
        try:
            line.decode()
        except UnicodeDecodeError:
            raise FileFault(file, OTHER_ENCODING, "its text is not UTF-8; expected UTF-8") from None
    if low.endswith((".jsonl", ".jsonl.gz")) and not any(
        _object(line) for _, line in itertools.islice(lines(file), LOOKED_AT)
    ):
        raise FileFault(file, UNREADABLE, "none of its first lines is a JSON object; expected one on each line")
    there = list(keys) or next((cells for one in TABLE if len(cells := _columns(file, columns, one)) > 1), [columns])
    raise FileFault(file, OTHER_COLUMNS, f"its columns are not those of a known corpus{_missing(fields, there)}")


def _check_keys(file: str, fields: Mapping[str, str]) -> None:
    """Raise :class:`FileFault` for JSONL without a key that the user names."""
    found: dict[str, None] = {}
    for _, line in lines(file):
        found |= dict.fromkeys(_object(line) or {})
        if all(name in found for name in fields.values()):
            return
    raise FileFault(file, OTHER_COLUMNS, f"its keys are not those that are named{_missing(fields, list(found))}")


def _missing(fields: Mapping[str, str], there: Sequence[str]) -> str:
    """Return the end of a sentence on columns none of which make a corpus of requests."""
    said = f" ({', '.join(there)[:200]})"
    for value in (*fields, "text", "domain", "intent"):
        name = fields.get(value, value)
        if name in there:
            continue
        if value in fields:
            return f"{said}; expected {name!r}, as corpus.fields names it{nearest(name, there)}"
        return f"{said}; {_EXPECTED}, or corpus.fields={{{value}: NAME}}{nearest(name, there)}"
    return f"{said}; {_EXPECTED}"


def table_form(header: str, fields: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """Return the delimiter of a table of requests and its columns, by its first line; ``None`` for another file.

    What the user or :data:`FIELDS` names, in any case, is called as there.

    Example:
        >>> table_form("utterance,Domain,intent", {"text": "utterance"})
        (',', ['text', 'domain', 'intent'])
    """
    known = {fields.get(value, value).lower(): value for value in FIELDS}
    for delimiter in TABLE:
        try:
            cells = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
        except csv.Error:
            continue
        names = [known.get(cell.lower(), cell) for cell in cells]
        if {"text", "domain", "intent", *fields}.issubset(names):
            return delimiter, names
    return None


def _columns(file: str, line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise FileFault(file, UNREADABLE, f"its first line is not a table's: {error}; expected column names") from None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line.decode("utf-8-sig")) if len(line) <= LINE_BYTES else None
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _records(url: str, corpus: str, part: str | None, fields: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    seen, contents, base = Seen(), Seen(), base_of(url)
    for file in _files(url):
        key, here = f"{corpus}/{key_of(file, base)}", Seen()
        for record in guarded(file, key, partial(_listing, file, key, corpus, fields, named=file == url)):
            if not is_unlisted(record):
                place = record.pop("place")  # position of the record in the corpus, independent of its own id
                again, same = seen.before(record["id"]), contents.before(f"{record['id']}\0{record.get('raw')}")
                if here.before(record["id"]) or (again and same):
                    record |= {"id": f"{place}~again", "problem": DUPLICATE}
                elif again:  # each file may number its own records
                    record |= {"id": place}
            yield {"part": part} | record


def _listing(file: str, key: str, corpus: str, fields: Mapping[str, str], *, named: bool) -> Iterator[dict[str, Any]]:
    form = _format(file, fields, named)
    if form is not None:
        for record in _LISTINGS[form](file, key, corpus, *([fields] if form in _NAMED else [])):
            yield {"format": form} | record


def _text(line: bytes) -> dict[str, Any]:
    """Return a record's text; invalid UTF-8 is a problem."""
    if len(line) > LINE_BYTES:
        return {"problem": LONG_LINE}
    try:
        return {"raw": line.decode("utf-8-sig").rstrip("\r\n")}
    except UnicodeDecodeError:
        return {"problem": NOT_UTF8}


def _table(file: str, key: str, corpus: str) -> Iterator[dict[str, Any]]:
    """List the records of a table: of TSV the lines, of CSV also those that run over lines, in quotes."""
    numbered = csv_records(file, ";") if store.bare(file).lower().endswith(".csv") else lines(file)
    header = next(numbered)[1][:LINE_BYTES].decode("utf-8-sig", "replace").strip()
    for number, line in numbered:
        place = f"{key}#{number}"
        yield {"id": place, "place": place, "header": header, **_text(line)}


def _jsonl(file: str, key: str, corpus: str, fields: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """List the lines of a JSONL file; a record with an id keeps it."""
    names = [fields["id"]] if "id" in fields else _OWN_IDS
    for number, line in lines(file):
        place = f"{key}#{number}"
        own = next((value for name in names if (value := (_object(line) or {}).get(name)) is not None), None)
        name = f"{corpus}/{own}" if isinstance(own, int | str) and str(own) else place
        yield {"id": name, "place": place, **_text(line)}


def _plain_table(file: str, key: str, corpus: str, fields: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """List the records of a table with columns of text, domain and intent; a record with an id keeps it."""
    header = _first(file)
    form = table_form(header, fields)
    assert form is not None  # it is why the file is one
    delimiter, names = form
    records = lines(file) if delimiter == "\t" else csv_records(file, delimiter)
    for number, line in itertools.islice(records, 1, None):
        place, found = f"{key}#{number}", _text(line)
        own = dict(zip(names, cells_of(found.get("raw", ""), delimiter) or (), strict=False)).get("id")
        yield {"id": f"{corpus}/{own}" if own else place, "place": place, "header": header, **found}


def cells_of(line: str, delimiter: str) -> list[str] | None:
    """Return the cells of a record; ``None`` if it is malformed. Between tabs, quotes are ordinary characters."""
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    try:
        return next(csv.reader([line], delimiter=delimiter, quoting=quoting, strict=True), [])
    except (csv.Error, ValueError):
        return None


def _first(file: str) -> str:
    _, line = next(iter(lines(file)))
    return line[:LINE_BYTES].decode("utf-8-sig", "replace").strip()


def _massive(file: str, key: str, corpus: str) -> Iterator[dict[str, Any]]:
    """List MASSIVE, whose ids are shared by the languages of a sentence."""
    for number, line in lines(file):
        place, values = f"{key}#{number}", _object(line) or {}
        own = [values.get(name) for name in ("locale", "id")]
        name = "/".join([corpus, *map(str, own)]) if None not in own else place
        yield {"id": name, "place": place, **_text(line)}


def _snips(file: str, key: str, corpus: str) -> Iterator[dict[str, Any]]:
    """List the lines of ``seq.in`` with those of the two files beside it; missing lines are empty."""
    where = posixpath.dirname(key)
    files = [all_lines(path) for path in (file, *_beside(file))]
    for number, parts in enumerate(itertools.zip_longest(*files, fillvalue=b""), 1):
        if not any(line.strip() for line in parts):
            continue
        read = [_text(line) for line in parts]
        place = f"{where}#{number}"
        problem = next((line["problem"] for line in read if "problem" in line), None)
        raw = None if problem else "\n".join(line["raw"] for line in read)
        yield {"id": place, "place": place, "raw": raw, "problem": problem}


def _beside(file: str) -> list[str]:
    return [store.join(posixpath.dirname(file), name) for name in (_TAGS, _LABELS)]


def _clinc150(file: str, key: str, corpus: str) -> Iterator[dict[str, Any]]:
    """List CLINC150: pairs of text and intent in named parts; ``domains.json`` has the intents of each domain."""
    beside = store.join(posixpath.dirname(file), _DOMAINS)
    sorted_, parts = _document(beside), _document(file)
    domain_of: dict[str, str] = {}
    for domain, intents in sorted_.items():
        if not isinstance(intents, list):
            said = f"{domain[:80]} is not a list; expected the intents of each domain"
            raise FileFault(beside, UNREADABLE, said)
        domain_of |= {intent: domain for intent in intents if isinstance(intent, str)}
    for part, pairs in parts.items():
        if not isinstance(pairs, list):
            said = f"{part[:80]} is not a list; expected pairs of text and intent in named parts"
            raise FileFault(file, UNREADABLE, said)
        for number, pair in enumerate(pairs):
            place = f"{key}#{part}/{number}"
            intent = pair[1] if isinstance(pair, list) and len(pair) == 2 else None
            belongs = domain_of.get(intent) if isinstance(intent, str) else None
            yield {"id": place, "place": place, "told_domain": belongs, "raw": json.dumps(pair, ensure_ascii=False)}


def _document(file: str) -> dict[str, Any]:
    try:
        values = json.loads(read_document(file, _DOCUMENT_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise FileFault(file, UNREADABLE, f"not a JSON object; {_EXPECTED}")
    return values


_OWN_IDS = ("id", "slurp_id")
_LISTINGS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "snips": _snips,
    "hwu64": _table,
    "top": _table,
    "clinc150": _clinc150,
    "slurp": _jsonl,
    "massive": _massive,
    "jsonl": _jsonl,
    "table": _plain_table,
}
_NAMED = ("slurp", "jsonl", "table")  # their listings take the user's names of columns
