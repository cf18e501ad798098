"""The disk fills up during a run: it stops with a sentence, leaves no partial result, and resumes later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.audit import audit_below
from gristmill.shards.canonical import sha256
from gristmill.shards.disk import PART
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.errors import UserError
from gristmill.shards.lease import Lease
from gristmill.shards.receipt import Receipt
from tests.fault.law_actors import corpus, law_step

RECORDS = 400  # in shards of 4, of which each fills two pages of the disk or more
SMALL, LARGE = "size=512k", "size=64m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, small at first."""
    if os.geteuid() != 0:
        pytest.skip("a disk of its own needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this container lets no test mount a disk: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run(tmp_path: Path, out: Path) -> tuple[int, str, str]:
    config = tmp_path / "disk.yaml"
    config.write_text("recipe: tests.fault.two_runs\nrunner: inprocess\n")
    words = [
        sys.executable,
        "-m",
        "gristmill.pipelines.command.cli",
        "run",
        str(config),
        f"out={out}",
        f"records={RECORDS}",
    ]
    words += [f"note={tmp_path}/note", f"hold={tmp_path}/hold"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    return done.returncode, done.stdout, done.stderr


def digests(out: Path) -> dict[str, str]:
    found = list(audit_below(str(out)))
    assert [gap for one in found for gap in one.gaps] == []
    return {one.name: one.digest for one in found}


def test_a_full_disk(disk: Path, tmp_path: Path) -> None:
    out = disk / "out"
    code, _, output = run(tmp_path, out)
    assert code == 2, output
    assert "Traceback" not in output
    assert "no space left on the device" in output.splitlines()[-1]

    assert list(out.rglob(".part-*")) == []
    committed = list(out.rglob("slow/*/receipts/*.json"))
    assert 0 < len(committed) < RECORDS // 4
    for path in committed:
        receipt = json.loads(path.read_text())
        assert sha256((path.parents[1] / receipt["data"]["path"]).read_bytes()) == receipt["data"]["sha256"]
    before = {path: path.stat().st_mtime_ns for path in committed}

    subprocess.run(["mount", "-o", f"remount,{LARGE}", str(disk)], check=True)
    code, _, output = run(tmp_path, out)
    assert code == 0, output
    assert {path: path.stat().st_mtime_ns for path in committed} == before, "a committed shard was written again"
    assert run(tmp_path, tmp_path / "whole")[0] == 0
    assert digests(out) == digests(tmp_path / "whole")


def test_a_disk_that_turns_read_only(disk: Path, tmp_path: Path) -> None:
    """As the kernel turns a file system whose device fails."""
    subprocess.run(["mount", "-o", f"remount,{LARGE}", str(disk)], check=True)
    step = law_step(corpus(str(tmp_path / "corpus"), 4))
    turned = []

    class Turn(Progress):
        def advance(self, receipt: Receipt) -> None:
            if not turned:
                turned.append(subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True))

    lease = Lease(str(disk / "out"))
    lease.take(lambda text: pytest.fail(text))
    with pytest.raises(UserError, match="the file system is read-only"):
        run_step(step, str(disk / "out"), InProcessRunner(), 1, Turn())
    lease.release()
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert list(disk.rglob(f"{PART}*")) == []
    sealed = run_step(step, str(disk / "out"), InProcessRunner(), 1)
    assert sealed.digest == run_step(step, str(tmp_path / "whole"), InProcessRunner(), 1).digest
