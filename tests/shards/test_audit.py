"""The audit finds each kind of planted gap, and reports its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command.status import read_status
from gristmill.shards import canonical, checked, store
from gristmill.shards.artifact import put_artifact
from gristmill.shards.audit import AuditResult, audit_below
from gristmill.shards.dataset import SealedSet, open_sealed, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.parquet import decode_table, describe, encode_table
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, twice, upper


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    source = seal_tables(str(folder / "in" / "0"), "in", [texts(12, {1: "drop", 6: "break"})])
    made = run_step(Step("upper", (upper(),), source, cut=Cut(rows=4)), str(folder), InProcessRunner(), 0)
    run_step(Step("copies", (twice(),), made), str(folder), InProcessRunner(), 0)
    return folder


def audit(out: Path) -> dict[str, AuditResult]:
    return {result.name: result for result in audit_below(str(out))}


def find(out: Path, name: str) -> SealedSet:
    return open_sealed(str(next((out / name).iterdir())))


def gaps(out: Path, name: str = "upper") -> str:
    return "\n".join(audit(out)[name].gaps)


def edited(kind: str, path: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change a JSON file as one who knows its checksum would, and return its values."""
    value = checked.decode(kind, path.read_bytes(), str(path))
    change(value)
    path.write_bytes(checked.encode(kind, value))
    return value


