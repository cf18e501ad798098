"""A node that is called back gets no more shards, and the step ends as it would have."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.engine import run_step
from tests.fault.law_actors import corpus, law_step


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_draining_node_is_left(tmp_path: Path) -> None:
    source = corpus(str(tmp_path / "corpus"), 40)
    digest = run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), 1).digest
    command = [sys.executable, "-m", "tests.fault.node_drain", source.url, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    made, left, after = done.stdout.split()[-3:]
    assert made == digest
    assert int(left) > 0, "the workers stayed on the node to the end"
    assert int(after) == 0, "the node got work again"
