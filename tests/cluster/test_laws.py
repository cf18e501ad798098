"""Law 1 and its kin on Ray: the same bytes whatever the workers, and whatever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.errors import Damaged, TooManyQuarantined, UserError
from gristmill.shards.receipt import Receipt
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step
from gristmill.shards.work import ContractError
from tests.fault.law_actors import HERE, corpus, law_step, upper
from tests.fault.trees import calls_by_shard, listing, receipts

pytestmark = pytest.mark.usefixtures("ray_session")
SHARDS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SealedSet:
    return corpus(str(tmp_path_factory.mktemp("corpus")), SHARDS)


@pytest.fixture(scope="module")
def digest(source: SealedSet, tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_step(law_step(source), str(tmp_path_factory.mktemp("whole")), InProcessRunner(), 1).digest


@pytest.mark.parametrize(
    ("workers", "apart"),
    [
        (1, True),
        pytest.param(2, False, marks=pytest.mark.slow),
        pytest.param(2, True, marks=pytest.mark.slow),
        (4, True),
    ],
)
def test_one_digest_whatever_the_workers(
    tmp_path: Path, source: SealedSet, digest: str, workers: int, apart: bool
) -> None:
    """``apart`` gives each of three stages its own pool: with one and two CPUs, fewer than pools."""
    sealed = run_step(law_step(source, apart=apart), str(tmp_path), RayRunner(workers), 1)
    assert sealed.digest == digest
    before = listing(tmp_path)
    assert run_step(law_step(source, apart=apart), str(tmp_path), RayRunner(workers), 1).digest == digest
    assert listing(tmp_path) == before


class Killer(Progress):
    """Kills the workers that were called by the time of the first receipt."""

    def __init__(self, note: Path) -> None:
        self.note = note
        self.killed: set[int] = set()
        self.inflight: set[str] = set()

    def advance(self, receipt: Receipt) -> None:
        if self.killed:
            return
        self.killed = {int(path.name.split("-")[1]) for path in self.note.glob("*")}
        for pid in self.killed:
            os.kill(pid, signal.SIGKILL)


def test_killed_actors_are_made_good(tmp_path: Path, source: SealedSet, digest: str) -> None:
    note = tmp_path / "note"
    killer = Killer(note)
    sealed = run_step(law_step(source, note, 0.05), str(tmp_path / "out"), RayRunner(2), 1, killer)
    assert killer.killed
    assert sealed.digest == digest
    again = sum(count > 1 for count in calls_by_shard(note).values())
    assert again <= 4, "two workers hold at most two shards each"


class Stop(Progress):
    """Interrupts the step when its first shard is committed."""

    def advance(self, receipt: Receipt) -> None:
        raise KeyboardInterrupt


def test_a_resumed_step_compares_what_was_committed(tmp_path: Path, source: SealedSet, digest: str) -> None:
    step = law_step(source)
    with pytest.raises(KeyboardInterrupt):
        run_step(step, str(tmp_path), RayRunner(2), 1, Stop())
    committed = {path.stem for path in tmp_path.rglob("receipts/*")}  # another shard may lie there without a receipt
    kept = next(path for path in sorted(tmp_path.rglob("data/*.parquet")) if path.name.split("-")[0] in committed)
    data = kept.read_bytes()
    kept.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Damaged, match=kept.name):
        run_step(step, str(tmp_path), RayRunner(2), 1)
    assert not list(tmp_path.rglob("seal.json"))
    kept.write_bytes(data)
    assert run_step(step, str(tmp_path), RayRunner(2), 1).digest == digest


def test_step_without_stages(tmp_path: Path, source: SealedSet) -> None:
    on_ray = run_step(Step("copy", (), source), str(tmp_path / "a"), RayRunner(2), 1)
    assert on_ray.digest == run_step(Step("copy", (), source), str(tmp_path / "b"), InProcessRunner(), 1).digest


@pytest.mark.parametrize(
    ("stage", "kind", "text"),
    [
        (Stage("s", f"{HERE}:Unbuildable"), UserError, "the model is not there"),
        (Stage("s", f"{HERE}:Upper"), None, ""),
        (Stage("s", f"{HERE}:Copies"), ContractError, "must give every row back"),
        (Stage("s", f"{HERE}:Upper", resources=Resources(gpus=1)), UserError, "the cluster has 0"),
    ],
)
def test_errors_come_as_they_are(
    tmp_path: Path, source: SealedSet, stage: Stage, kind: type[Exception] | None, text: str
) -> None:
    step = Step("s", (stage,), source)
    if kind is None:
        assert run_step(step, str(tmp_path), RayRunner(2), 1).records == source.records
        return
    if "Copies" in stage.actor:
        step = Step("s", (law_step(source).stages[0], stage), source)
    with pytest.raises(kind, match=text):
        run_step(step, str(tmp_path), RayRunner(2), 1)


def test_quarantine_limit_stops_early(tmp_path: Path) -> None:
    many = corpus(str(tmp_path / "corpus"), 40, 5)
    poison = [f"r{shard:03d}-{row:04d}" for shard in range(40) for row in range(5)]
    with pytest.raises(TooManyQuarantined, match="this record is poison"):
        run_step(Step("s", (upper(poison),), many), str(tmp_path / "out"), RayRunner(2), 1)
    assert len(receipts(tmp_path / "out")) < 40, "the run went on to the end"
    # What is left of the stopped run must not be in the way of the next.
    good = Step("good", (upper(),), many)
    assert run_step(good, str(tmp_path / "out"), RayRunner(2), 1).records == 200


def test_record_that_kills_its_worker_costs_one_record(tmp_path: Path, source: SealedSet) -> None:
    adds = (pa.field("upper", pa.string()),)
    deadly = Stage("deadly", f"{HERE}:Deadly", adds, params={"poison": ["r003-0011"]})
    sealed = run_step(Step("s", (deadly,), source), str(tmp_path / "out"), RayRunner(2), 1)
    assert (sealed.records, sealed.seal["quarantined"]) == (source.records - 1, 1)
    assert sealed.seal["errors"] == {"deadly: ProcessDied: this record ended the process (SIGSEGV)": 1}
    assert not list((tmp_path / "out").rglob("attempts/*")), "marks of work that was done are left"


@pytest.mark.slow
def test_killed_node_is_made_good(tmp_path: Path, source: SealedSet, digest: str) -> None:
    command = [sys.executable, "-m", "tests.fault.node_loss", source.url, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.stdout.split()[-1:] == [digest], done.stderr
