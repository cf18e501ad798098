"""The actor that parses listed annotation records into typed requests, and rejects those that do not parse."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field, field_validator

from gristmill.actors.nlu.annotation import (
    NO_INTENT,
    NO_TEXT,
    Slots,
    read_brackets,
    read_parse,
    read_slots,
    read_tags,
    read_text,
    split,
)
from gristmill.actors.sources.fields import check_fields
from gristmill.actors.sources.reading import NO_OBJECT, read_json, read_object
from gristmill.actors.sources.requests import DELIMITERS, FIELDS, LISTED, cells_of, table_form
from gristmill.models.normalise import joined
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import REQUEST_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

ContextKind = Literal["string", "number", "boolean"]

NO_DOMAIN = "annotation: no domain"
OUT_OF_SCOPE = "out of scope"
IRRELEVANT = "marked as irrelevant"
NOT_STRING, NOT_NUMBER, NOT_BOOLEAN = "context: no string", "context: no number", "context: no boolean"

_TYPES = {"string": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_DROPS = tuple(name for name in LISTED.names if name not in {field.name for field in REQUEST_FIELDS} | {"part"})


class _Request(NamedTuple):
    tokens: list[str]
    domain: str
    intent: str
    slots: Slots
    lang: str | None = None
    values: Mapping[str, Any] = {}  # the record's other values, by name
    text: str | None = None  # if it is not the tokens joined by spaces


class AnnotationSettings(Settings):
    """Settings of annotation formats."""

    domains: dict[str, str] | None = None
    """The domain of each intent of SNIPS and ATIS; without it each intent is a domain of its own."""
    parse: Literal["en_parse", "cs_parse"] = "en_parse"
    """The column of TOP parses to read; TOPv2 has one only, ``semantic_parse``."""
    context: dict[str, ContextKind] = Field(default_factory=dict)
    """Columns of the corpus to keep, by name: strings, numbers or booleans."""
    fields: dict[str, str] = Field(default_factory=dict)
    """The corpus's own names of columns (CSV, TSV) or keys (JSONL), by what they hold: ``text``, ``domain``,
    ``intent``, ``slots``, ``lang``, ``tokens`` or ``id``. By default they have these names."""

    @field_validator("fields")
    @classmethod
    def _are_known(cls, fields: dict[str, str]) -> dict[str, str]:
        return check_fields(fields, FIELDS)

    @field_validator("context")
    @classmethod
    def _are_columns_of_their_own(cls, context: dict[str, ContextKind]) -> dict[str, ContextKind]:
        taken = {field.name for field in REQUEST_FIELDS} | {"fold", *LISTED.names, "parent_id", "reject_reason"}
        for name in context:
            if name in taken or not name:
                raise ValueError(f"{name!r} is a column of every request; expected other columns of the corpus")
        return context


class RequestParsingSettings(AnnotationSettings):
    """Settings of the parsing of a corpus."""

    lang: str = "en"
    """Language of requests whose record does not name it."""
    domain: str = ""
    """Domain of requests whose record does not name it; without it they are rejected."""


class ParseRequest(Actor):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.requests`, into the columns of a request.

    ``part`` is kept for the folds.
    """

    name = "parse"
    reads_input = True
    version = 2  # slots beside punctuation, languages without spaces, normalised text, NaN, HWU64's status
    drops = _DROPS
    batch = BatchLimits(512)
    settings: RequestParsingSettings

    def __init__(self, settings: RequestParsingSettings) -> None:
        super().__init__(settings)
        self._readers = {
            "snips": self._snips,
            "hwu64": self._hwu64,
            "top": self._top,
            "clinc150": self._clinc150,
            "slurp": self._slurp,
            "massive": self._massive,
            "jsonl": self._jsonl,
            "table": self._table,
        }

    @classmethod
    def contract(cls, settings: RequestParsingSettings) -> dict[str, Any]:
        """Return the added columns."""
        return {"adds": (*REQUEST_FIELDS[1:], *_context_fields(settings.context))}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the columns of a request; records that do not parse are rejected."""
        made = [self._row(row) for row in batch.to_pylist()]
        fields = [*REQUEST_FIELDS, *_context_fields(self.settings.context)]
        columns = {field.name: pa.array([row.get(field.name) for row in made], field.type) for field in fields}
        kept = {name: batch[name] for name in batch.column_names if name not in columns}
        reasons = pa.array([row.get("reject_reason") for row in made], pa.string())
        return pa.table({**columns, **kept, "reject_reason": reasons})

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if row["problem"]:
                raise RejectRecord(row["problem"])
            found = self._readers[row["format"]](row)
            if not found.tokens:
                raise RejectRecord(NO_TEXT)
            if not found.intent:
                raise RejectRecord(NO_INTENT)
            domain = found.domain or self.settings.domain
            if not domain:
                raise RejectRecord(NO_DOMAIN)
            context = {name: _context(found.values.get(name), kind) for name, kind in self.settings.context.items()}
        except RejectRecord as reject:
            return {"id": row["id"], "reject_reason": reject.reason}
        slots = [
            {"name": name, "value": joined(found.tokens[start:end]), "start": start, "end": end}
            for name, start, end in sorted(found.slots, key=lambda slot: slot[1])
        ]
        return {
            "id": row["id"],
            "text": found.text or joined(found.tokens),
            "tokens": found.tokens,
            "domain": domain,
            "intent": found.intent,
            "slots": slots,
            "lang": found.lang or self.settings.lang,
            "label_source": "gold",
            **context,
        }

    def _snips(self, row: Mapping[str, Any]) -> _Request:
        text, tags, intent = row["raw"].split("\n")
        tokens, intent = text.split(), intent.strip()
        if not tokens:
            raise RejectRecord(NO_TEXT)
        slots = read_tags(tokens, tags.split())
        return _Request(tokens, self._sorted(intent), intent, slots)

    def _sorted(self, intent: str) -> str:
        domains = self.settings.domains
        return intent if domains is None else domains.get(intent, "")

    def _hwu64(self, row: Mapping[str, Any]) -> _Request:
        values = {name: "" if value == "null" else value for name, value in _cells(row).items()}
        if values.get("status", "").startswith("IRR"):  # by the annotators: IRR, IRR_XR, IRR_XL
            raise RejectRecord(IRRELEVANT)
        return _inline(values, "answer_annotation", "intent")

    def _slurp(self, row: Mapping[str, Any]) -> _Request:
        return _inline(read_object(row["raw"]), "sentence_annotation", "action")

    def _massive(self, row: Mapping[str, Any]) -> _Request:
        values = read_object(row["raw"])
        tokens, slots = read_brackets(_string(values, "annot_utt"))
        lang = _string(values, "locale").partition("-")[0] or None
        return _Request(tokens, _string(values, "scenario"), _string(values, "intent"), slots, lang, values)

    def _top(self, row: Mapping[str, Any]) -> _Request:
        values = _cells(row)
        column = next((name for name in (self.settings.parse, "semantic_parse") if name in values), None)
        if column is None:
            raise RejectRecord(f"no column {self.settings.parse}")
        tokens, intent, slots = read_parse(_string(values, column))
        return _Request(tokens, _string(values, "domain"), intent, slots, None, values)

    def _clinc150(self, row: Mapping[str, Any]) -> _Request:
        pair = read_json(row["raw"])
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise RejectRecord(NO_OBJECT)
        text, intent = pair
        if intent == "oos":
            raise RejectRecord(OUT_OF_SCOPE)
        return _Request(split(text), row["told_domain"] or "", intent, [], None, {}, text.strip())

    def _jsonl(self, row: Mapping[str, Any]) -> _Request:
        values = read_object(row["raw"])
        return self._columns(values | {v: values.get(name) for v, name in self.settings.fields.items()})

    def _table(self, row: Mapping[str, Any]) -> _Request:
        form = table_form(row["header"], self.settings.fields)
        if form is None:
            raise RejectRecord(NO_OBJECT)
        delimiter, names = form
        cells = cells_of(row["raw"], delimiter)
        if cells is None or len(cells) != len(names):
            raise RejectRecord(NO_OBJECT)
        values: dict[str, Any] = dict(zip(names, cells, strict=True))
        for name in ("slots", "tokens"):
            values[name] = _listed_in(values.get(name))
        return self._columns(values)

    def _columns(self, values: Mapping[str, Any]) -> _Request:
        text, tokens, lang = _string(values, "text"), values.get("tokens"), _string(values, "lang")
        given = next((values[name] for name in ("slots", "entities") if values.get(name)), None)
        if tokens is None:
            letters = not values.get("slots")
            text, tokens, slots = read_text(text, given, lang or self.settings.lang, letters=letters)
        elif not isinstance(tokens, list) or not all(isinstance(token, str) and token for token in tokens):
            raise RejectRecord(NO_OBJECT)
        else:
            slots = read_slots(tokens, given)
        domain, intent = _string(values, "domain"), _string(values, "intent")
        return _Request(tokens, domain, intent, slots, lang or None, values, text)


def _inline(values: Mapping[str, Any], annotation: str, action: str) -> _Request:
    """Return a request of HWU64 or SLURP, whose intent is the action together with the scenario."""
    tokens, slots = read_brackets(_string(values, annotation))
    scenario, done = _string(values, "scenario"), _string(values, action)
    return _Request(tokens, scenario, f"{scenario}_{done}" if done else "", slots, None, values)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    delimiter = DELIMITERS[row["format"]]
    # Quotes in parses are literal; only the CSV format quotes its cells.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    try:
        names, cells = csv.reader([row["header"], row["raw"]], delimiter=delimiter, quoting=quoting, strict=True)
    except (csv.Error, ValueError):
        raise RejectRecord(NO_OBJECT) from None
    if len(names) != len(cells):
        raise RejectRecord(NO_OBJECT)
    return dict(zip(names, cells, strict=True))


def _listed_in(cell: str | None) -> Any:
    """Return the JSON in a cell of a table; ``None`` of an empty one."""
    if not cell or not cell.strip():
        return None
    try:
        return read_json(cell)
    except (ValueError, RecursionError):
        raise RejectRecord(NO_OBJECT) from None


def _string(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RejectRecord(NO_OBJECT)
    return value.strip()


def _context(value: Any, kind: ContextKind) -> str | float | None:
    if value is None or value == "" or value != value:  # the last is NaN, as JSON of tables has it
        return None
    if kind == "boolean":
        if str(value).lower() not in _BOOLEANS:
            raise RejectRecord(NOT_BOOLEAN)
        return _BOOLEANS[str(value).lower()]
    if kind == "string":
        if not isinstance(value, str | int | float):
            raise RejectRecord(NOT_STRING)
        return value if isinstance(value, str) else json.dumps(value)
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RejectRecord(NOT_NUMBER)
    return number


def _context_fields(context: Mapping[str, ContextKind]) -> tuple[pa.Field, ...]:
    """Return the columns of a context, in the order of their names."""
    return tuple(pa.field(name, _TYPES[kind]) for name, kind in sorted(context.items()))
