"""Laws 2 and 6: whatever breaks, each record is accounted for, and a bad one costs itself only."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import Alarm, TooManyQuarantined
from gristmill.shards.index import Cut
from gristmill.shards.parquet import read_table
from gristmill.shards.receipt import commit
from gristmill.shards.stage import BatchLimits, Stage
from gristmill.shards.step import ShardTask, Step, joined_schema
from tests.fault.law_actors import HERE, ROWS, corpus, law_step, table, upper
from tests.fault.trees import listing


def task_of(step: Step, out: Path) -> ShardTask:
    schema = joined_schema(step.input.schema, ())
    return ShardTask(str(out), step.stages, step.schema, schema, 1, step.deterministic)


def test_poison_costs_one_record(tmp_path: Path) -> None:
    source = corpus(str(tmp_path / "corpus"), 5, 40)
    sealed = run_step(Step("s", (upper(["r002-0017"]),), source), str(tmp_path / "out"), InProcessRunner(), 1)
    assert (sealed.seal["records_in"], sealed.seal["records_out"], sealed.seal["quarantined"]) == (200, 199, 1)
    assert sealed.seal["errors"] == {"upper: ValueError: this record is poison": 1}
    (side,) = sealed.side("quarantine")
    assert read_table(sealed.url, side)["id"].to_pylist() == ["r002-0017"]


def test_too_many_broken_records_stop_the_run(tmp_path: Path) -> None:
    poison = [f"r{shard:03d}-{row:04d}" for shard in range(5) for row in (3, 4)]
    step = Step("s", (upper(poison),), corpus(str(tmp_path / "corpus"), 10, 40))
    with pytest.raises(TooManyQuarantined, match=r"Most common: 6 x upper: ValueError: this record is poison"):
        run_step(step, str(tmp_path / "out"), InProcessRunner(), 1)
    assert not list((tmp_path / "out").rglob("seal.json"))


def test_device_memory_error_halves_the_batch(tmp_path: Path) -> None:
    fields = (pa.field("upper", pa.string()),)
    small = Stage("upper", f"{HERE}:SmallDevice", fields, params={"rows": 5}, batch=BatchLimits(rows=16))
    sealed = run_step(
        Step("s", (small,), corpus(str(tmp_path / "corpus"), 2, 20)), str(tmp_path / "out"), InProcessRunner(), 1
    )
    assert (sealed.records, sealed.seal["quarantined"]) == (40, 0)


def test_late_attempt_with_the_same_content_changes_nothing(tmp_path: Path) -> None:
    step = law_step(corpus(str(tmp_path / "corpus"), 2))
    out = tmp_path / "out"
    task = task_of(step, out)
    spec = step.index()[0]

    def make() -> object:
        work = task.open(spec)
        for place in range(3):
            work = task.worker(place)(work)
        return work

    first, late = make(), make()
    receipt = task.commit(first)  # type: ignore[arg-type]
    before = {name: size for name, (size, _) in listing(out).items()}
    assert task.commit(late).digest == receipt.digest  # type: ignore[arg-type]
    assert {name: size for name, (size, _) in listing(out).items()} == before


def test_late_attempt_with_other_content_is_an_alarm(tmp_path: Path) -> None:
    source = corpus(str(tmp_path / "corpus"), 1)
    clock = Stage("clock", f"{HERE}:Clock", (pa.field("at", pa.int64()),))
    for deterministic in (True, False):
        stage = dataclasses.replace(clock, deterministic=deterministic)
        step = Step("s", (stage,), source)
        task = task_of(step, tmp_path / str(deterministic))
        spec = step.index()[0]
        works = [task.worker(0)(task.open(spec)) for _ in range(2)]
        first = task.commit(works[0])
        if deterministic:
            with pytest.raises(Alarm, match="came out twice"):
                task.commit(works[1])
        else:
            assert task.commit(works[1]).digest == first.digest
        files = [name for name in listing(tmp_path / str(deterministic)) if name.endswith(".parquet")]
        assert len(files) == 1, "what the late attempt wrote must be gone"
        assert commit(task.url, first).digest == first.digest


class Moody:
    """Does to each record what its text says: keep, reject, break, or make copies of it."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            if row["text"] == "break":
                raise ValueError("broken")
            copies = int(row["text"]) if row["text"].isdigit() else 1
            for copy in range(copies):
                turned = row["text"] == "reject" or (copies > 1 and copy == 1)
                made = {**row, "id": f"{row['id']}~{copy}", "parent_id": row["id"]}
                rows.append({**made, "reject_reason": "moody" if turned else None})
        fields = [*batch.schema, pa.field("parent_id", pa.string()), pa.field("reject_reason", pa.string())]
        return pa.Table.from_pylist(rows, schema=pa.schema(fields))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    moods=st.lists(st.sampled_from(["keep", "reject", "break", "1", "2", "3"]), min_size=1, max_size=30),
    parts=st.integers(1, 4),
    cut=st.builds(Cut, rows=st.integers(1, 9), seconds=st.floats(1.0, 30.0), bytes=st.just(1 << 20)),
    batch=st.builds(BatchLimits, st.integers(1, 8), st.sampled_from([None, "duration"]), st.floats(1.0, 40.0)),
)
def test_every_record_is_accounted_for(moods: list[str], parts: int, cut: Cut, batch: BatchLimits) -> None:
    whole = table(0, len(moods)).set_column(1, ROWS.field("text"), pa.array(moods, pa.string()))
    size = -(-len(moods) // parts)
    with tempfile.TemporaryDirectory() as folder:
        tables = [whole.slice(start, size) for start in range(0, len(moods), size)]
        source = seal_tables(f"{folder}/corpus", "corpus", tables)
        moody = Stage("moody", f"{__name__}:Moody", fan_out=True, batch=batch)
        step = Step("s", (moody,), source, cut=cut, max_quarantine=1.0)
        sealed = run_step(step, f"{folder}/out", InProcessRunner(), 1)
        seal = sealed.seal
        assert seal["records_in"] == len(moods)
        assert seal["records_out"] + seal["rejected"] + seal["quarantined"] == len(moods)
        assert seal["quarantined"] == moods.count("break")
        assert seal["rejected"] == moods.count("reject")
        parents = [parent for part in sealed.tables(["parent_id"]) for parent in part["parent_id"].to_pylist()]
        kept = {"keep": 1, "1": 1, "2": 1, "3": 2}
        wanted = [
            name for name, mood in zip(whole["id"].to_pylist(), moods, strict=True) for _ in range(kept.get(mood, 0))
        ]
        assert parents == wanted, "rows keep the order of the records"
