"""Law 3: an attempt that froze while another finished the work wakes up, and does no harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.audit import audit_below
from gristmill.shards.engine import run_step
from tests.fault.law_actors import corpus, law_step
from tests.fault.trees import receipts


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file but those in the making: what the late attempt held open is its own to take away."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".part-"))
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("point", ["mid-shard", "after-data", "after-receipt", "seal"])
def test_a_late_attempt_changes_nothing(tmp_path: Path, point: str) -> None:
    source = corpus(str(tmp_path / "corpus"))
    undisturbed = run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), 1)
    out, note = tmp_path / "out", tmp_path / "note"
    command = [sys.executable, "-m", "tests.fault.zombie", source.url, str(out), "inprocess", point, str(note)]
    zombie = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, status = os.waitpid(zombie.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), zombie.communicate()
        second = run_step(law_step(source, note), str(out), InProcessRunner(), 1)
        assert second.digest == undisturbed.digest
        left, times = contents(out), receipts(out)

        zombie.send_signal(signal.SIGCONT)
        output, errors = zombie.communicate(timeout=200)
        assert (zombie.returncode, output.strip()) == (0, undisturbed.digest), errors
    finally:
        zombie.kill()
        zombie.wait()
    assert contents(out) == left, "the late attempt left something else behind"
    assert not list(out.rglob(".part-*"))
    assert receipts(out) == times, "the late attempt wrote a receipt again"
    assert [gap for audit in audit_below(str(out)) for gap in audit.gaps] == []
