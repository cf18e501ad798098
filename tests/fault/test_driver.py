"""Laws 3 and 4: the driver is killed at each crash point, and the next run makes only what was in flight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.engine import run_step
from tests.fault.law_actors import corpus, law_step
from tests.fault.trees import calls_by_shard, listing, receipts

SHARDS = 6


def drive(source: str, out: Path, runner: str, point: str, note: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fault.driver", source, str(out), runner, point, str(note)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize(
    ("point", "committed"), [("mid-shard", 2), ("after-data", 2), ("after-receipt", 3), ("seal", SHARDS)]
)
def test_killed_driver_resumes(tmp_path: Path, point: str, committed: int) -> None:
    source = corpus(str(tmp_path / "corpus"), SHARDS)
    undisturbed = run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), 1)
    out, note = tmp_path / "out", tmp_path / "note"

    killed = drive(source.url, out, "inprocess", point, note)
    assert killed.returncode == -9, killed.stderr
    before = receipts(out / "law")
    assert len(before) == committed
    assert not list(out.rglob("seal.json"))

    again = run_step(law_step(source, note), str(out), InProcessRunner(), 1)
    assert again.digest == undisturbed.digest
    after = receipts(out / "law")
    assert {shard: after[shard] for shard in before} == before, "a committed shard was written again"
    twice = [shard for shard, count in calls_by_shard(note).items() if count > 1]
    assert len(twice) <= 1, "more than the shard in flight was done again"
    assert not set(twice) & set(before), "a committed shard was done again"

    left, noted = listing(out), listing(note)
    third = run_step(law_step(source, note), str(out), InProcessRunner(), 1)
    assert third.digest == undisturbed.digest
    assert listing(out) == left, "a finished run wrote something"
    assert listing(note) == noted, "a finished run called an actor"


def test_killed_driver_on_ray_is_taken_up(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    source = corpus(str(tmp_path / "corpus"), 10)
    undisturbed = run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), 1)
    out, note = tmp_path / "out", tmp_path / "note"
    assert drive(source.url, out, "ray", "heard", note).returncode == -9
    before = receipts(out / "law")
    assert 3 <= len(before) < 10
    again = run_step(law_step(source, note, 0.05), str(out), InProcessRunner(), 1)
    assert again.digest == undisturbed.digest
    after = receipts(out / "law")
    late = [shard for shard in before if after[shard] != before[shard]]
    assert not late, "a committed shard was written again"
    assert sum(count > 1 for count in calls_by_shard(note).values()) <= 4, "two workers hold two shards each"