def rewrite(sealed: SealedSet, shard: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a shard's rows, and its receipt and the seal too, so that every digest fits."""
    receipt_path = Path(sealed.url) / "receipts" / f"{sealed.shards[shard].name}.json"
    receipt = edited("receipt", receipt_path, lambda _: None)
    table = change(decode_table((Path(sealed.url) / receipt["data"]["path"]).read_bytes()))
    data = encode_table(table)
    file = describe(data, table.num_rows, lambda sha: f"data/{receipt['shard']}-{sha[:16]}.parquet")
    store.write_bytes(str(Path(sealed.url) / file.path), data)
    made = {"data": asdict(file), "totals": {"duration": 2.0 * table.num_rows}}
    receipt = edited("receipt", receipt_path, lambda value: value.update(made))
    seal: dict[str, Any] = dict(sealed.seal)
    seal["shards"][shard] |= {**receipt["data"], "totals": receipt["totals"]}
    paths = [Path(sealed.url) / "receipts" / f"{entry['name']}.json" for entry in seal["shards"]]
    shards = [edited("receipt", path, lambda _: None) for path in paths]
    digests = [
        [r["shard"], canonical.digest([r[k] and r[k]["sha256"] for k in ("data", "rejects", "quarantine")])]
        for r in shards
    ]
    seal["digest"] = canonical.digest([str(sealed.schema), digests])
    (Path(sealed.url) / "seal.json").write_bytes(checked.encode("seal", seal))


def test_a_sound_run_has_no_gap_and_exact_counts(out: Path) -> None:
    found = audit(out)
    assert not any(result.gaps for result in found.values())
    upper_ = found["upper"].to_json()
    assert [upper_[key] for key in ("records_in", "records_out", "rejected", "quarantined", "shards")] == [
        12,
        10,
        1,
        1,
        3,
    ]
    assert (found["copies"].records_in, found["copies"].records_out) == (10, 10)
    assert found["upper"].digest == find(out, "upper").digest


def test_a_moved_output_is_audited_in_its_new_place(out: Path, tmp_path: Path) -> None:
    shutil.move(out, tmp_path / "elsewhere")
    assert not any(result.gaps for result in audit(tmp_path / "elsewhere").values())


def test_a_missing_file(out: Path) -> None:
    path = find(out, "upper").shards[1].path
    (Path(find(out, "upper").url) / path).unlink()
    assert f"upper: {path}: the file is missing" in gaps(out)


def test_a_truncated_file(out: Path) -> None:
    path = Path(find(out, "upper").url) / find(out, "upper").shards[1].path
    path.write_bytes(path.read_bytes()[:-40])
    assert "bytes, " in gaps(out)
    assert "cannot be read" in gaps(out)


def test_a_flipped_byte(out: Path) -> None:
    path = Path(find(out, "upper").url) / find(out, "upper").shards[0].path
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert "not those that were committed" in gaps(out)


def test_a_lost_row_though_every_digest_fits(out: Path) -> None:
    rewrite(find(out, "upper"), 2, lambda table: table.slice(1))
    assert "shard 000002: 1 records are neither out nor rejected nor quarantined: t/00008" in gaps(out)


def test_a_duplicated_row_though_every_digest_fits(out: Path) -> None:
    rewrite(find(out, "upper"), 0, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert "1 ids occur more than once: t/00000" in gaps(out)


def test_a_row_of_another_shard_though_every_digest_fits(out: Path) -> None:
    stray = find(out, "upper").read(2).slice(0, 1)
    rewrite(find(out, "upper"), 0, lambda table: pa.concat_tables([table, stray]))
    assert "1 records were never given to it: t/00008" in gaps(out)
    assert "more than once: t/00008" in gaps(out)


def test_a_lost_copy_is_found_only_if_its_record_is_gone(out: Path) -> None:
    rewrite(find(out, "copies"), 0, lambda table: table.slice(2))
    assert "1 records are neither out nor rejected nor quarantined: t/00000" in gaps(out, "copies")


def test_an_edited_receipt(out: Path) -> None:
    path = Path(find(out, "upper").url) / "receipts" / "000000.json"
    edited("receipt", path, lambda receipt: receipt.update(rejected=0, records_in=3))
    assert "says in, out, rejected, quarantined = (3, 3, 0, 0), the stored files give (4, 3, 1, 0)" in gaps(out)


def test_a_missing_receipt(out: Path) -> None:
    (Path(find(out, "upper").url) / "receipts" / "000001.json").unlink()
    assert "receipts/000001.json: is missing" in gaps(out)


def test_an_edited_seal(out: Path) -> None:
    path = Path(find(out, "upper").url) / "seal.json"
    edited("seal", path, lambda seal: seal.update(rejected=5))
    assert "seal.json: says rejected = 5, the stored files give 1" in gaps(out)


def test_a_plan_that_leaves_rows_out(out: Path) -> None:
    path = Path(find(out, "upper").url) / "step.json"

    def shorten(plan: dict[str, Any]) -> None:
        plan["shards"][2]["slices"][0][2] -= 1

    edited("plan of a step", path, shorten)
    assert "rows 11 to 12 of in/" in gaps(out)


def test_an_input_that_is_gone(out: Path) -> None:
    shutil.rmtree(out / "in")
    assert "upper: input: the set" in gaps(out)


def test_a_folder_without_sets_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sealed set is here or below"):
        list(audit_below(str(tmp_path)))
    (tmp_path / "notes").write_text("x")
    with pytest.raises(UserError, match="no sealed set is here or below"):
        list(audit_below(str(tmp_path / "notes")))


def test_files_of_others_are_left_alone(out: Path) -> None:
    before = audit(out)
    for place in (out, out / "in"):
        (place / "NOTES").write_text("x")
    assert audit(out) == before


@pytest.mark.parametrize("torn", [b"", b'{"digest": "12', b"{}", b"[]", b"\xff\xfe"])
def test_a_torn_seal_is_a_gap_of_its_set_and_the_others_are_audited(out: Path, torn: bytes) -> None:
    (Path(find(out, "upper").url) / "seal.json").write_bytes(torn)
    found = audit(out)
    assert sorted(found) == ["copies", "in", "upper"]
    assert "upper: seal.json: cannot be read" in found["upper"].gaps[0]
    assert "copies: input: the set" in found["copies"].gaps[0]
    assert not found["in"].gaps
    states = {state.name: state.state for state in read_status(str(out))}
    assert states == {"in": "sealed", "copies": "sealed", "upper": "unreadable"}


@pytest.mark.parametrize("torn", [b"", b'{"digest": "12', b"{}", b"[]"])
def test_a_torn_artifact_is_a_gap(out: Path, torn: bytes) -> None:
    put_artifact(str(out / "count" / "0"), {"n.txt": b"1"}, {})
    assert not any(result.gaps for result in audit(out).values())
    (out / "count" / "0" / "artifact.json").write_bytes(torn)
    assert "artifact.json: cannot be read" in gaps(out, "count")


def test_a_changed_file_of_an_artifact(out: Path) -> None:
    made = put_artifact(str(out / "count" / "0"), {"n.txt": b"1"}, {})
    Path(made.url, made.files["n.txt"]).write_bytes(b"2")
    assert f"{made.files['n.txt']}: its bytes are not those that were committed" in gaps(out, "count")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input_digests", None),
        ("input_digests", ["0" * 64]),
        ("artifacts", {"model": "0" * 64}),
        ("fingerprint", "0" * 64),
        ("name", "lower"),
    ],
)
def test_a_seal_whose_lineage_is_not_that_of_its_plan(out: Path, key: str, value: Any) -> None:
    edited("seal", Path(find(out, "upper").url) / "seal.json", lambda seal: seal.update({key: value}))
    found = [gap for result in audit(out).values() for gap in result.gaps]
    assert any("seal.json: says " + key in gap or "the seal names no input" in gap for gap in found)


def test_a_file_beside_an_artifact_is_audited(out: Path) -> None:
    store.write_bytes(str(out / "bank" / "0" / "samples" / "a.raw"), b"12")
    beside = {"samples/a.raw": canonical.sha256(b"12")}
    put_artifact(str(out / "bank" / "0"), {"index.json": b"{}"}, {}, beside=beside)
    assert "bank" not in audit(out)
    (out / "bank" / "0" / "samples" / "a.raw").write_bytes(b"13")
    assert "samples/a.raw: its bytes are not those" in gaps(out, "bank")


@pytest.mark.parametrize("name", ["step.json", "receipts/000001.json"])
def test_a_torn_plan_or_receipt(out: Path, name: str) -> None:
    (Path(find(out, "upper").url) / name).write_bytes(b'{"shards": [')
    assert f"upper: {name}: cannot be read" in gaps(out)
