"""What killed drivers left of their own Rays is taken away, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gristmill.cluster import janitor
from gristmill.shards import owner

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from gristmill.cluster import janitor
temp, spill, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
claim = janitor.claim(temp)
session = temp / f"{claim.since}_{os.getpid()}"
(session / "logs").mkdir(parents=True)
spilled = spill / (janitor.SPILLED + "1")
spilled.mkdir(parents=True)
if stage == "started":
    claim.began([str(session), str(spilled)])
command = [sys.executable, "-c", "import time; time.sleep(600)"]
marked = os.environ | {janitor.MARK: claim.driver}
left = subprocess.Popen(command, env=marked, start_new_session=True, stdout=subprocess.DEVNULL)
print(left.pid, session, spilled, flush=True)
time.sleep(600)
"""


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    if not owner.machine():
        pytest.skip("this system does not tell which machine it is")
    return tmp_path / "ray"


def driver(temp: Path, stage: str = "started") -> tuple[subprocess.Popen[str], psutil.Process, Path, Path]:
    """Start a driver that has claimed a session; return it, a process of the session, and the session's folders."""
    command = [sys.executable, "-c", DRIVER, str(temp), str(temp.parent / "spill"), stage]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    left, session, spilled = process.stdout.readline().split()
    return process, psutil.Process(int(left)), Path(session), Path(spilled)


@pytest.mark.parametrize("stage", ["started", "starting"])
def test_what_a_killed_driver_left_is_taken_away(temp: Path, stage: str) -> None:
    killed, left, session, spilled = driver(temp, stage)
    others = temp / session.name.replace("session_2", "session_1"), temp / "session_latest"
    others[0].mkdir()  # by the same process id, long before
    others[1].symlink_to(session)
    try:
        janitor.clean(temp)
        assert session.is_dir(), "its driver lives"
        assert left.is_running(), "its driver lives"
        killed.kill()
        killed.wait()
        janitor.clean(temp)
        left.wait(10)
    finally:
        killed.kill()
        if left.is_running():
            left.kill()
    assert not session.exists()
    assert spilled.exists() == (stage == "starting"), "nothing is spilled before a session has started"
    assert not others[1].is_symlink()
    assert others[0].is_dir()
    assert not list(temp.glob("gristmill-*/*"))


@pytest.mark.parametrize("change", [{"machine": "another"}, {"driver": owner.process()}, {"driver": "torn"}])
def test_what_may_be_in_use_is_left(temp: Path, change: dict[str, str]) -> None:
    claim = janitor.claim(temp)
    session = temp / f"{claim.since}_{os.getpid()}"
    session.mkdir()
    claim.driver = "1@1"
    claim.began([str(session)])
    assert claim.path is not None
    claim.path.write_text(json.dumps(json.loads(claim.path.read_text()) | change))
    janitor.clean(temp)
    assert session.is_dir()


def test_a_claim_names_no_folder_but_a_sessions(temp: Path) -> None:
    claim = janitor.claim(temp)
    claim.driver = "1@1"
    (temp / "session_x").symlink_to(temp.parent)
    (temp.parent / "mine").mkdir()
    claim.began([str(temp.parent / "mine"), str(temp / "session_x"), str(temp / "missing")])
    janitor.clean(temp)
    assert (temp.parent / "mine").is_dir()
    assert claim.path is not None
    assert not claim.path.exists()


def test_a_folder_that_cannot_be_written_hinders_no_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    janitor.clean(tmp_path / "file" / "ray")
    janitor.claim(tmp_path / "file" / "ray").began(["x"])


def test_a_process_that_stands_still_has_not_ended(temp: Path) -> None:
    stopped, left, session, _ = driver(temp)
    try:
        stopped.send_signal(signal.SIGSTOP)
        janitor.clean(temp)
        assert session.is_dir()
    finally:
        stopped.kill()
        left.kill()
