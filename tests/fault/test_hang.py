"""A worker that stands still, which Ray does not find out: the run goes on by deadlines of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.audit import audit_below
from gristmill.shards.engine import run_step
from tests.fault.law_actors import HERE, corpus, law_step

SHARDS, ROWS = 6, 20


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local Ray of the test's own: a stopped worker would hold its CPU from those that come after."""
    pytest.importorskip("ray")
    from gristmill.cluster import session

    session.stop()
    monkeypatch.setenv("GRISTMILL_STALL_SECONDS", "5")
    session.start(2)
    yield
    session.stop()


def test_a_worker_that_stands_still_is_left_behind(
    tmp_path: Path, alone: None, capfd: pytest.CaptureFixture[str]
) -> None:
    from gristmill.cluster.ray_runner import RayRunner

    source = corpus(str(tmp_path / "corpus"), SHARDS, ROWS)
    undisturbed = run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), 1)
    step, flag = law_step(source), tmp_path / "stopped"
    params = {"record": f"r{SHARDS - 1:03d}-0000", "flag": str(flag)}
    hanging = replace(step.stages[0], actor=f"{HERE}:Stopped", params=params)
    done = run_step(replace(step, stages=(hanging, *step.stages[1:])), str(tmp_path / "out"), RayRunner(2), 1)
    assert done.digest == undisturbed.digest
    assert [gap for audit in audit_below(str(tmp_path / "out")) for gap in audit.gaps] == []
    assert "no shard arrived for" in capfd.readouterr().err
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(flag.read_text())).wait(60)  # nor does it stay, with what it holds
