"""A signal whose interrupt C code swallows ends a run all the same, before anything wrong is committed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.actors.audio import encode
from tests.actors.sources.encode import tone

ROOT = Path(__file__).resolve().parents[3]
KEPT = "gristmill: interrupted; committed work is kept, and the same command resumes it"
# Each way to read a recording sends a signal at the fifth, in a place from which no exception arrives.
READING = """
import io, os
from pathlib import Path

import soundfile

from gristmill.actors import audio
from gristmill.actors.records import map_records
from gristmill.actors.sources.decoders import open_sound
from gristmill.shards.errors import RejectRecord

calls = 0


def send():
    number = int(os.environ.get("SEND", 0))
    if number and calls == 5:
        os.kill(os.getpid(), number)


class Signals(io.BytesIO):
    sends = True

    def tell(self):
        if self.sends:
            self.sends = False
            send()
        return super().tell()


class Last:
    def __del__(self):
        send()


def plain(data):
    return len(audio.decode(data)[0])


def decoded(data):
    before, io.BytesIO = io.BytesIO, Signals
    try:
        return plain(data)
    finally:
        io.BytesIO = before


def opened(data):
    return len(open_sound(Signals(data), len(data)).read())


def own(data):  # as a user's actor may: held by nothing
    try:
        return len(soundfile.read(Signals(data))[0])
    except soundfile.LibsndfileError:
        raise RejectRecord("truncated") from None


def deleted(data):
    Last()
    return decoded(data)


def suppressed(data):
    try:
        send()
        return decoded(data)
    except:
        raise RejectRecord("truncated") from None


@map_records
def length(path: str) -> int:
    global calls
    calls += 1
    return globals()[os.environ["WAY"]](Path(path).read_bytes())
"""
RECIPE = """
import pyarrow as pa

from gristmill.pipelines.report.report import Report
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step
from reading import length


class Config(Settings):
    folder: str


def run(config, run):
    rows = [{"id": f"r/{n}", "path": f"{config.folder}/{n}.flac"} for n in range(9)]
    names = run.source("names", lambda: iter([pa.Table.from_pylist(rows[n : n + 3]) for n in (0, 3, 6)]), {"v": 1})
    made = run.step(Step("lengths", (length.stage(),), names))
    text = f"{made.records} records"
    return Report(title="Lengths", recipe={"name": "lengths"}, summary=text, digests={"lengths": made.digest})
"""
WAYS = ("decoded", "opened", "own", "deleted", "suppressed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, its recordings, and what it makes of them undisturbed, in ``whole``."""
    folder = tmp_path_factory.mktemp("lengths")
    (folder / "reading.py").write_text(READING)
    (folder / "lengths.py").write_text(RECIPE)
    (folder / "lengths.yaml").write_text(f"recipe: lengths\nout: out\nrunner: inprocess\nfolder: {folder}\n")
    for place in range(9):
        (folder / f"{place}.flac").write_bytes(encode(tone(0.5 + place / 10, 16000), 16000))
    assert ran(folder, "whole", "plain").returncode == 0
    return folder


def ran(folder: Path, out: str, way: str, number: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gristmill", "run", str(folder / "lengths.yaml"), f"out={folder / out}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "SEND": str(int(number)), "WAY": way},
        text=True,
        capture_output=True,
        timeout=100,
    )


def digests(out: Path) -> dict[str, str]:
    return json.loads((out / "report.json").read_text())["digests"]


def receipts(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("lengths/*/receipts/*.json"))


@pytest.mark.parametrize(("number", "way"), list(zip(itertools.cycle([signal.SIGTERM, signal.SIGINT]), WAYS)))
def test_a_run_ends_and_resumes_to_the_same_digests(folder: Path, way: str, number: int) -> None:
    stopped = ran(folder, way, way, number)
    assert (stopped.returncode, stopped.stderr.splitlines()[-1:]) == (130, [KEPT]), stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "ignored" not in stopped.stderr
    assert receipts(folder / way) == ["000000.json"]  # the second of three shards was interrupted
    resumed = ran(folder, way, way)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(folder / way) == digests(folder / "whole")


SWALLOWED = """
import os, signal, time
from gristmill.pipelines.command import interruption
interruption.listen()
from gristmill.pipelines.command import cli
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
def run():
    for _ in range({times}):
        Last() if _ == 0 else Swallows()
    {then}
class Swallows:
    def __del__(self):
        time.sleep(0.2)  # in which the interrupt is raised again
cli.reports_errors(run)()
"""


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("then", ["time.sleep(100)", "while True: pass", "pass"])
def test_an_interrupt_is_raised_until_it_arrives(times: int, then: str) -> None:
    """In a wait, in work, and at the very end of a command."""
    code = [sys.executable, "-c", SWALLOWED.format(times=times, then=then)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(code, env=env, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{KEPT}\n")
