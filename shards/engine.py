"""Runs a step: plans its shards, hands them to a runner, and seals. The driver sees receipts, not data (law 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

from gristmill.shards import canonical, checked, processor, store
from gristmill.shards.dataset import SealedSet, find_made, put_seal
from gristmill.shards.errors import Damaged, TooManyQuarantined
from gristmill.shards.index import ShardSpec
from gristmill.shards.parquet import read_table
from gristmill.shards.receipt import (
    Receipt,
    check_place,
    check_stored,
    committed_shards,
    read_receipts,
    receipt_url,
)
from gristmill.shards.step import ShardTask, Step, count_by_stage

PLAN = "step.json"
_KIND = "plan of a step"


class _PlannedShard(TypedDict):
    name: str
    rows: int
    slices: list[tuple[str, int, int]]


class _Plan(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    step: str
    stages: list[dict[str, Any]]
    input: str
    joins: list[tuple[str, list[str], str]]
    shards: list[_PlannedShard]


_SHAPE = TypeAdapter(_Plan)


class Runner(Protocol):
    """Makes shards, in this process or on a cluster."""

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Make the shards and yield the receipt of each as it is committed, in any order."""
        ...

    def verify(self, url: str, receipts: Sequence[Receipt]) -> None:
        """Compare the files of committed shards of the set at ``url`` with their digests, on the workers.

        Raises:
            Damaged: a file is missing or is not what was committed.
        """
        ...


class Progress:
    """Callbacks for the progress of a run; these do nothing."""

    def found(self, sealed: SealedSet) -> None:
        """Called for a step that was finished before and is not run."""

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Called when a step starts, with its shards and records; ``done`` shards are committed already."""

    def advance(self, receipt: Receipt) -> None:
        """Called when a shard of the step is committed."""

    def end(self, sealed: SealedSet) -> None:
        """Called when the step is sealed."""


def step_url(out: str, step: Step, seed: int) -> str:
    """Return the folder of a step's set: name and fingerprint, so that a changed step gets a new one."""
    return store.join(out, step.name, step.fingerprint(seed)[:16])


def is_finished(sealed: SealedSet | None, *, requeue: bool = False) -> TypeGuard[SealedSet]:
    """Return whether a step needs no work: it is sealed, and no quarantined record is to be re-run."""
    return sealed is not None and not (requeue and sealed.seal["quarantined"])


def run_step(
    step: Step,
    out: str,
    runner: Runner,
    seed: int,
    progress: Progress | None = None,
    *,
    requeue: bool = False,
    again: SealedSet | None = None,
) -> SealedSet:
    """Run the missing shards of a step and return its sealed set.

    A sealed step costs one read. ``requeue`` re-runs the records in quarantine and seals a new version. ``again`` is
    the step's set, whose data were deleted (:mod:`gristmill.shards.cleaning`): its shards are made again.

    Raises:
        Alarm: the set that is made again has another digest.
        TooManyQuarantined: more than ``step.max_quarantine`` of the records (and more than one) broke a stage.
        UserError: a shard was made with another instruction set than this process has.
    """
    progress = progress or Progress()
    url = step_url(out, step, seed)
    sealed = find_made(url, step.fingerprint(seed))
    if again is None and is_finished(sealed, requeue=requeue):
        progress.found(sealed)
        return sealed
    schema = step.schema  # refuses what cannot be before anything is written
    names = committed_shards(url)
    specs = _index(url, step, seed)
    task = ShardTask(url, step.stages, schema, step.given, seed, step.deterministic, len(specs), step.name, step.totals)
    records = sum(spec.rows for spec in specs)
    limit = max(1, int(step.max_quarantine * records))
    tally = _Tally(step.name, limit, (_checked(url, receipt) for receipt in read_receipts(url, names)))
    # An earlier run's work, which may have lain on the disk for long, is sealed only if it is still whole.
    runner.verify(url, list(tally.receipts.values()))
    progress.begin(step.name, len(specs), sum(spec.name in tally.receipts for spec in specs), records)
    if requeue:
        # Before anything else: a step stopped by too many broken records goes on only when they are fixed.
        tried = list(runner.execute(task, list(_quarantined(url, step, specs, tally.receipts))))
        _Tally(step.name, limit, [*tally.receipts.values(), *tried]).check()
        for receipt in tried:
            if receipt.mends:
                tally.add(receipt)
    else:
        tally.check(earlier=True)
    for receipt in runner.execute(task, [spec for spec in specs if spec.name not in tally.receipts]):
        tally.add(receipt)
        progress.advance(receipt)
        tally.check()
    # Base shards in the order of the index, each followed by the re-runs of its quarantined records.
    place = {spec.name: number for number, spec in enumerate(specs)}
    order = sorted(tally.receipts.values(), key=lambda receipt: (place[receipt.base], receipt.run))
    check_stored(url, (file for receipt in order for file in receipt.files))
    sealed = put_seal(
        url,
        step.name,
        step.schema,
        _with_open_errors(url, step, order),
        expected=None if again is None else again.digest,
        fingerprint=step.fingerprint(seed),
        inputs=[step.input.url, *(join.dataset.url for join in step.joins)],
        input_digests=[step.input.digest, *(join.dataset.digest for join in step.joins)],
        artifacts={key: ref.digest for stage in step.stages for key, ref in stage.artifacts.items()},
        code=step.code(),
        processor=tally.level,
        **({} if step.deterministic else {"deterministic": False}),
    )
    progress.end(sealed)
    return sealed


