"""Laws 2 to 4 with two runs of one recipe: each shard is made once, and the death of one does not stop the other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gristmill.shards import store
from gristmill.shards.audit import audit_below
from gristmill.shards.lease import FOLDER, SETTING

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 10
SECONDS = 3.0  # after which a run is taken for dead
MET = "another run has been working at"


@dataclass
class Begun:
    """A run, and the file of what it says."""

    run: subprocess.Popen[bytes]
    said: Path

    def says(self, words: str) -> bool:
        return words in self.said.read_text()

    def ended(self) -> tuple[int, str]:
        self.run.wait(timeout=120)
        output = self.said.read_text()
        assert "Traceback" not in output, output
        return self.run.returncode, output


Start = Callable[[str], Begun]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run makes that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    with runs(folder) as begin:
        assert begin(f"{folder}/out").ended()[0] == 0
    return digests(f"{folder}/out")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start runs of the test."""
    with runs(tmp_path) as begin:
        yield begin


@contextlib.contextmanager
def runs(tmp_path: Path) -> Iterator[Start]:
    """Start `gristmill run` on a small recipe in a process of its own, which notes its batches and what it says."""
    config = tmp_path / "two.yaml"
    config.write_text("recipe: tests.fault.two_runs\nrunner: inprocess\n")
    started = []

    def begin(out: str) -> Begun:
        said = tmp_path / f"said.{len(started)}"
        words = [sys.executable, "-m", "gristmill", "run", str(config), f"out={out}"]
        words += [f"note={tmp_path}/note", f"hold={tmp_path}/hold"]
        env = os.environ | {"PYTHONPATH": str(ROOT), SETTING: str(SECONDS)}
        with said.open("w") as output:
            run = subprocess.Popen(words, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        started.append(run)
        return Begun(run, said)

    try:
        yield begin
    finally:
        for run in started:
            if run.poll() is None:
                run.kill()
                run.wait()


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file: while it exists, only the first two batches go through the slow stage."""
    path = tmp_path / "hold"
    path.write_text("2")
    return path


@pytest.fixture(params=["local", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the runs write."""
    if request.param == "local":
        return f"{tmp_path}/out"
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


def receipts(out: str) -> list[str]:
    return [
        name
        for folder in store.list_names(store.join(out, "slow"))
        if "." not in folder
        for name in store.list_names(store.join(out, "slow", folder, "receipts"))
        if name.endswith(".json")
    ]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def calls(tmp_path: Path) -> Counter[str]:
    return Counter(path.name.partition("-")[0] for path in (tmp_path / "note").iterdir())


def digests(out: str) -> dict[str, str]:
    found = list(audit_below(out))
    assert [gap for one in found for gap in one.gaps] == []
    return {one.name: one.digest for one in found}


def left(out: str) -> list[str]:
    return [name for name in store.list_names(store.join(out, FOLDER)) if name != FOLDER]


def test_the_second_waits_and_finds_all_done(
    start: Start, hold: Path, out: str, whole: dict[str, str], tmp_path: Path
) -> None:
    first = start(out)
    until(lambda: receipts(out))
    second = start(out)
    until(lambda: second.says(f"{MET} {out} since"))
    hold.unlink()
    assert first.ended()[0] == 0
    code, output = second.ended()
    assert code == 0, output
    assert "nothing to do" in output
    assert sorted(calls(tmp_path).values()) == [1] * SHARDS, "a shard was made twice"
    assert left(out) == []
    assert digests(out) == whole


def test_the_second_takes_over_from_one_that_was_killed(
    start: Start, hold: Path, out: str, whole: dict[str, str], tmp_path: Path
) -> None:
    first = start(out)
    until(lambda: len(receipts(out)) >= 2)
    second = start(out)
    until(lambda: second.says(MET))
    first.run.kill()
    hold.unlink()
    code, output = second.ended()
    assert code == 0, output
    made = calls(tmp_path)
    assert len(made) == SHARDS
    assert sum(made.values()) <= SHARDS + 1, "more than the shard in flight was made again"
    assert left(out) == []
    assert digests(out) == whole


def test_one_that_was_taken_for_dead_stops_when_it_wakes(
    start: Start, hold: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    out = f"{tmp_path}/out"
    first = start(out)
    until(lambda: receipts(out))
    first.run.send_signal(signal.SIGSTOP)
    second = start(out)
    until(lambda: "000002.json" in left(out))
    first.run.send_signal(signal.SIGCONT)
    code, output = first.ended()
    assert code == 1, output
    assert "another one took its place" in output.splitlines()[-1]
    hold.unlink()
    assert second.ended()[0] == 0
    assert left(out) == []
    assert digests(out) == whole
