"""Rows by key: the groups of a plain loop, the same bytes whatever the memory, and every record accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards import reducers
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import RejectRecord, TooManyQuarantined, UserError
from gristmill.shards.exchange import Parts, deal, merge
from gristmill.shards.index import Cut, Slice
from gristmill.shards.reducers import First, FirstSettings, Reducer, Sums, SumSettings, join
from gristmill.shards.runs import group_starts
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import ShardTask, Step
from gristmill.shards.work import ContractError
from tests.shards.test_engine import StopsAfter

RECORDS, PARTS = 4000, 5
MEMORIES = (1 << 29, 1 << 17, 1 << 13)  # a part fits; is sorted in a few runs; in many, and a third of them has one key
COUNTS = ("records_in", "records_out", "rejected", "quarantined")


def records() -> pa.Table:
    """Sales of shops: a third is of one shop, some have none, some have no day."""
    rng = np.random.default_rng(1)
    shops = np.where(rng.random(RECORDS) < 0.3, 7, rng.integers(0, 600, RECORDS)).tolist()
    days = rng.integers(0, 50, RECORDS).tolist()
    return pa.table(
        {
            "id": [f"r{n:05d}" for n in range(RECORDS)],
            "shop": [None if shop == 11 else f"shop {shop}" for shop in shops],
            "price": rng.integers(-5, 100, RECORDS),
            "weight": rng.random(RECORDS),
            "day": [None if day == 3 else day for day in days],
        }
    )


def sealed(url: Path, name: str, table: pa.Table, shard: int = 350) -> SealedSet:
    return seal_tables(str(url / name), name, [table.slice(n, shard) for n in range(0, table.num_rows, shard)])


def rows(made: SealedSet) -> list[dict[str, Any]]:
    return [row for table in made.tables() for row in table.to_pylist()]


def by_shop(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in table.to_pylist():
        if row["shop"] is not None:
            found[row["shop"]].append(row)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SealedSet:
    return sealed(tmp_path_factory.mktemp("sales"), "sales", records())


@pytest.fixture(scope="module")
def dealt(data: SealedSet, tmp_path_factory: pytest.TempPathFactory) -> SealedSet:
    step = deal("dealt", data, ["shop"], ["price", "weight", "day"], parts=PARTS)
    return run_step(step, str(tmp_path_factory.mktemp("dealt")), InProcessRunner(), 0)


def run_of(path: Path) -> Run:
    return Run(str(path), InProcessRunner())


def audited(run: Run, made: SealedSet) -> SealedSet:
    assert [gap for result in audit_below(made.url) for gap in result.gaps] == []
    return made


class Basket(Reducer):
    """The prices of a shop in the order of their days, and in pieces if it is large."""

    columns, order = ("price",), ("day",)
    adds = (pa.field("prices", pa.list_(pa.int64())),)

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        if name == "shop 8":
            raise RejectRecord("closed")
        if name == "shop 9":
            raise ValueError("this shop breaks")
        yield {"prices": [price for table in tables for price in table["price"].to_pylist()]}


class Whole(Reducer):
    """A reducer of whole groups."""

    columns = ("price",)

    def __call__(self, batch: pa.Table) -> pa.Table:
        names = batch["group"].take(group_starts(batch))
        return pa.table({"id": names, "parent_id": names})


def stages(memory: int) -> dict[str, Stage]:
    resources = Resources(memory=memory)
    sums = SumSettings(sums={"price": "int64", "weight": "float64"})
    first = FirstSettings(order=("-day", "weight"), n=3, columns=("day", "price"))
    return {
        "sums": Sums.stage(sums, resources=resources),
        "first": First.stage(first, resources=resources),
        "basket": Basket.stage(resources=resources),
    }


@pytest.fixture(scope="module")
def merged(dealt: SealedSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SealedSet]:
    run = run_of(tmp_path_factory.mktemp("merged"))
    return {
        name: audited(run, run.step(merge(name, dealt, stage, max_quarantine=1)))
        for name, stage in stages(MEMORIES[0]).items()
    }


def test_every_record_is_dealt_once_and_lies_by_part(data: SealedSet, dealt: SealedSet) -> None:
    given = records()
    lost = given["shop"].null_count
    assert [dealt.seal[name] for name in COUNTS] == [RECORDS, RECORDS - lost, lost, 0]
    assert dealt.seal["reasons"] == {"deal: no shop": lost}
    parts = defaultdict(set)
    for table in dealt.tables():
        assert table["part"].to_pylist() == sorted(table["part"].to_pylist())
        for row in table.to_pylist():
            parts[row["group"]].add(row["part"])
    assert all(len(found) == 1 for found in parts.values())
    assert {part for found in parts.values() for part in found} == set(range(PARTS))
    read = Parts(dealt).read
    assert [row["id"] for part in range(PARTS) for t in read(part, ["id"]) for row in t.to_pylist()] == [
        row["id"] for part in range(PARTS) for row in rows(dealt) if row["part"] == part
    ]


def test_counts_and_sums_are_those_of_a_plain_loop(merged: dict[str, SealedSet]) -> None:
    groups = by_shop(records())
    found = rows(merged["sums"])
    assert {row["id"]: (row["records"], row["price"]) for row in found} == {
        shop: (len(own), sum(one["price"] for one in own)) for shop, own in groups.items()
    }
    for row in found:
        total = 0.0
        for one in groups[row["parent_id"]]:
            total += one["weight"]
        assert row["weight"] == total
    total = sum(map(len, groups.values()))
    assert [merged["sums"].seal[name] for name in COUNTS] == [total, total, 0, 0]


def test_the_first_of_each_key_in_an_order(merged: dict[str, SealedSet]) -> None:
    found = defaultdict(list)
    for row in rows(merged["first"]):
        found[row["parent_id"]].append(row["id"])
    for shop, own in by_shop(records()).items():
        by = sorted(own, key=lambda row: (row["day"] is None, -(row["day"] or 0), row["weight"]))
        assert found.pop(shop) == [row["id"] for row in by[:3]]
    assert not found


def test_sorted_groups_and_the_fates_of_groups(merged: dict[str, SealedSet]) -> None:
    groups = by_shop(records())
    found = {row["id"]: row["prices"] for row in rows(merged["basket"])}
    for shop in groups.keys() - {"shop 8", "shop 9"}:
        own = sorted(groups[shop], key=lambda row: (row["day"] is None, row["day"] or 0))
        assert found.pop(shop) == [row["price"] for row in own]
    assert not found
    total, closed, broken = sum(map(len, groups.values())), len(groups["shop 8"]), len(groups["shop 9"])
    seal = merged["basket"].seal
    assert [seal[name] for name in COUNTS] == [total, total - closed - broken, closed, broken]
    assert seal["reasons"] == {"Basket: closed": 1}
    assert seal["errors"] == {"Basket: ValueError: this shop breaks": 1}


@pytest.mark.parametrize("memory", MEMORIES[1:])
def test_bytes_do_not_depend_on_the_memory(
    tmp_path: Path, dealt: SealedSet, merged: dict[str, SealedSet], memory: int
) -> None:
    """With little of it a third of all rows, one shop's, comes to the reducer a table at a time."""
    run = run_of(tmp_path)
    for name, stage in stages(memory).items():
        made = audited(run, run.step(merge(name, dealt, stage, max_quarantine=1)))
        assert made.digest == merged[name].digest


