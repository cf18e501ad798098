"""Temporary folders: gone at the end, and those of killed processes at the next beginning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gristmill.shards import owner
from gristmill.shards.scratch import scratch
from gristmill.shards.work import steady

KILLED = """
import os, signal
from gristmill.shards.scratch import scratch
with scratch() as folder:
    (folder / "model").write_bytes(b"1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_at_the_next_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not owner.machine():
        pytest.skip("this system does not tell which machine it is")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [tmp_path / name for name in ("gristmill-0", "gristmill-0badcafe-1-1-x", "other")]
    for path in others:
        path.mkdir()
    with scratch() as first, scratch() as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second, *others]), "of live processes, they stay"
        assert steady(f"cannot open {first}/model: no") == "cannot open tmp*/model: no"
    assert sorted(tmp_path.iterdir()) == sorted(others)