def _checked(url: str, receipt: Receipt) -> Receipt:
    processor.check_made(receipt_url(url, receipt.shard), receipt.processor)
    return check_place(url, receipt)


def _index(url: str, step: Step, seed: int) -> list[ShardSpec]:
    """Return the shards to make, in order. A cut is planned once, since planning reads the whole input."""
    planned = read_plan(url)
    if planned is not None:
        check_plan(url, planned, step.fingerprint(seed))
    if planned is not None and step.cut:
        files = {entry.path: entry for entry in step.input.shards}
        return [ShardSpec.from_json(shard, step.input.url, files) for shard in planned["shards"]]
    specs = step.index()
    if planned is None:
        identity = {**step.identity(seed), "shards": [spec.to_json() for spec in specs], "code": step.code()}
        store.put_if_absent(store.join(url, PLAN), checked.encode(_KIND, identity))
    return specs


def kept_code(url: str, sealed: SealedSet | None) -> Any:
    """Return what was kept of the code of a step's stages (:mod:`gristmill.shards.code`): by its seal, or while it has
    none by its plan; ``None`` if nothing was."""
    found = sealed.seal if sealed is not None else read_plan(url) or {}
    return found.get("code")


def read_plan(url: str) -> dict[str, Any] | None:
    """Return the identity and the shards of the step whose set is at a URL; ``None`` if it was never begun."""
    plan = checked.read_as(_KIND, store.join(url, PLAN), _SHAPE)
    return None if plan is None else dict(plan)


def check_plan(url: str, plan: Mapping[str, Any], fingerprint: str) -> None:
    """Check that the plan found at ``url`` is of the step with this fingerprint, or start of one.

    Raises:
        Damaged: it is that of another step.
    """
    if not planned_fingerprint(plan).startswith(fingerprint):
        raise Damaged(store.join(url, PLAN), f"is the plan of {plan['step']}, not that of {fingerprint[:16]}")


def planned_fingerprint(plan: Mapping[str, Any]) -> str:
    """Return the fingerprint of the step that a plan is of."""
    return canonical.fingerprint({key: value for key, value in plan.items() if key not in ("shards", "code")})


