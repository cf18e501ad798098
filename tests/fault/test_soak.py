"""The soak, short: a few random kills, and every recipe comes out as if there had been none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.weed import find_weed

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills() -> None:
    pytest.importorskip("ray")
    find_weed()
    command = [sys.executable, "-m", "benchmarks.soak", "--kills", "10", "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert done.stdout.splitlines()[-2].split()[:2] == ["all", "10"]
