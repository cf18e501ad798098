"""The audit: recomputes the fate of every record from the stored files, trusting no count (law 2)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards import canonical, checked, store
from gristmill.shards.audit_marks import artifact_gaps, number_fault, seal_faults
from gristmill.shards.dataset import SealedSet, ShardEntry, content_digest, row_totals
from gristmill.shards.engine import PLAN, planned_fingerprint, read_plan
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.finding import COUNTS, UNREADABLE, Found, find_below, seal_versions, why_unreadable
from gristmill.shards.parquet import decode_table, read_rows
from gristmill.shards.receipt import SHARD_FILES, Receipt, StoredFile, committed_shards, find_receipt
from gristmill.shards.stage import GROUP, RECORDS
from gristmill.shards.tombstone import Tombstone, to_json
from gristmill.shards.work import QUARANTINE, REJECTS

_SHOWN = 3  # ids in a sentence


@dataclass
class AuditResult:
    """The audit of one sealed set; counts are recomputed, in records of the step's input.

    Those of a set that was ``cleaned`` are its seal's, which is checked against itself and its plan.
    """

    name: str
    url: str
    digest: str
    records_in: int = 0
    records_out: int = 0
    rejected: int = 0
    quarantined: int = 0
    shards: int = 0
    gaps: list[str] = field(default_factory=list)
    cleaned: Tombstone | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        whole = {"name": self.name, "digest": self.digest, **{key: getattr(self, key) for key in (*COUNTS, "shards")}}
        more = {} if self.cleaned is None else {"cleaned": to_json(self.cleaned)}
        return {**whole, "url": self.url, "gaps": self.gaps, **more}


def audit_below(url: str, found: Found | None = None) -> Iterator[AuditResult]:
    """Audit each sealed set at a URL or below it, and the artifacts beside them.

    ``found`` is what :func:`~gristmill.shards.finding.find_below` returned for the URL, if it was called already.

    Raises:
        UserError: there is no sealed set.

    Example:
        >>> from gristmill.shards.dataset import seal_tables
        >>> made = seal_tables("made/texts", "texts", [pa.table({"id": ["a", "b"]})])
        >>> [(result.name, result.records_out, result.gaps) for result in audit_below("made")]
        [('texts', 2, [])]
    """
    found = found or find_below(url)
    if not found.sealed and not found.unreadable and not found.cleaned:
        raise UserError(
            f"{url}: no sealed set is here or below; expected the output of `gristmill run` or one of its sets"
        )
    # By digest, so that an output that was moved is audited at its new place.
    cleaned = {one.tombstone.digest: one for one in found.cleaned.values()}
    kept = [one.sealed for one in cleaned.values() if one.sealed is not None]
    near = {digest: sealed.url for sealed in (*kept, *found.sealed) for digest in seal_versions(sealed.url)}
    gone = {digest for digest in cleaned if near.get(digest, "") not in {sealed.url for sealed in found.sealed}}
    for sealed in found.sealed:
        yield _Audit(sealed, near, gone).work()
    for one in found.cleaned.values():
        if one.sealed is not None:
            yield _Audit(one.sealed, near, gone).of_seal(one.tombstone)
    for artifact in found.artifacts:
        gaps = artifact_gaps(artifact)
        if gaps:
            yield AuditResult(found.names[artifact], artifact, "", gaps=gaps)
    for place, fault in found.unreadable.items():
        name = found.names[place]
        yield AuditResult(name, place, "", gaps=[f"{name}: {fault}"])


def audit_set(sealed: SealedSet, near: Mapping[str, str] | None = None) -> AuditResult:
    """Audit one sealed set. ``near`` maps digests to the URLs of sets; others are looked up at the seal's own URLs."""
    return _Audit(sealed, near or {}).work()