class _Tally:
    """The receipts of a step by shard, and a running count of its broken records, so that a check is cheap."""

    def __init__(self, name: str, limit: int, receipts: Iterable[Receipt]) -> None:
        self.name, self.limit = name, limit
        self.receipts: dict[str, Receipt] = {}
        self._unknown = False  # whether there is a receipt from before levels were recorded
        self._newest: dict[str, Receipt] = {}  # of base shards that had broken records
        self._count = 0
        for receipt in receipts:
            self.add(receipt)

    def add(self, receipt: Receipt) -> None:
        self._unknown |= not receipt.processor
        # The attempt (who made it, how fast) is not part of the seal, and half the memory of a receipt.
        receipt = self.receipts[receipt.shard] = replace(receipt, attempt={}, made_in="")
        if receipt.quarantined or receipt.requeue_of:
            before = self._newest.get(receipt.base)
            if before is None or receipt.run >= before.run:
                self._newest[receipt.base] = receipt
                self._count += receipt.quarantined - (before.quarantined if before else 0)

    @property
    def level(self) -> str:
        """The level that all shards were made at, which has been checked; "" if that is not known of one."""
        return "" if self._unknown else processor.label()

    def check(self, *, earlier: bool = False) -> None:
        """Raise :class:`TooManyQuarantined` if more records are in quarantine than the limit allows.

        ``earlier`` says that they broke in an earlier run, and that this one has tried none of them.
        """
        if self._count > self.limit:
            errors: Counter[str] = Counter()
            for receipt in self._newest.values():
                if receipt.quarantined:
                    errors.update(receipt.errors)
            common = "; ".join(f"{number} x {error}" for error, number in errors.most_common(3))
            broke = "broke in an earlier run and were not tried again" if earlier else "broke"
            kept = "If the cause is fixed" if earlier else "Committed shards are kept: fix the cause, then"
            raise TooManyQuarantined(
                f"step {self.name}: {self._count} records {broke}, more than max_quarantine allows ({self.limit}). "
                f"Most common: {common}. {kept}{',' * earlier} run them again with `gristmill requeue`, or from Python "
                "with Run(..., requeue=True)"
            )


def _latest(receipts: Iterable[Receipt]) -> dict[str, Receipt]:
    """Return the receipt of each base shard whose quarantine is current: the newest run's."""
    return {receipt.base: receipt for receipt in sorted(receipts, key=lambda receipt: receipt.run)}


def _quarantined(url: str, step: Step, specs: Sequence[ShardSpec], receipts: dict[str, Receipt]) -> Iterator[ShardSpec]:
    """Plan a shard for the records that each shard's newest run left in quarantine."""
    latest = _latest(receipts.values())
    taken = {spec.name for spec in specs}  # the input's own shards may be re-runs of quarantined records
    for spec in specs:
        receipt = latest.get(spec.name)
        if receipt is None or receipt.quarantine is None:
            continue
        table = read_table(url, receipt.quarantine, ["origin"])
        # A record with a copy in the output is out: a re-run would duplicate that copy.
        only = tuple(sorted(set(table["origin"].to_pylist()) - _origins_out(url, step, receipt)))
        if not only:
            continue
        number = receipt.run + 1
        while f"{spec.name}-r{number}" in taken:
            number += 1
        yield ShardSpec(f"{spec.name}-r{number}", spec.slices, len(only), spec.joins, only, requeue_of=spec.name)


def _origins_out(url: str, step: Step, receipt: Receipt) -> set[str]:
    column = "parent_id" if any(stage.fan_out for stage in step.stages) else "id"
    table = read_table(url, receipt.data, [column])
    return set(table[column].to_pylist())


def _with_open_errors(url: str, step: Step, receipts: Sequence[Receipt]) -> Iterator[Receipt]:
    """Yield the receipts with the errors of rows still in quarantine only; re-runs count the others."""
    latest = _latest(receipts)
    for receipt in receipts:
        if receipt.quarantine is None or latest[receipt.base] is receipt:
            yield receipt
            continue
        broken = read_table(url, receipt.quarantine)
        kept = pc.is_in(broken["origin"], value_set=pa.array(list(_origins_out(url, step, receipt)), pa.string()))
        yield replace(receipt, errors=count_by_stage(broken.filter(kept), "error"))


def planned_rows(url: str) -> dict[str, int] | None:
    """Return the planned shards of a step in progress and the rows of each; ``None`` if it was never begun."""
    plan = read_plan(url)
    return None if plan is None else {spec["name"]: spec["rows"] for spec in plan["shards"]}
