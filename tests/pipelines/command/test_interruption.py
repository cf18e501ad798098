"""Signals end a command in order, and at once the second time: a sentence, exit code 130, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RECIPE = """
import time
from pathlib import Path
from gristmill.shards.settings import Settings

class Config(Settings):
    pass

def run(config, run):
    here = Path(__file__).parent
    try:
        (here / "begun").touch()
        time.sleep(100)
    finally:
        (here / "leaving").touch()
        time.sleep(100)
"""


def begun(folder: Path, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
    """Start a run that takes long, and as long again to leave; ``ignored`` signals are so as under ``nohup``."""
    (folder / "slow.py").write_text(RECIPE)
    (folder / "slow.yaml").write_text(f"recipe: slow\nout: {folder / 'out'}\nrunner: inprocess\n")

    def ignore() -> None:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):  # whatever those of the tests' own process are
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    run = subprocess.Popen(
        [sys.executable, "-m", "gristmill", "run", str(folder / "slow.yaml")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stderr=subprocess.PIPE,
        preexec_fn=ignore,
    )
    wait(run, folder / "begun")
    return run


def wait(run: subprocess.Popen[str], path: Path) -> None:
    deadline = time.monotonic() + 100
    while not path.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists(), run.communicate()


def ends(run: subprocess.Popen[str]) -> None:
    _, errors = run.communicate(timeout=50)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == (
        "gristmill: interrupted; committed work is kept, and the same command resumes it"
    )


STARTS = """
import os, signal, sys
from gristmill.pipelines.command import interruption
sys.argv = ["gristmill", *sys.argv[1:]]
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {point!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Stop())
from gristmill.__main__ import main
main()
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("point", ["typer", "gristmill.pipelines.command.cli"])
def test_a_signal_while_modules_are_loaded_is_heard(number: str, point: str) -> None:
    code = STARTS.format(point=point, number=number)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, "--help"], env=env, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "gristmill: interrupted\n")


ENDS = """
import atexit, os, signal, sys, time
from gristmill.pipelines.command import interruption
interruption.listen()
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)
sys.late = Late()
from gristmill.pipelines.command import cli
def {name}():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
cli.reports_errors({name})()
"""


@pytest.mark.parametrize(("name", "resumes"), [("run", True), ("export", True), ("audit", False), ("status", False)])
def test_a_signal_at_the_very_end_changes_nothing_and_only_what_resumes_says_so(name: str, resumes: bool) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    code = [sys.executable, "-c", ENDS.format(name=name)]
    done = subprocess.run(code, env=env, text=True, capture_output=True, timeout=60)
    kept = "; committed work is kept, and the same command resumes it" if resumes else ""
    assert (done.returncode, done.stderr) == (130, f"gristmill: interrupted{kept}\n")


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)],
)
def test_the_second_signal_ends_a_run_that_is_leaving(tmp_path: Path, first: int, second: int) -> None:
    run = begun(tmp_path)
    run.send_signal(first)
    wait(run, tmp_path / "leaving")
    assert run.poll() is None
    run.send_signal(second)
    ends(run)


def test_signals_in_a_row_end_a_run(tmp_path: Path) -> None:
    run = begun(tmp_path)
    for _ in range(20):
        run.send_signal(signal.SIGINT)
        time.sleep(0.005)
    ends(run)


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    run = begun(tmp_path, (signal.SIGHUP,))
    run.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert not (tmp_path / "leaving").exists()
    for _ in range(2):
        run.send_signal(signal.SIGTERM)
        wait(run, tmp_path / "leaving")
    ends(run)


ABORTS = """
import os, sys
from gristmill.__main__ import main
class Late:
    def __del__(self, abort=os.abort):
        abort()
sys.late = Late()
sys.argv = ["gristmill", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("given", "code"), [("bash", 0), ("tcsh", 2)])
def test_what_aborts_while_python_takes_itself_down_does_not_end_a_command(given: str, code: int) -> None:
    """As threads of libraries do that still run."""
    command = [sys.executable, "-c", ABORTS, "completion", given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, bool(done.stdout), bool(done.stderr)) == (code, code == 0, code == 2)
