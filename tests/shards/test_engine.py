"""Steps run end to end, on local disk and on object storage."""

from __future__ import annotations

import os
from dataclasses import replace

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, find_sealed, open_sealed, seal_tables
from gristmill.shards.engine import Progress, run_step, step_url
from gristmill.shards.errors import TooManyQuarantined, UserError
from gristmill.shards.index import Cut, Join
from gristmill.shards.receipt import Receipt
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step
from gristmill.shards.walking import walk
from tests.pipelines.tiny import breaks_second, texts, twice, upper


class Counting(Progress):
    def __init__(self) -> None:
        self.made: list[str] = []

    def advance(self, receipt: Receipt) -> None:
        self.made.append(receipt.shard)


class StopsAfter(InProcessRunner):
    """A runner that is killed after some shards."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.shards = shards

    def execute(self, task, specs):
        for number, receipt in enumerate(super().execute(task, specs)):
            if number == self.shards:
                raise KeyboardInterrupt
            yield receipt


def source(root: str, records: int = 12, special: dict[int, str] | None = None) -> SealedSet:
    url = store.join(root, "in", "-".join(map(str, special or ())) or "0")
    return seal_tables(url, "in", [texts(records, special)])


def sizes(url: str) -> dict[str, int]:
    return {file.url: file.size for file in walk(url)}


def test_a_step_end_to_end(root: str) -> None:
    step = Step("upper", (upper(2),), source(root, special={1: "drop", 6: "break"}), cut=Cut(rows=4))
    made = run_step(step, root, InProcessRunner(), 0)
    rows = [row for table in made.tables(["id", "upper"]) for row in table.to_pylist()]
    assert [row["id"] for row in rows] == [f"t/{i:05d}" for i in range(12) if i not in (1, 6)]
    assert rows[0]["upper"] == "TEXT 0TEXT 0"
    seal = made.seal
    assert [seal[k] for k in ("records_in", "records_out", "rejected", "quarantined")] == [12, 10, 1, 1]
    assert seal["reasons"] == {"upper: dropped": 1}
    assert seal["errors"] == {"upper: ValueError: this record breaks": 1}
    assert not any(result.gaps for result in audit_below(root))


def test_a_finished_step_is_neither_run_nor_written_again(root: str) -> None:
    step = Step("upper", (upper(),), source(root), cut=Cut(rows=4))
    first = run_step(step, root, InProcessRunner(), 0)
    before, heard = sizes(root), Counting()
    assert run_step(step, root, StopsAfter(0), 0, heard).digest == first.digest
    assert sizes(root) == before
    assert heard.made == []


def test_after_a_stop_only_the_missing_shards_are_made(root: str, tmp_path) -> None:
    step = Step("upper", (upper(),), source(root), cut=Cut(rows=4))
    with pytest.raises(KeyboardInterrupt):
        run_step(step, root, StopsAfter(1), 0)
    heard = Counting()
    made = run_step(step, root, InProcessRunner(), 0, heard)
    # The runner was stopped after the second shard's commit, before it was reported.
    assert heard.made == ["000002"]
    whole = Step("upper", (upper(),), source(str(tmp_path / "b")), cut=Cut(rows=4))
    assert run_step(whole, str(tmp_path / "b"), InProcessRunner(), 0).digest == made.digest


def test_a_resumed_step_does_not_cut_its_input_anew(root: str) -> None:
    given = seal_tables(store.join(root, "in", "two"), "in", [texts(8), texts(16).slice(8)])
    step = Step("upper", (upper(),), given, cut=Cut(rows=4))
    with pytest.raises(KeyboardInterrupt):
        run_step(step, root, StopsAfter(1), 0)
    store.remove(store.join(given.url, given.shards[0].path))  # both shards made from it are committed
    made = run_step(step, root, InProcessRunner(), 0)
    assert [entry.rows for entry in made.shards] == [4, 4, 4, 4]
    assert made.read(3)["id"].to_pylist() == [f"t/{i:05d}" for i in range(12, 16)]


def test_a_finished_step_costs_one_read(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step("upper", (upper(),), source(root), cut=Cut(rows=4))
    run = Run(root, InProcessRunner())
    run.step(step)
    run.finish()
    read, plain = [], store.read_bytes
    monkeypatch.setattr(store, "read_bytes", lambda url: read.append(url) or plain(url))
    sealed = run.step(step)
    run.finish()
    assert read == [store.join(sealed.url, "seal.json")]
    assert run.trace[1].summary["shards"] == 3


def test_copies_are_counted_by_their_record(root: str) -> None:
    made = run_step(Step("copies", (twice(),), source(root)), root, InProcessRunner(), 0)
    assert made.records == 24
    assert (made.seal["records_in"], made.seal["records_out"]) == (12, 12)


def test_a_join_adds_columns_and_rejects_records_without_a_partner(root: str) -> None:
    given = source(root)
    louder = run_step(Step("upper", (upper(),), source(root, special={1: "drop"})), root, InProcessRunner(), 0)
    copies = run_step(Step("copies", (twice(),), given), root, InProcessRunner(), 0)
    by_copy = Step("joined", (), copies, joins=(Join(louder, ("upper",), on="parent_id"),))
    made = run_step(by_copy, root, InProcessRunner(), 0)
    assert made.records == 22
    assert made.read(0)["upper"].to_pylist()[:3] == ["TEXT 0", "TEXT 0", "TEXT 2"]
    assert made.seal["reasons"] == {"join: no partner": 2}
    assert not any(result.gaps for result in audit_below(root))


def test_requeued_records_find_their_partners_and_are_found(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step("upper", (upper(),), source(root, special={6: "break"}), cut=Cut(rows=4))
    run_step(step, root, InProcessRunner(), 0)
    copied = run_step(
        Step("copied", (), source(root, special={6: "break"}), cut=Cut(rows=4)), root, InProcessRunner(), 0
    )
    monkeypatch.setenv("TINY_MENDED", "1")
    mended = run_step(step, root, InProcessRunner(), 0, requeue=True)
    assert len(mended.shards) == 4
    for source_set, join in ((mended, Join(copied, ())), (copied, Join(mended, ("upper",)))):
        made = run_step(Step("joined", (), source_set, joins=(join,)), root, InProcessRunner(), 0)
        assert (made.records, made.seal["rejected"]) == (12, 0)


def test_too_many_broken_records_stop_the_run_and_keep_the_work(root: str) -> None:
    special = dict.fromkeys(range(6), "break")
    step = Step("upper", (upper(),), source(root, special=special), cut=Cut(rows=4))
    with pytest.raises(TooManyQuarantined, match="4 x upper: ValueError: this record breaks"):
        run_step(step, root, InProcessRunner(), 0)
    assert find_sealed(step_url(root, step, 0)) is None


def test_requeued_records_take_their_place(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step("upper", (upper(),), source(root, special={6: "break"}), cut=Cut(rows=4))
    first = run_step(step, root, InProcessRunner(), 0)
    assert first.seal["quarantined"] == 1
    monkeypatch.setenv("TINY_MENDED", "1")
    assert run_step(step, root, InProcessRunner(), 0).digest == first.digest
    second = run_step(step, root, InProcessRunner(), 0, requeue=True)
    assert second.digest != first.digest
    assert open_sealed(second.url).digest == second.digest
    assert [second.seal[k] for k in ("records_in", "records_out", "quarantined")] == [12, 12, 0]
    assert second.records == 12
    assert not any(result.gaps for result in audit_below(root))
    before = sizes(root)
    run_step(step, root, InProcessRunner(), 0, requeue=True)
    assert sizes(root) == before


def test_a_stopped_step_resumes_once_fixed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    special = dict.fromkeys(range(6), "break")
    step = Step("upper", (upper(),), source(root, special=special), cut=Cut(rows=2))
    for requeue, earlier in ((False, False), (False, True), (True, False)):  # unless fixed, it stops again
        with pytest.raises(TooManyQuarantined, match="2 x upper: ValueError: this record breaks") as stopped:
            run_step(step, root, InProcessRunner(), 0, requeue=requeue)
        assert ("broke in an earlier run and were not tried again" in str(stopped.value)) is earlier
        assert "`gristmill requeue`, or from Python with Run(..., requeue=True)" in str(stopped.value)
    monkeypatch.setenv("TINY_MENDED", "1")
    heard = Counting()
    made = run_step(step, root, InProcessRunner(), 0, heard, requeue=True)
    assert heard.made == [f"{number:06d}" for number in range(1, 6)], "what was committed is kept"
    assert [made.seal[k] for k in ("records_in", "records_out", "quarantined")] == [12, 12, 0]
    assert (made.seal["errors"], made.seal["quarantine"]) == ({}, [])
    assert not any(result.gaps for result in audit_below(root))


class Picky:
    """Fails on all records except those named in the environment."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        if set(batch["id"].to_pylist()) - set(os.environ.get("PICKY", "").split()):
            raise ValueError("not this one")
        return batch


