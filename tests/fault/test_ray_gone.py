"""When the Ray that a run works on dies or hangs, or the run is ended: a sentence, its exit code, nothing left."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gristmill.cluster import janitor
from gristmill.shards import owner
from tests.cluster.heads import started
from tests.environment import without_ray

pytest.importorskip("ray")

ROOT = Path(__file__).resolve().parents[2]
INTERRUPTED = "gristmill: interrupted; committed work is kept, and the same command resumes it"
slow = pytest.mark.slow


@dataclass
class Started:
    """A run on Ray that has begun to work."""

    process: subprocess.Popen[str]
    folder: Path
    temp: Path  # of Ray

    def of_ray(self, name: str) -> psutil.Process:
        """Return a process of its local Ray."""
        (found,) = [one for one in psutil.Process(self.process.pid).children() if one.name() == name]
        return found

    def ends(self, seconds: float = 60.0) -> str:
        """Return the last line of the run, which must end by itself, and with the exit code of an interruption."""
        _, errors = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 130, errors
        assert "Traceback" not in errors
        return errors.splitlines()[-1]

    def left(self) -> list[str]:
        """Return what is left of its Ray's processes after the seconds that Ray itself takes."""
        for _ in range(100):
            found = []
            for one in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if one.environ().get("RAY_TMPDIR") == str(self.temp):
                        found.append(" ".join(one.cmdline()))
            if not found:
                return []
            time.sleep(0.2)
        return found


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[object]:
    """Return a function that starts a run and waits until it works."""
    temp = Path(tempfile.mkdtemp(prefix="gm"))  # short: Ray makes sockets below it
    runs: list[Started] = []

    def begin(work: str = "step", shards: int = 400, **environment: str) -> Started:
        config, note = tmp_path / "long.yaml", tmp_path / "notes" / "note"
        config.write_text(
            f"recipe: tests.fault.long_recipe\nout: {tmp_path}/out\nnote: {note}\nwork: {work}\npause: 0.1\n"
            f"shards: {shards}\n"
        )
        shutil.rmtree(note.parent, ignore_errors=True)
        env = without_ray()
        env |= {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(temp), "RAY_USAGE_STATS_ENABLED": "0"} | environment
        command = [sys.executable, "-m", "gristmill", "run", str(config)]
        command += [] if "RAY_ADDRESS" in environment else ["workers=1"]
        process = subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE)
        runs.append(Started(process, tmp_path, temp))
        deadline = time.monotonic() + 250
        while not note.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return runs[-1]

    try:
        yield begin
    finally:
        for run in runs:
            run.process.kill()
            run.process.wait()
        janitor.clean(temp / "ray")
        shutil.rmtree(temp, ignore_errors=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("work", "name"),
    [
        ("step", "raylet"),
        pytest.param("step", "gcs_server", marks=slow),
        pytest.param("training", "raylet", marks=slow),
        pytest.param("training", "gcs_server", marks=slow),
        pytest.param("fit", "raylet", marks=slow),
    ],
)
def test_a_dead_process_of_ray_is_told(begun, work: str, name: str) -> None:
    run = begun(work)
    run.of_ray(name).kill()
    said = f"gristmill: Ray's process {name} on this machine has ended (signal 9); committed work is kept, and the "
    assert run.ends().startswith(said)
    assert run.left() == []
    assert list((run.temp / "ray").glob("session_2*"))
    if owner.machine():
        janitor.clean(run.temp / "ray")
        assert not list((run.temp / "ray").glob("session_*")), "the next start takes the folder away"
    assert not (run.folder / "out" / ".lease").exists(), "the run left in order"


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "says"), [("gcs_server", "does not answer"), ("raylet", "dead")])
def test_a_process_of_ray_that_hangs_is_told(begun, name: str, says: str) -> None:
    run = begun()
    run.of_ray(name).send_signal(signal.SIGSTOP)
    assert says in run.ends(200)
    assert run.left() == []


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_cluster_that_was_joined_is_gone(begun, name: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="gm"))
    try:
        with started(folder) as head:
            run = begun(**head.environment(RAY_ADDRESS=head.gcs))
            (process,) = [p for p in psutil.Process(head.process.pid).children(recursive=True) if p.name() == name]
            process.kill()
            last = run.ends(100)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert last.startswith("gristmill: ")
    assert "committed work is kept, and the same command resumes it" in last


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("work", ["step", "training", "fit"])
@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]])
def test_signals_end_a_run_on_ray(begun, work: str, numbers: list[signal.Signals]) -> None:
    run = begun(work)
    for number in numbers:
        run.process.send_signal(number)
        time.sleep(0.05)
    assert run.ends(20) == INTERRUPTED
    assert run.left() == []


@slow
@pytest.mark.timeout(900)
def test_after_a_killed_driver_the_next_start_leaves_its_own_session_only(begun) -> None:
    killed = begun(shards=6)
    killed.process.kill()
    killed.process.wait()
    sessions = killed.temp / "ray"
    (first,) = sessions.glob("session_2*")
    (sessions / "session_2000-01-01_00-00-00_000000_1").mkdir()  # of somebody else
    again = begun(shards=6)
    again.process.communicate(timeout=200)
    assert again.process.returncode == 0
    assert not first.exists()
    assert (sessions / "session_2000-01-01_00-00-00_000000_1").is_dir()
    assert again.left() == []
