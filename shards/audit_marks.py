"""The parts of an audit that are of one file: an artifact's, and the seal of a set whose data were deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gristmill.shards import canonical, checked
from gristmill.shards.artifact import get_artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.finding import COUNTS
from gristmill.shards.receipt import Receipt

Planned = Mapping[str, Sequence[tuple[str, int, int]]]  # slices of the input by shard


def planned_rows(planned: Planned, shard: str) -> int:
    """Return the rows of the input that a shard was planned from.

    Example:
        >>> planned_rows({"000000": [("a.parquet", 0, 4), ("b.parquet", 2, 3)]}, "000000")
        5
    """
    return sum(stop - start for _, start, stop in planned.get(shard, ()))


def number_fault(receipt: Receipt, planned: Planned) -> str | None:
    """Return what is wrong with a receipt's number of records, where it is not known which records they were."""
    rows = planned_rows(planned, receipt.base)
    fates = receipt.records_out + receipt.rejected + receipt.quarantined
    if rows == receipt.records_in == fates:
        return None
    return f"says {receipt.records_in} records in, of which {fates} are accounted for; {rows} were planned"


def seal_faults(sealed: SealedSet, planned: Planned | None) -> Iterator[str]:
    """Yield what is wrong with a seal by itself: its digest, the fates of its records, and how many were planned.

    ``planned`` is ``None`` for a source, which has no input.
    """
    seal = sealed.seal
    if _digest(sealed) != sealed.digest:
        yield "its digest is not that of its shards"
    fates = [seal[key] for key in COUNTS]
    if fates[0] != sum(fates[1:]):
        yield f"says in, out, rejected, quarantined = {tuple(fates)}, which does not add up"
    if planned is None and sealed.records != seal["records_out"]:
        yield f"says records_out = {seal['records_out']}, its shards have {sealed.records} rows"
    whole = sum(planned_rows(planned, shard) for shard in planned) if planned else 0
    if planned and whole != seal["records_in"]:
        yield f"says records_in = {seal['records_in']}, the plan gives {whole}"


def _digest(sealed: SealedSet) -> str:
    """Return the digest of a set from its seal's own list of files."""
    down, broken = ({one["shard"]: one["sha256"] for one in sealed.seal[kind]} for kind in ("rejects", "quarantine"))
    shards = [
        [one.name, canonical.digest([one.sha256, down.get(one.name), broken.get(one.name)])] for one in sealed.shards
    ]
    return canonical.digest([str(sealed.schema), shards])


def artifact_gaps(url: str) -> list[str]:
    """Return what is wrong with the artifact at a URL: its digest, or a file of it."""
    artifact = get_artifact(url)
    assert artifact is not None  # it was read when it was found
    gaps = []
    if canonical.digest(artifact.sha256) != artifact.digest:
        gaps.append(f"{url}: artifact.json: its digest is not that of its files")
    faults = checked.find_faults(url, artifact.stored)
    return gaps + [f"{url}: {error.url.removeprefix(url).lstrip('/')}: {error.fault}" for error in faults]
