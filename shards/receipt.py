"""Receipts: the proof that a shard is committed, and the only commit point (law 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from gristmill.shards import canonical, checked, interrupts, store
from gristmill.shards.ahead import AT_ONCE, read_ahead
from gristmill.shards.errors import Alarm, Damaged
from gristmill.shards.parquet import StoredFile, describe, encode_table

RECEIPTS = "receipts"
SHARD_FILES = ("data", "rejects", "quarantine")
_KIND = "receipt"
_TOGETHER = 32  # receipts per thread


class _Attempt(TypedDict, total=False):
    """The parts of an attempt's description that are read again."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    at: float
    seconds: dict[str, float]
    measures: dict[str, tuple[float, int]]
    processor: str


_ATTEMPT = TypeAdapter(_Attempt)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The fate of one shard's records.

    ``records_in == records_out + rejected + quarantined``, counted in records of the step's input: a record is out if
    at least one of its rows is. ``attempt`` (worker, its instruction set, seconds) is not part of the shard's digest.
    """

    shard: str
    data: StoredFile
    rejects: StoredFile | None
    quarantine: StoredFile | None
    records_in: int
    records_out: int
    rejected: int
    quarantined: int
    reasons: dict[str, int] = field(default_factory=dict)  # "stage: reason" -> rejected rows
    errors: dict[str, int] = field(default_factory=dict)  # "stage: error" -> quarantined rows
    totals: dict[str, float] = field(default_factory=dict)  # column -> its sum over the output rows
    requeue_of: str | None = None  # the shard whose quarantined records were requeued here
    made_in: str = ""  # the name of the folder that it was committed in
    attempt: Annotated[dict[str, Any], AfterValidator(_ATTEMPT.validate_python)] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest of everything that the shard stores."""
        return canonical.digest([f and f.sha256 for f in (self.data, self.rejects, self.quarantine)])

    @property
    def files(self) -> list[StoredFile]:
        """The files that the shard stores."""
        return [file for file in (self.data, self.rejects, self.quarantine) if file]

    @property
    def base(self) -> str:
        """The shard of the index that it belongs to."""
        return self.requeue_of or self.shard

    @property
    def processor(self) -> str:
        """The level that it was computed at (:mod:`gristmill.shards.processor`); "" if that was not recorded."""
        return str(self.attempt.get("processor", ""))

    @property
    def run(self) -> int:
        """The number of the requeue; 0 is the shard itself."""
        return int(self.shard.rpartition("-r")[2]) if self.requeue_of else 0

    @property
    def mends(self) -> bool:
        """Whether any of its records is out or rejected, and so no longer in quarantine."""
        return self.records_out + self.rejected > 0

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Receipt:
        """Return the receipt with these JSON values."""
        files = {name: value[name] and StoredFile(**value[name]) for name in SHARD_FILES}
        return Receipt(**{**value, **files})


_SHAPE = TypeAdapter(Receipt)


def receipt_url(url: str, shard: str) -> str:
    """Return the URL of the receipt of a shard of the set at ``url``."""
    return store.join(url, RECEIPTS, f"{shard}.json")


def find_receipt(url: str, shard: str) -> Receipt | None:
    """Return the receipt of a shard, or ``None`` if it is not committed; a damaged one raises ``Damaged``."""
    data = checked.present(receipt_url(url, shard))
    return None if data is None else _decode(url, shard, data)


def _listed(url: str, shard: str) -> Receipt:
    receipt = find_receipt(url, shard)
    if receipt is None:
        raise Damaged(receipt_url(url, shard), "the file is missing")
    return receipt


def _decode(url: str, shard: str, data: bytes) -> Receipt:
    place = receipt_url(url, shard)
    receipt = checked.decode_as(_KIND, data, place, _SHAPE)
    if receipt.shard != shard:
        raise Damaged(place, f"is the receipt of shard {receipt.shard}")
    return receipt


def committed_shards(url: str) -> list[str]:
    """Return the names of the committed shards, by one listing."""
    names = store.list_names(store.join(url, RECEIPTS))
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def read_receipts(url: str, shards: list[str]) -> Iterator[Receipt]:
    """Yield the receipts of committed shards, in order."""

    def read(some: list[str]) -> list[Receipt]:
        return [_listed(url, shard) for shard in some]

    # In groups, since a receipt costs less than a thread's scheduling.
    size = max(1, min(_TOGETHER, len(shards) // (4 * AT_ONCE)))
    for receipts in read_ahead(read, [shards[at : at + size] for at in range(0, len(shards), size)]):
        yield from receipts


def store_table(url: str, kind: str, shard: str, table: pa.Table, groups: Sequence[int] = ()) -> StoredFile:
    """Write a shard's table under a name with its digest; it is invisible until the receipt is written.

    ``groups`` are the rows from which further row groups begin.
    """
    data = encode_table(table, groups)
    file = describe(data, table.num_rows, lambda sha: f"{kind}/{shard}-{sha[:16]}.parquet")
    store.write_bytes(store.join(url, file.path), data)
    return file


def commit(url: str, receipt: Receipt, *, deterministic: bool = True) -> Receipt:
    """Commit a shard and return the valid receipt: this one, or that of an earlier attempt.

    A late attempt finds the earlier receipt. If its content is equal, nothing happens; otherwise law 1 is violated,
    which raises :class:`~gristmill.shards.errors.Alarm` unless a stage of the step declares that it is not
    deterministic.
    """
    interrupts.check()
    receipt = replace(receipt, made_in=store.last_name(url))
    if store.put_if_absent(receipt_url(url, receipt.shard), checked.encode(_KIND, receipt.to_json())):
        return receipt
    first = find_receipt(url, receipt.shard)
    if first is None:
        raise Alarm(f"{receipt_url(url, receipt.shard)}: the receipt exists, but cannot be read")
    if first.digest != receipt.digest:
        kept = {file.path for file in first.files}
        for mine in receipt.files:
            if mine.path not in kept:
                store.remove_file(store.join(url, mine.path))
        if deterministic:
            raise Alarm(
                f"{url}: shard {receipt.shard} came out twice with different bytes "
                f"({first.data.sha256[:12]} is committed, {receipt.data.sha256[:12]} came later)"
                + _levels(first.processor, receipt.processor)
            )
    return first


def _levels(first: str, later: str) -> str:
    return f", computed with processor={first} and with {later}" if "" not in (first, later) and first != later else ""


def check_place(url: str, receipt: Receipt) -> Receipt:
    """Return a receipt if it was committed for the set at ``url``: shards of all sets have the same names.

    Raises:
        Damaged: it is that of another set.
    """
    if receipt.made_in != store.last_name(url):
        raise Damaged(
            receipt_url(url, receipt.shard), f"is the receipt of a shard of {receipt.made_in or 'another set'}"
        )
    return receipt


def check_files(url: str, receipt: Receipt) -> None:
    """Compare the files of a shard with their digests.

    Raises:
        Damaged: one is missing or is not what was committed.
    """
    for file in receipt.files:
        checked.check_file(store.join(url, file.path), file.sha256)


def check_stored(url: str, files: Iterable[StoredFile]) -> None:
    """Check that files of a set are there and as long as they were, by one listing of each folder.

    Raises:
        Damaged: a file is missing or of another size.
    """
    sizes: dict[str, dict[str, int]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if folder not in sizes:
            sizes[folder] = store.list_sizes(store.join(url, folder))
        size = sizes[folder].get(name)
        if size != file.bytes:
            fault = "the file is missing" if size is None else f"holds {size} bytes, {file.bytes} were committed"
            raise Damaged(store.join(url, file.path), fault)