def test_a_group_beyond_memory_is_refused_by_a_reducer_of_whole_groups(tmp_path: Path, dealt: SealedSet) -> None:
    large = len(by_shop(records())["shop 7"])
    step = merge("whole", dealt, Whole.stage(resources=Resources(memory=1 << 14)), max_quarantine=1)
    made = audited(run_of(tmp_path), run_of(tmp_path).step(step))
    (error,) = made.seal["errors"]
    assert error == (
        f"Whole: GroupTooLarge: {large} records are more than 4096 bytes, and Whole needs whole groups; expected more "
        "memory, or a reducer with a method group"
    )
    assert made.seal["quarantined"] == large
    strict = merge("whole", dealt, Whole.stage(resources=Resources(memory=1 << 14)))
    with pytest.raises(TooManyQuarantined, match="GroupTooLarge"):
        run_step(strict, str(tmp_path / "strict"), InProcessRunner(), 0)


def test_a_group_that_broke_is_run_again(
    tmp_path: Path, dealt: SealedSet, merged: dict[str, SealedSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = merge("basket", dealt, Basket.stage(), max_quarantine=1)
    run_step(step, str(tmp_path), InProcessRunner(), 0)
    broken = Basket.group

    def mended(self: Basket, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        return broken(self, "mended" if name == "shop 9" else name, tables)

    monkeypatch.setattr(Basket, "group", mended)
    run = Run(str(tmp_path), InProcessRunner(), requeue=True)
    made = audited(run, run.step(step))
    assert made.seal["quarantined"] == 0
    assert made.seal["records_in"] == merged["basket"].seal["records_in"]
    assert {row["id"] for row in rows(made)} == by_shop(records()).keys() - {"shop 8"}


@pytest.mark.parametrize("shards", [0, 3])
def test_a_stop_costs_only_the_shards_that_were_not_committed(
    tmp_path: Path, data: SealedSet, dealt: SealedSet, merged: dict[str, SealedSet], shards: int
) -> None:
    steps = [deal("dealt", data, ["shop"], ["price", "weight", "day"], parts=PARTS)]
    steps.append(merge("sums", dealt, stages(MEMORIES[0])["sums"]))
    for step, whole in zip(steps, (dealt, merged["sums"]), strict=True):
        with pytest.raises(KeyboardInterrupt):
            run_step(step, str(tmp_path), StopsAfter(shards), 0)
        assert run_step(step, str(tmp_path), InProcessRunner(), 0).digest == whole.digest


def test_the_audit_finds_a_record_that_was_lost_in_its_group(
    tmp_path: Path, dealt: SealedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Slice.read_apart
    monkeypatch.setattr(Slice, "read_apart", lambda self, columns: read(self, columns).slice(1))
    made = run_step(merge("sums", dealt, Sums.stage(SumSettings())), str(tmp_path), InProcessRunner(), 0)
    monkeypatch.undo()
    gaps = " ".join(gap for result in audit_below(made.url) for gap in result.gaps)
    assert "groups have other numbers of records: shop" in gaps
    assert "seal.json: says records_in" in gaps


def test_two_sets_are_joined_by_key(tmp_path: Path, dealt: SealedSet) -> None:
    shops = [{"id": f"s{n}", "shop": f"shop {n // 2}", "city": f"city {n % 5}"} for n in range(0, 700)]
    run = run_of(tmp_path)
    other = run.step(deal("shops", run.table("towns", pa.Table.from_pylist(shops)), ["shop"], ["city"], parts=PARTS))
    cities = defaultdict(list)
    for shop in shops:
        cities[shop["shop"]].append(shop["city"])
    expected = Counter(
        (row["id"], city) for shop, own in by_shop(records()).items() for row in own for city in cities.get(shop, [])
    )
    made = audited(run, run.step(join("joined", dealt, other, ["city"], ["price"])))
    assert Counter((row["id"].partition("#")[0], row["city"]) for row in rows(made)) == expected
    alone = sum(len(own) for shop, own in by_shop(records()).items() if shop not in cities)
    assert made.seal["rejected"] == alone > 0
    left = audited(run, run.step(join("left", dealt, other, ["city"], ["price"], unmatched=True)))
    assert sum(row["city"] is None for row in rows(left)) == alone
    fewer = run.step(deal("fewer", run.table("towns", pa.Table.from_pylist(shops)), ["shop"], ["city"], parts=2))
    with pytest.raises(UserError, match="dealt has 5 parts and fewer 2; expected sets dealt to the same number"):
        join("joined", dealt, fewer, ["city"])
    with pytest.raises(UserError, match=r"part 0 of shops has more than 50 bytes, .* of 200; expected more parts"):
        run_step(join("small", dealt, other, ["city"], memory=200), str(tmp_path), InProcessRunner(), 0)


def test_a_join_makes_many_pairs_of_one_key_in_pieces(
    tmp_path: Path, dealt: SealedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    towns = pa.table({"id": [f"s{n}" for n in range(40)], "shop": ["shop 7"] * 40, "city": list(range(40))})
    other = run.step(deal("shops", run.table("towns", towns), ["shop"], ["city"], parts=PARTS))
    whole = run_step(join("joined", dealt, other, ["city"], unmatched=True), run.out, run.cluster, 0)
    monkeypatch.setattr(reducers, "_PRODUCT", 100)
    pieces = run_of(tmp_path / "pieces").step(join("joined", dealt, other, ["city"], unmatched=True))
    assert len(rows(audited(run, whole))) == RECORDS - records()["shop"].null_count + 39 * len(
        by_shop(records())["shop 7"]
    )
    assert pieces.digest == whole.digest


def test_a_large_group_outlives_a_part_that_killed_its_workers(dealt: SealedSet, merged: dict[str, SealedSet]) -> None:
    """Its reducer then works in a process of its own, which is given the group in a file."""
    stage = stages(MEMORIES[2])["basket"]
    step = merge("basket", dealt, stage)
    task = ShardTask("unused", step.stages, step.schema, step.given, 0, True, PARTS, step.name, step.totals)
    worker = task.worker(0, isolated=True)
    try:
        found = [worker(task.open(spec)).table for spec in step.index()]
    finally:
        worker.close()
    assert [row for table in found for row in table.to_pylist()] == rows(merged["basket"])


def test_parts_follow_from_the_data(tmp_path: Path, data: SealedSet) -> None:
    few, many = (
        deal("dealt", data, ["shop"], ["price"], memory=memory).stages[0].params for memory in (1 << 29, 1 << 17)
    )
    assert few.parts == 1
    assert many.parts > 3


class Faulty(Reducer):
    """A reducer that breaks its contract in one way or another."""

    columns = ("price",)
    adds = (pa.field("sum", pa.int64()),)
    how: ClassVar[str] = ""

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
        if self.how == "misspelt":
            yield {"smu": 1}
        elif self.how == "twice":
            yield from ({"id": "one", "sum": 1}, {"id": "one", "sum": 2})
        elif self.how == "late":
            yield {"sum": 1}
            raise RejectRecord("late")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("misspelt", "Faulty gave the columns smu; it declares id, sum"),
        ("twice", "faulty: the id 'one' was given more than once"),
        ("late", "Faulty rejected the group 'shop .*' after rows of it"),
        ("nothing", r"gave no row for some group; it must reject it instead \(RejectRecord"),
    ],
)
def test_a_reducer_that_breaks_its_contract_is_told(
    tmp_path: Path, dealt: SealedSet, how: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "how", how)
    with pytest.raises((ContractError, UserError), match=message):
        run_step(merge("faulty", dealt, Faulty.stage()), str(tmp_path), InProcessRunner(), 0)


def test_a_sum_that_64_bits_do_not_hold_costs_its_group(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    most = (1 << 63) - 1
    given = {"id": list("abcde"), "key": list("xxyyz"), "n": [most, 1, most, -5, 1 << 62]}
    dealt = run.step(deal("dealt", run.table("numbers", pa.table(given)), ["key"], ["n"], parts=1))
    made = run.step(merge("sums", dealt, Sums.stage(SumSettings(sums={"n": "int64"})), max_quarantine=1))
    assert {row["id"]: row["n"] for row in rows(audited(run, made))} == {"y": most - 5, "z": 1 << 62}
    assert made.seal["errors"] == {
        "sums: OverflowError: the sum of n is 9223372036854775808, which 64 bits do not hold": 1
    }


def test_what_is_made_of_a_dealt_set_is_not_dealt(tmp_path: Path, dealt: SealedSet) -> None:
    """Cut anew, its shards would not lie by part."""
    made = run_of(tmp_path).step(Step("again", (), dealt, cut=Cut(rows=900)))
    with pytest.raises(UserError, match="again is not dealt by key"):
        merge("sums", made, Sums.stage(SumSettings()))


def test_what_cannot_be_is_refused_before_any_work(
    data: SealedSet, dealt: SealedSet, merged: dict[str, SealedSet], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="dealt: sales has no column town; it has id, shop"):
        deal("dealt", data, ["town"])
    with pytest.raises(UserError, match="key weight: its values are double; expected text, whole numbers"):
        deal("dealt", data, ["weight"])
    with pytest.raises(UserError, match=r"sales is not dealt by key; expected a set of .*deal"):
        merge("sums", data, Sums.stage(SumSettings()))
    with pytest.raises(UserError, match=r"stage sums reads .*town.*, which its input lacks"):
        run_step(merge("sums", dealt, Sums.stage(SumSettings(sums={"town": "int64"}))), "unused", InProcessRunner(), 0)
    for wrong, message in (
        ({"columns": "price"}, "columns is 'price'; expected a list"),
        ({"memory": 0}, "memory is 0; expected bytes"),
        ({"parts": 0}, "parts"),
    ):
        with pytest.raises(UserError, match=message):
            deal("dealt", data, ["shop"], **wrong)
    own = run_of(tmp_path).table("own", records().append_column("part", records()["day"]))
    with pytest.raises(UserError, match="dealt: part is what dealing itself writes"):
        deal("dealt", own, ["shop"])
    with pytest.raises(UserError, match="sums: there is no stage; expected that of a reducer"):
        merge("sums", dealt)
    baskets = run_of(tmp_path).step(deal("baskets", merged["basket"], ["id"], ["prices"], parts=2))
    with pytest.raises(UserError, match=r"stage first sorts by \['prices'\], which are lists"):
        merge("first", baskets, First.stage(FirstSettings(order=("prices",)))).schema  # noqa: B018
    with pytest.raises(UserError, match="joined: price, id of dealt would be there twice"):
        join("joined", dealt, dealt, ["price", "id"], ["price"])
    again = run_of(tmp_path).step(deal("again", merged["sums"], ["price"], ["records"], parts=2))
    with pytest.raises(UserError, match=r"stage sums: records is what a merge itself writes"):
        merge("sums", again, Sums.stage(SumSettings(sums={"records": "int64"}))).schema  # noqa: B018
    with pytest.raises(ValueError, match="a stage merges if, and only if, it is the first of a step cut by parts"):
        Step("sums", (Sums.stage(SumSettings()),), dealt)
