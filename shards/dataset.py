"""Sealed sets: finished datasets, identified by their seal."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any, NotRequired

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from gristmill.shards import canonical, checked, interrupts, processor, store
from gristmill.shards.errors import Alarm, Damaged, UserError
from gristmill.shards.parquet import StoredFile, read_table
from gristmill.shards.receipt import Receipt, commit, store_table
from gristmill.shards.stage import ArtifactRef, check_totals
from gristmill.shards.tombstone import refuse_cleaned

SEAL = "seal.json"
_KIND = "seal"
ALWAYS = ("duration",)  # columns with a total in every set that has them (seconds of audio)


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(text)))


def _checked_schema(text: str) -> str:
    try:
        _schema(text)
    except (ValueError, OSError, pa.ArrowException):
        raise ValueError("no schema of Arrow's") from None
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry(StoredFile):
    """One shard of a sealed set."""

    name: str
    totals: Mapping[str, float] = field(default_factory=dict)


class _Stored(TypedDict):
    path: str
    sha256: str
    rows: int
    bytes: int
    footer: str


class _Shard(_Stored):
    name: str
    totals: dict[str, float]


class _Side(_Stored):
    shard: str


class _Seal(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: str
    digest: str
    schema: Annotated[str, AfterValidator(_checked_schema)]
    shards: list[_Shard]
    records_in: int
    records_out: int
    rejected: int
    quarantined: int
    reasons: dict[str, int]
    errors: dict[str, int]
    rejects: list[_Side]
    quarantine: list[_Side]
    fingerprint: NotRequired[str | None]
    inputs: NotRequired[list[str]]
    input_digests: NotRequired[list[str] | None]
    artifacts: NotRequired[dict[str, str]]
    processor: NotRequired[str]
    deterministic: NotRequired[bool]


_SHAPE = TypeAdapter(_Seal)


@dataclass(frozen=True)
class SealedSet:
    """A finished dataset. ``url`` is the folder that holds its ``seal.json``."""

    url: str
    seal: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the step that made it."""
        return self.seal["name"]

    @property
    def digest(self) -> str:
        """The digest of its content: schema, rows, rejects and quarantine, shard by shard."""
        return self.seal["digest"]

    @property
    def processor(self) -> str:
        """The level that it was made at (:mod:`gristmill.shards.processor`); "" if that was not recorded."""
        return self.seal.get("processor", "")

    @property
    def ref(self) -> ArtifactRef:
        """The reference by which a stage names it."""
        return ArtifactRef(self.url, self.digest, SEAL)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""
        return _schema(self.seal["schema"])

    @cached_property
    def shards(self) -> list[ShardEntry]:
        """Its shards, in order."""
        return [ShardEntry(**entry) for entry in self.seal["shards"]]

    @property
    def records(self) -> int:
        """The number of its rows."""
        return sum(entry["rows"] for entry in self.seal["shards"])

    def total(self, name: str) -> float:
        """Return a total over its rows, for example ``duration`` in seconds; 0 if there is none."""
        return sum(entry["totals"].get(name, 0.0) for entry in self.seal["shards"])

    @property
    def totals(self) -> tuple[str, ...]:
        """The columns of which every shard has a total."""
        entries = self.seal["shards"]
        return tuple(
            name for name in (entries[0]["totals"] if entries else ()) if all(name in e["totals"] for e in entries)
        )

    @property
    def files(self) -> Iterator[StoredFile]:
        """All files that it stores."""
        yield from self.shards
        for kind in ("rejects", "quarantine"):
            yield from self.side(kind)

    def read(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one shard; raises ``Damaged``, or ``Cleaned`` if `gristmill clean` has deleted them."""
        try:
            return read_table(self.url, self.shards[shard], columns)
        except Damaged:
            refuse_cleaned(self.url)
            raise

    def side(self, kind: str) -> list[StoredFile]:
        """Return the files of its ``rejects`` or ``quarantine``, in the order of the shards."""
        return [
            StoredFile(**{key: value for key, value in entry.items() if key != "shard"}) for entry in self.seal[kind]
        ]

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows shard by shard, so that memory holds one at a time."""
        for place in range(len(self.shards)):
            yield self.read(place, columns)


def find_sealed(url: str) -> SealedSet | None:
    """Return the newest version of the sealed set at a URL, or ``None`` if it is not sealed.

    Example:
        >>> find_sealed("made/nothing") is None
        True
    """
    seal = read_seal(url, 0)
    if seal is None:
        return None
    version = 0
    # Only requeued records make a second version, and only if the first seal has quarantined records.
    while seal["quarantined"]:
        version += 1
        newer = read_seal(url, version)
        if newer is None:
            break
        seal = newer
    return SealedSet(url, seal)


def read_seal(url: str, version: int) -> dict[str, Any] | None:
    """Return one version of the seal of the set at a URL, or ``None`` if there is none."""
    seal = checked.read_as(_KIND, store.join(url, seal_name(version)), _SHAPE)
    return None if seal is None else dict(seal)


def seal_name(version: int) -> str:
    """Return the name of the file of a version of a seal."""
    return f"seal-{version}.json" if version else SEAL


def read_seals(url: str) -> Iterator[dict[str, Any]]:
    """Yield all versions of the seal of the set at a URL, oldest first."""
    for version in itertools.count():
        seal = read_seal(url, version)
        if seal is None:
            return
        yield seal


def find_made(url: str, fingerprint: str) -> SealedSet | None:
    """Return the sealed set that was to be made in a folder, or ``None`` if it is not sealed.

    Raises:
        Damaged: another set's seal lies in its place.
    """
    sealed = find_sealed(url)
    if sealed is None or sealed.seal.get("fingerprint") == fingerprint:
        return sealed
    found = f"{sealed.name} {str(sealed.seal.get('fingerprint', ''))[:16]}"
    raise Damaged(store.join(url, SEAL), f"is the seal of {found}, and {fingerprint[:16]} was expected")


def open_sealed(url: store.Place) -> SealedSet:
    """Return the sealed set at a URL, or raise a :class:`UserError` if it is missing or unfinished.

    Example:
        >>> texts = pa.table({"id": ["a", "b"], "text": ["on", "off"]})
        >>> made = seal_tables("made/texts", "texts", [texts])
        >>> sealed = open_sealed("made/texts")
        >>> sealed.records, sealed.digest == made.digest
        (2, True)
        >>> [table["text"].to_pylist() for table in sealed.tables(["text"])]
        [['on', 'off']]
    """
    found = find_sealed(os.fspath(url))
    if found is None:
        raise UserError(f"{url}: no sealed set is here (no seal.json); expected the folder of a finished step")
    return found


def put_seal(
    url: str, name: str, schema: pa.Schema, receipts: Iterable[Receipt], *, expected: str | None = None, **lineage: Any
) -> SealedSet:
    """Seal a set whose shards are all committed. The digest covers the content only, so sets of equal content have
    equal digests.

    ``lineage`` is kept beside that. Its ``processor`` is the level that the shards were made at; by default that of
    this process, which has made them all. ``expected`` is the digest of a set that is made again, and has its seal.

    Raises:
        Alarm: another digest was expected.
    """
    interrupts.check()
    seal = {"name": name, **summarised(schema, receipts), "processor": processor.label(), **lineage}
    if expected is not None and seal["digest"] != expected:
        raise Alarm(
            f"{url}: the set {name} came out otherwise than before `gristmill clean` deleted it "
            f"({expected[:12]} was sealed, {seal['digest'][:12]} came now); `gristmill run CONFIG --again {name}` "
            "makes it anew, and what depends on it"
        )
    version = 0
    while not store.put_if_absent(store.join(url, seal_name(version)), checked.encode(_KIND, seal)):
        sealed = read_seal(url, version)
        if sealed is not None and sealed["digest"] == seal["digest"]:
            return SealedSet(url, sealed)
        version += 1
    return SealedSet(url, seal)


def summarised(schema: pa.Schema, receipts: Iterable[Receipt]) -> dict[str, Any]:
    """Return what a seal says of the shards with these receipts."""
    entries: list[dict[str, Any]] = []
    reasons: dict[str, int] = {}
    errors: dict[str, int] = {}
    counts = dict.fromkeys(("records_in", "records_out", "rejected", "quarantined"), 0)
    kept: list[Receipt] = []
    sides: dict[str, list[dict[str, Any]]] = {"rejects": [], "quarantine": []}
    for receipt in receipts:
        data = receipt.data
        entries.append({**asdict(data), "name": receipt.shard, "totals": receipt.totals})
        kept.append(receipt)
        again = receipt.requeue_of is not None  # requeued records count as input once
        counts["records_in"] += 0 if again else receipt.records_in
        counts["records_out"] += receipt.records_out
        counts["rejected"] += receipt.rejected
        counts["quarantined"] += receipt.quarantined - (receipt.records_in if again else 0)
        for into, more in ((reasons, receipt.reasons), (errors, receipt.errors)):
            for key, count in more.items():
                into[key] = into.get(key, 0) + count
        for side, found in sides.items():
            stored: StoredFile | None = getattr(receipt, side)
            # A later requeue took over the records of a receipt without errors.
            if stored and (side == "rejects" or receipt.errors):
                found.append({**asdict(stored), "shard": receipt.shard})
    return {
        "digest": content_digest(schema, kept),
        "schema": schema.serialize().to_pybytes().hex(),
        "shards": entries,
        **counts,
        "reasons": reasons,
        "errors": errors,
        **sides,
    }


def content_digest(schema: pa.Schema, receipts: Iterable[Receipt]) -> str:
    """Return the digest of a set: it covers its columns, and all that its shards store."""
    return canonical.digest([str(schema), [[receipt.shard, receipt.digest] for receipt in receipts]])


def row_totals(table: pa.Table, names: Iterable[str] = ()) -> dict[str, float]:
    """Return the totals of a shard's rows for its receipt: of the named columns, and of ``ALWAYS`` if present."""
    present = [name for name in dict.fromkeys((*ALWAYS, *names)) if name in table.column_names]
    # Summed by Python in row order: the order of Arrow's own sum may differ between machines.
    return {
        name: float(sum(value for value in table.column(name).to_pylist() if value is not None)) for name in present
    }


def seal_tables(
    url: str,
    name: str,
    tables: Iterable[pa.Table],
    totals: Sequence[str] = (),
    *,
    expected: str | None = None,
    **lineage: Any,
) -> SealedSet:
    """Write tables, at least one, as a sealed set with one shard per table.

    ``totals`` names numeric columns whose sums the receipts and the seal keep; for ``expected`` see :func:`put_seal`.

    Raises:
        Alarm: the set has not the digest that is expected.
        UserError: there is no table, or one has no column ``id`` with a distinct text for each record.
    """
    receipts: list[Receipt] = []
    schema: pa.Schema | None = None
    for number, table in enumerate(tables):
        check_ids(name, table)
        if schema is None:
            schema = table.schema
            check_totals(name, totals, schema)
        stored = store_table(url, "data", f"{number:06d}", table)
        made = Receipt(
            f"{number:06d}",
            stored,
            None,
            None,
            table.num_rows,
            table.num_rows,
            0,
            0,
            totals=row_totals(table, totals),
        )
        receipts.append(commit(url, made))
    if schema is None:
        raise UserError(f"{name}: there is nothing to seal; expected at least one record")
    return put_seal(url, name, schema, receipts, expected=expected, **lineage)


def check_ids(name: str, table: pa.Table) -> None:
    """Check that a table's records have ids by which they can be told apart; other tables' ids are not compared.

    Raises:
        TypeError: it is not a table.
        UserError: it has no column ``id`` with a distinct text for each record.
    """
    if not isinstance(table, pa.Table):
        raise TypeError(
            f"{name}: {type(table).__name__} is not a table; expected a pyarrow.Table, as of pa.Table.from_pylist(rows)"
        )
    expected = "expected a column `id` with a distinct text for each record"
    columns = table.column_names.count("id")
    if columns != 1:
        raise UserError(f"{name}: a table has {f'{columns} columns' if columns else 'no column'} `id`; {expected}")
    ids = table["id"]
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise UserError(f"{name}: the column `id` holds {ids.type}; {expected}")
    if ids.null_count:
        raise UserError(f"{name}: the id of {ids.null_count} of {len(ids)} records is null; {expected}")
    counts = pc.value_counts(ids.combine_chunks())
    if len(counts) < len(ids):
        repeated = next(one["values"] for one in counts.to_pylist() if one["counts"] > 1)
        raise UserError(f"{name}: {len(ids)} records have {len(counts)} ids, {repeated!r} is repeated; {expected}")


def digest_of(tables: Iterator[pa.Table]) -> str:
    """Return the digest of streamed rows."""
    whole = hashlib.sha256()
    for table in tables:
        for batch in table.combine_chunks().to_batches():
            whole.update(batch.serialize())
    return whole.hexdigest()