class _Audit:
    def __init__(self, sealed: SealedSet, near: Mapping[str, str], gone: Collection[str] = ()) -> None:
        self.sealed, self.near, self.gone = sealed, near, gone
        self.blind = False  # the rows of its input were deleted: their number is known, and not which they were
        self.result = AuditResult(sealed.name, sealed.url, sealed.digest)
        self.seen: list[np.ndarray] = []  # hashes of ids, 8 bytes a row
        self.origin = "id"
        self.given = "id"  # the column of the input that says whose origin a row is
        self.inputs: dict[str, SealedSet] = {}

    def gap(self, where: str, fault: str) -> None:
        self.result.gaps.append(f"{self.sealed.name}: {where}: {fault}")

    def work(self) -> AuditResult:
        sealed, result = self.sealed, self.result
        planned = self._plan()
        receipts: dict[str, Receipt] = {}
        for entry in sealed.shards:
            receipt = self._receipt(entry)
            if receipt is not None:
                receipts[entry.name] = receipt
        result.shards = len(sealed.shards)
        self._check_names(planned)
        chains: dict[str, list[Receipt]] = {}
        for receipt in receipts.values():
            chains.setdefault(receipt.base, []).append(receipt)
        for base, chain in chains.items():
            self._audit_chain(base, sorted(chain, key=lambda receipt: receipt.run), planned)
        self._check_unique()
        self._check_seal(receipts)
        return result

    def of_seal(self, tombstone: Tombstone) -> AuditResult:
        """Audit a set whose data were deleted."""
        result, seal = self.result, self.sealed.seal
        result.cleaned, result.shards = tombstone, len(self.sealed.shards)
        for key in COUNTS:
            setattr(result, key, seal[key])
        planned = self._plan()
        self._check_names(planned)
        for fault in seal_faults(self.sealed, planned):
            self.gap("seal.json", fault)
        return result

    # The plan.

    def _plan(self) -> dict[str, list[tuple[str, int, int]]] | None:
        """Return the planned slices of the input for each shard; ``None`` for a source, which has no input."""
        lineage = self.sealed.seal.get("input_digests")
        try:
            plan = read_plan(self.sealed.url)
            if plan is None and lineage is None:
                return None
            if plan is None or lineage is None:
                self.gap(PLAN, "the plan of the shards is missing" if plan is None else "the seal names no input of it")
                return {}
            slices = self._slices(plan, lineage[0])
            self._check_lineage(plan)
        except UNREADABLE as error:
            self.gap(PLAN, f"cannot be read ({why_unreadable(error)})")
            return {}
        return slices

    def _check_lineage(self, plan: Mapping[str, Any]) -> None:
        """Check what the seal says that the set was made of against the plan, whose digest is the fingerprint."""
        seal = self.sealed.seal
        artifacts = {key: digest for stage in plan["stages"] for key, digest in stage.get("artifacts", {}).items()}
        for key, found in (
            ("name", plan["step"]),
            ("fingerprint", planned_fingerprint(plan)),
            ("input_digests", [plan["input"], *(join[0] for join in plan["joins"])]),
            ("artifacts", artifacts),
        ):
            if seal.get(key) != found:
                self.gap("seal.json", f"says {key} = {seal.get(key)}, the plan gives {found}")

    def _slices(self, plan: Mapping[str, Any], digest: str) -> dict[str, list[tuple[str, int, int]]]:
        if any(stage.get("fan_out") for stage in plan["stages"]):
            self.origin = "parent_id"
        if any(stage.get("merges") for stage in plan["stages"]):
            self.given = GROUP.name
        self.blind = digest in self.gone
        if self.blind and digest not in self.near:  # without its seal too
            return {shard["name"]: [tuple(one) for one in shard["slices"]] for shard in plan["shards"]}
        source = self._input(self.sealed.seal["inputs"][0], digest)
        slices: dict[str, list[tuple[str, int, int]]] = {}
        if source is None:
            return slices
        paths = {entry.path: entry for entry in source.shards}
        covered: dict[str, list[tuple[int, int]]] = {path: [] for path in paths}
        for shard in plan["shards"]:
            slices[shard["name"]] = []
            for path, start, stop in shard["slices"]:
                if path not in paths:
                    self.gap(f"{PLAN}, shard {shard['name']}", f"reads {path}, which is no shard of {source.name}")
                    continue
                covered[path].append((start, stop))
                slices[shard["name"]].append((store.join(source.url, path), start, stop))
        for path, parts in covered.items():
            place = 0
            for start, stop in sorted(parts):
                if start != place:
                    self.gap(
                        PLAN,
                        f"rows {min(start, place)} to {max(start, place)} of {source.name}/{path} are "
                        f"in {'no shard' if start > place else 'two shards'}",
                    )
                place = max(place, stop)
            if place != paths[path].rows:
                self.gap(PLAN, f"rows {place} to {paths[path].rows} of {source.name}/{path} are in no shard")
        return slices

    def _input(self, url: str, digest: str) -> SealedSet | None:
        place = self.near.get(digest, url)
        seal = seal_versions(place).get(digest)
        if seal is not None:
            return SealedSet(place, seal)
        self.gap("input", f"the set {digest[:12]} it was made of is not at {place}")
        return None

    def _check_names(self, planned: Mapping[str, Any] | None) -> None:
        sealed = {entry.name for entry in self.sealed.shards}
        if planned:
            for name in sorted(planned.keys() - sealed):
                self.gap(f"shard {name}", "was planned and is not in the seal")
        again = {name for name in committed_shards(self.sealed.url) if name not in sealed}
        for name in sorted(again):
            try:
                receipt = find_receipt(self.sealed.url, name)
            except UNREADABLE as error:
                self.gap(f"receipts/{name}.json", f"cannot be read ({why_unreadable(error)})")
                continue
            # Records being re-run are sealed when their run ends.
            if receipt is None or receipt.requeue_of is None:
                self.gap(f"receipts/{name}.json", "is not in the seal")

    # The stored files.

    def _receipt(self, entry: ShardEntry) -> Receipt | None:
        try:
            receipt = find_receipt(self.sealed.url, entry.name)
        except UNREADABLE as error:
            self.gap(f"receipts/{entry.name}.json", f"cannot be read ({why_unreadable(error)})")
            return None
        if receipt is None:
            self.gap(f"receipts/{entry.name}.json", "is missing")
            return None
        if any(getattr(receipt.data, kept.name) != getattr(entry, kept.name) for kept in fields(StoredFile)):
            self.gap(f"receipts/{entry.name}.json", "disagrees with the seal")
        return receipt

    def _table(self, receipt: Receipt, kind: str) -> pa.Table | None:
        """Return a shard's whole table; ``None`` if there is none or it cannot be read as the table committed."""
        stored: StoredFile | None = getattr(receipt, kind)
        if stored is None:
            return None
        try:
            data = checked.present(store.join(self.sealed.url, stored.path))
        except Damaged as error:
            self.gap(stored.path, error.fault)
            return None
        if data is None:
            self.gap(stored.path, "the file is missing")
            return None
        if len(data) != stored.bytes:
            self.gap(stored.path, f"holds {len(data)} bytes, {stored.bytes} were committed")
        elif canonical.sha256(data) != stored.sha256:
            self.gap(stored.path, "its bytes are not those that were committed")
        try:
            table = decode_table(data)
        except (pa.ArrowInvalid, OSError) as error:
            self.gap(stored.path, f"cannot be read ({why_unreadable(error)})")
            return None
        if table.num_rows != stored.rows:
            self.gap(stored.path, f"holds {table.num_rows} rows, the receipt says {stored.rows}")
        expected = {"data": self.sealed.schema, "rejects": REJECTS, "quarantine": QUARANTINE}[kind]
        lacking = [name for name in expected.names if name not in table.column_names]
        if lacking:
            self.gap(stored.path, f"lacks the columns {', '.join(lacking)}")
            return None
        return table

    def _audit_chain(self, base: str, chain: Sequence[Receipt], planned: Mapping[str, Any] | None) -> None:
        """Audit a shard, and after it the re-runs of its quarantined records."""
        given: Mapping[str, int] | None = None if planned is None else self._given(base, planned)
        for receipt in chain:
            tables = {kind: self._table(receipt, kind) for kind in SHARD_FILES}
            data = tables["data"]
            if data is not None:
                self.seen.append(np.fromiter(map(hash, data["id"].to_pylist()), np.int64, data.num_rows))
                if row_totals(data, receipt.totals) != receipt.totals:
                    self.gap(f"receipts/{receipt.shard}.json", "its totals are not those of the rows")
            origins = {
                kind: _origins(table, self.origin if kind == "data" else "origin") for kind, table in tables.items()
            }
            out = origins["data"]
            broke = origins["quarantine"] - out
            rejected = origins["rejects"] - out - broke
            if planned is None:
                given = None if data is None else Counter(data[self.origin].to_pylist())
            if given is not None:
                self._compare(receipt, given, out | broke | rejected)
                if data is not None and self.given == GROUP.name and RECORDS.name in data.column_names:
                    self._compare_groups(receipt, given, data)
            elif self.blind and planned and (fault := number_fault(receipt, planned)):
                self.gap(f"receipts/{receipt.shard}.json", fault)
            records = given or {}
            fates = [sum(records.get(one, 1) for one in some) for some in (out, rejected, broke)]
            counted = (receipt.records_in if given is None else sum(records.values()), *fates)
            claimed = (receipt.records_in, receipt.records_out, receipt.rejected, receipt.quarantined)
            if self.blind and self.given == GROUP.name:
                counted = claimed  # how many records a group had is not known without them
            if (
                all(tables[kind] is not None or getattr(receipt, kind) is None for kind in SHARD_FILES)
                and counted != claimed
            ):
                self.gap(
                    f"receipts/{receipt.shard}.json",
                    f"says in, out, rejected, quarantined = {claimed}, the stored files give {counted}",
                )
            result, again = self.result, receipt.requeue_of is not None
            result.records_in += 0 if again else counted[0]
            result.records_out += counted[1]
            result.rejected += counted[2]
            result.quarantined += counted[3] - (counted[0] if again else 0)
            given = {one: records.get(one, 1) for one in broke} if planned is not None else None

    def _given(self, shard: str, planned: Mapping[str, Any]) -> dict[str, int] | None:
        """Return the records that a shard was given, or its groups, each with its number of rows."""
        if shard not in planned:
            if planned:
                self.gap(f"receipts/{shard}.json", "is of a shard that was never planned")
            return None
        if self.blind:
            return None
        found: Counter[str] = Counter()
        for url, start, stop in planned[shard]:
            try:
                rows = read_rows(url, [self.given], start, stop)[self.given]
            except (pa.ArrowInvalid, OSError, Damaged):
                self.gap(f"shard {shard}", f"its input {url} is missing or cannot be read")
                return None
            counts = pc.value_counts(rows)
            found.update(dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)))
        return found

    def _compare_groups(self, receipt: Receipt, given: Mapping[str, int], data: pa.Table) -> None:
        """Compare the numbers of records that merged rows say their groups have with those of the input."""
        said = zip(data[self.origin].to_pylist(), data[RECORDS.name].to_pylist(), strict=True)
        wrong = sorted({group for group, records in said if records != given.get(group, records)})
        if wrong:
            self.gap(f"shard {receipt.shard}", f"{len(wrong)} groups have other numbers of records: {_some(wrong)}")

    def _compare(self, receipt: Receipt, given: Mapping[str, int], accounted: set[str]) -> None:
        where = f"shard {receipt.shard}"
        lost = sorted(set(given) - accounted)
        if lost:
            self.gap(where, f"{len(lost)} records are neither out nor rejected nor quarantined: {_some(lost)}")
        new = sorted(accounted - set(given))
        if new:
            self.gap(where, f"{len(new)} records were never given to it: {_some(new)}")
        twice = sorted(record for record, count in given.items() if count > 1)
        if twice and self.given == "id":
            self.gap(where, f"{len(twice)} records were given to it twice: {_some(twice)}")

    # The set as a whole.

    def _check_unique(self) -> None:
        hashes = np.concatenate([np.empty(0, np.int64), *self.seen])
        values, counts = np.unique(hashes, return_counts=True)
        doubled = set(values[counts > 1].tolist())
        if not doubled:
            return
        ids: Counter[str] = Counter()
        for entry in self.sealed.shards:
            with contextlib.suppress(pa.ArrowInvalid, OSError, Damaged):  # reported when the shard was read
                data = checked.present(store.join(self.sealed.url, entry.path))
                if data is None:
                    continue
                ids.update(record for record in decode_table(data, ["id"])["id"].to_pylist() if hash(record) in doubled)
        twice = sorted(record for record, count in ids.items() if count > 1)
        if twice:
            self.gap("data", f"{len(twice)} ids occur more than once: {_some(twice)}")

    def _check_seal(self, receipts: Mapping[str, Receipt]) -> None:
        sealed, result = self.sealed, self.result
        if len(receipts) == len(sealed.shards):
            own = content_digest(sealed.schema, [receipts[entry.name] for entry in sealed.shards])
            if own != sealed.digest:
                self.gap("seal.json", "its digest is not that of its shards")
        for key in COUNTS:
            if sealed.seal[key] != getattr(result, key):
                self.gap("seal.json", f"says {key} = {sealed.seal[key]}, the stored files give {getattr(result, key)}")


def _origins(table: pa.Table | None, column: str) -> set[str]:
    return set() if table is None else set(table[column].to_pylist())


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