def picky(root: str, records: int) -> Step:
    return Step("picky", (Stage("picky", f"{__name__}:Picky"),), source(root, records), max_quarantine=1.0)


def test_requeued_records_that_fail_again_change_nothing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    step = picky(root, 3)
    first = run_step(step, root, InProcessRunner(), 0)
    before = sizes(root)
    assert run_step(step, root, InProcessRunner(), 0, requeue=True).digest == first.digest
    assert sizes(root) == before
    monkeypatch.setenv("PICKY", "t/00001")
    second = run_step(step, root, InProcessRunner(), 0, requeue=True)
    assert second.seal["errors"] == {"picky: ValueError: not this one": 2}, "only what is still in quarantine"
    assert [side["shard"] for side in second.seal["quarantine"]] == ["000000-r1"]
    before = sizes(root)
    assert run_step(step, root, InProcessRunner(), 0, requeue=True).digest == second.digest
    assert sizes(root) == before
    assert not any(result.gaps for result in audit_below(root))


def test_many_requeues_keep_the_order_of_records(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    step = picky(root, 12)
    for number in range(12):
        monkeypatch.setenv("PICKY", f"t/{number:05d}")
        made = run_step(step, root, InProcessRunner(), 0, requeue=True)
    ids = [record for table in made.tables(["id"]) for record in table["id"].to_pylist()]
    assert ids == [f"t/{number:05d}" for number in range(12)]
    assert (made.seal["quarantined"], made.seal["errors"]) == (0, {})
    assert not any(result.gaps for result in audit_below(root))


def test_requeues_of_a_requeued_set_have_their_own_names(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    step = picky(root, 3)
    monkeypatch.setenv("PICKY", "t/00000 t/00001")
    run_step(step, root, InProcessRunner(), 0)
    monkeypatch.setenv("PICKY", "t/00000 t/00001 t/00002")
    given = run_step(step, root, InProcessRunner(), 0, requeue=True)
    assert [entry.name for entry in given.shards] == ["000000", "000000-r1"]
    after = Step("after", (Stage("picky", f"{__name__}:Picky"),), given, max_quarantine=1.0)
    monkeypatch.setenv("PICKY", "t/00000 t/00002")
    run_step(after, root, InProcessRunner(), 0)
    monkeypatch.setenv("PICKY", "t/00001")
    made = run_step(after, root, InProcessRunner(), 0, requeue=True)
    assert [entry.name for entry in made.shards] == ["000000", "000000-r2", "000000-r1"]
    assert (made.records, made.seal["quarantined"]) == (3, 0)
    assert not any(result.gaps for result in audit_below(root))


def test_a_record_with_a_copy_in_the_output_is_not_requeued(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(tmp_path)
    step = Step("copies", (twice(), breaks_second(), upper()), source(root, special={7: "break"}), max_quarantine=0.2)
    first = run_step(step, root, InProcessRunner(), 0)
    assert (first.records, first.seal["records_out"], first.seal["quarantined"]) == (21, 11, 1)
    monkeypatch.setenv("TINY_MENDED", "1")
    second = run_step(step, root, InProcessRunner(), 0, requeue=True)
    ids = [record for table in second.tables(["id"]) for record in table["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 23
    assert second.seal["quarantined"] == 0
    assert second.seal["errors"] == {"second: ValueError: this copy breaks": 1}, "the copy that is still broken"
    assert not any(result.gaps for result in audit_below(root))


def test_the_command_on_object_storage(bucket: str, tmp_path) -> None:
    from typer.testing import CliRunner

    from gristmill.pipelines.command.cli import app

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"recipe: tests.pipelines.tiny\nout: {bucket}/command\nrunner: inprocess\n")

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    call("plan", str(recipe))
    assert f"report: {bucket}/command/report.html" in call("run", str(recipe))
    before = sizes(f"{bucket}/command")
    assert "nothing to do" in call("run", str(recipe))
    assert sizes(f"{bucket}/command") == before
    assert len(call("audit", f"{bucket}/command").splitlines()) == 3
    assert "5/5" in call("status", f"{bucket}/command")
    assert "TEXT 0" in call("inspect", f"{bucket}/command", "-n", "1")
    assert "put if absent holds" in CliRunner().invoke(app, ["doctor", f"{bucket}/command"]).stdout


def declaring(stage: Stage, *totals: str) -> Stage:
    return replace(stage, totals=totals)


def test_totals_that_a_stage_declares_are_kept_while_their_column_is_there(root: str) -> None:
    tables = [
        pa.table({"id": ["a", "b", "c"], "text": ["x", "yy", "drop"], "count": [1, 2, 4], "cost": [1.0, 2.0, 4.0]})
    ]
    source = seal_tables(store.join(root, "in"), "in", tables, totals=["cost"])
    plain = Step("upper", (upper(),), source)
    first = run_step(Step("upper", (declaring(upper(), "count"),), source), root, InProcessRunner(), 0)
    assert first.totals == ("cost", "count")
    assert [entry.totals for entry in first.shards] == [{"cost": 3.0, "count": 3.0}]
    assert step_url(root, plain, 0) == first.url  # totals are not in fingerprints
    second = run_step(Step("copies", (replace(twice(), drops=("cost",)),), first), root, InProcessRunner(), 0)
    assert [entry.totals for entry in second.shards] == [{"count": 6.0}]
    joined = Step(
        "joined", (upper(3),), seal_tables(store.join(root, "ids"), "ids", [tables[0].select(["id", "text"])])
    )
    assert joined.totals == ()
    assert replace(joined, joins=(Join(first, ("count",)),)).totals == ("count",)


def test_a_total_of_a_non_numeric_column_is_rejected(root: str) -> None:
    for name in ("text", "missing"):
        with pytest.raises(UserError, match=f"stage upper: no total of '{name}'"):
            run_step(Step("upper", (declaring(upper(), name),), source(root)), root, InProcessRunner(), 0)
