"""The progress of a run, from its receipts."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.cluster.checkpoints import Checkpoints
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command import status
from gristmill.pipelines.command.planfile import write_plan
from gristmill.pipelines.command.status import StatusReader, show_status
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.report.write import write_report
from gristmill.pipelines.run import Run
from gristmill.shards import checked
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import TooManyQuarantined
from gristmill.shards.index import Cut
from gristmill.shards.job import PROGRESS
from gristmill.shards.lease import Lease
from gristmill.shards.repair import Mover, repair
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, upper


def step(out: Path, quarantine: float = 1.0, special: dict[int, str] | None = None) -> Step:
    source = seal_tables(str(out / "texts" / "0"), "texts", [texts(12, special)])
    return Step("upper", (upper(),), source, cut=Cut(rows=4), max_quarantine=quarantine)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A step of three shards of which the last is not done; they were committed ten seconds apart, just now."""
    with pytest.raises(TooManyQuarantined):
        run_step(step(tmp_path, 0.1, {5: "break", 6: "break"}), str(tmp_path), InProcessRunner(), 0)
    set_ages(tmp_path, (10, 0))
    return tmp_path


def set_ages(out: Path, ages: tuple[float, ...]) -> None:
    """Make the shards committed that many seconds ago, by the clock of the worker."""
    for age, path in zip(ages, sorted(out.glob("upper/*/receipts/*")), strict=True):
        receipt = checked.decode("receipt", path.read_bytes(), str(path))
        receipt["attempt"]["at"] = time.time() - age
        path.write_bytes(checked.encode("receipt", receipt))


def end(out: Path) -> None:
    """Finish the run under way, as a recipe does at its end."""
    run = Run(str(out), InProcessRunner())
    run.step(step(out, 1.0, {5: "break", 6: "break"}))
    write_report(str(out), Report(title="t", recipe={}))
    run.write_ledger("tiny", "")


def test_a_plan_without_a_run_is_told(gristmill, recipe: Path, tmp_path: Path) -> None:
    refused = gristmill("status", tmp_path / "out")
    assert (refused.exit_code, "there is no run here" in refused.stderr) == (2, True)
    assert gristmill("plan", recipe).exit_code == 0
    shown = gristmill("status", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    first, second = shown.stdout.splitlines()
    assert first.startswith("nothing has run yet: a plan was made on 2")
    assert second.startswith("whole run: 0 of 4 done, 0%, about ")
    assert second.endswith(" to go by the estimate of `gristmill plan`")
    with at_work(tmp_path / "out"):
        assert "nothing has run yet" not in gristmill("status", tmp_path / "out").stdout
    assert gristmill("run", recipe).exit_code == 0
    assert "whole run: finished" in gristmill("status", tmp_path / "out").stdout


@contextlib.contextmanager
def at_work(out: Path) -> Iterator[Lease]:
    """As while a run holds the lease of its output."""
    lease = Lease(str(out))
    lease.take_at_once()
    try:
        yield lease
    finally:
        lease.release()


class AtWork(Lease):
    """One that a run holds."""

    def is_free(self) -> bool:
        return False


def test_rate_and_time_to_go(stopped: Path) -> None:
    (one,) = StatusReader(str(stopped)).read().under_way
    assert (one.done, one.total, one.records, one.planned, one.quarantined) == (2, 3, 8, 12, 2)
    assert one.rate == pytest.approx(0.4, rel=0.05)  # the second shard, four records, took ten seconds
    assert one.left == pytest.approx(10.0, rel=0.05)


def test_a_stalled_step_has_no_forecast(stopped: Path) -> None:
    set_ages(stopped, (500, 490))
    (one,) = StatusReader(str(stopped)).read().under_way
    assert one.rate is None
    assert one.left is None


def test_the_whole_run_by_its_plan(stopped: Path) -> None:
    reader = StatusReader(str(stopped))
    assert reader.read().whole.forecast.left is None
    # The listing was there when it was planned, the step was to take 30 s and what comes behind it 40 s and 5 s.
    took = {"texts": 0.0, "upper": 30.0, "model": 40.0}
    results = [{"name": name, "kind": "step", "seconds": took[name], "workers": 1, "inputs": []} for name in took]
    write_plan(str(stopped), {"estimate": {"seconds": 75.0}, "results": results, "rest": 5.0})
    set_ages(stopped, (-1, -11))  # after the estimate
    found = reader.read().whole
    assert found.forecast.left == pytest.approx(10 + 40 + 5, rel=0.05)
    assert found.forecast.share == pytest.approx(1 - 55 / 75, rel=0.05)
    assert found.line().endswith("27%, about 1 min to go by the estimate of `gristmill plan`")


def test_runs_of_quarantined_records_are_no_shards_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = step(tmp_path, special={5: "break"})
    run_step(made, str(tmp_path), InProcessRunner(), 0)
    monkeypatch.setenv("TINY_MENDED", "1")
    sealed = run_step(made, str(tmp_path), InProcessRunner(), 0, requeue=True)
    assert len(sealed.shards) == 4
    (one,) = [one for one in StatusReader(str(tmp_path)).read().sets if one.name == "upper"]
    assert (one.done, one.total, one.rows, one.quarantined) == (3, 3, 12, 0)
    for seal in Path(sealed.url).glob("seal*.json"):
        seal.unlink()
    (one,) = StatusReader(str(tmp_path)).read().under_way
    assert (one.done, one.total, one.rows, one.quarantined) == (3, 3, 12, 0)


def test_receipts_are_read_once(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = status.read_receipts
    monkeypatch.setattr(status, "read_receipts", lambda url, shards: (asked.extend(shards), read(url, shards))[1])
    reader = StatusReader(str(stopped))
    first = reader.read()
    assert len(asked) == 3, "one of the listing, two of the step"
    assert reader.read().under_way[0].rows == first.under_way[0].rows
    assert len(asked) == 3


def test_a_run_without_its_report_is_not_finished(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when it was killed while it trained, before the first checkpoint."""
    run_step(step(stopped, 1.0, {5: "break", 6: "break"}), str(stopped), InProcessRunner(), 0)
    with at_work(stopped):
        show_status(str(stopped))
    shown = capsys.readouterr().out
    assert "none under way and no report yet" in shown
    assert "finished" not in shown
    show_status(str(stopped))
    assert "no run is at work: it ended before its end. The same command goes on" in capsys.readouterr().out


def test_a_run_that_ended_before_its_end_is_said_to_be_stopped(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It released its lease, or its process is gone; a watch ends after a while without a run at work."""
    with at_work(stopped):
        assert not StatusReader(str(stopped)).read().stopped
    assert StatusReader(str(stopped)).read().stopped
    with at_work(stopped) as lease:
        claim = Path(lease.url, "000001.json")
        claim.write_text(claim.read_text().replace(f"{os.getpid()}@", "999999999@"))
        assert StatusReader(str(stopped)).read().stopped
    monkeypatch.setattr(status, "BEFORE_WORK", 0.3)
    show_status(str(stopped), watch=0.2)
    told = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    sentence = "no run is at work: it ended before its end. 1 result begun and not finished. The same command goes on"
    assert told.count(sentence) >= 2


def test_watching_tells_lines_until_the_run_is_over(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(seconds: float) -> None:
        """Between the first look and the second the run ends."""
        if seconds != 5.0:
            return  # an actor's
        end(stopped)

    monkeypatch.setattr(status, "Lease", AtWork)
    monkeypatch.setattr(time, "sleep", finish)
    show_status(str(stopped), watch=5.0)
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("upper: 2/3 shards, 0 rejected, 2 quarantined, 0.4 records/s, ")
    assert lines[1].startswith("1 under way")
    assert lines[2].startswith("whole run: 1 done, time to go unknown")
    assert lines[3:] == ["all steps are finished", "whole run: finished"]


def test_watching_lives_on_a_terminal(stopped: Path) -> None:
    end(stopped)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=140, height=40)
    status._live(StatusReader(str(stopped)), 1.0, console)
    assert "whole run: finished" in stream.getvalue()
    assert "sealed" in stream.getvalue()


def test_the_clocks_of_files_decide_nothing(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As after a copy, which gives all files a new time, or with a clock that went ahead."""
    end(stopped)
    copied = tmp_path_factory.mktemp("copied") / "out"
    shutil.copytree(stopped, copied)
    assert StatusReader(str(copied)).read().over
    for path in copied.rglob("*/seal.json"):
        os.utime(path, (time.time() + 86400,) * 2)
    os.utime(copied / "report.json", (1.0, 1.0))
    assert StatusReader(str(copied)).read().over


@pytest.mark.parametrize("damage", ["cut", "gone", "seal", "ledger"])
def test_what_cannot_be_read_is_not_finished(stopped: Path, damage: str) -> None:
    end(stopped)
    (folder,) = (stopped / "upper").iterdir()
    if damage == "ledger":
        (stopped / "run.json").unlink()
    elif damage == "seal":
        (folder / "seal.json").write_bytes(b"{}")
    elif damage == "gone":
        next(folder.glob("data/*")).unlink()
    else:
        data = next(folder.glob("quarantine/*"))
        data.write_bytes(data.read_bytes()[:-1])
    found = StatusReader(str(stopped)).read()
    assert not found.over
    assert [one.name for one in found.unreadable] == ([] if damage == "ledger" else ["upper"])


def test_a_training_tells_how_far_it_is(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its newest point is beside its checkpoints; `repair` leaves it there."""
    checkpoints = Checkpoints(str(stopped / "student" / "0123456789abcdef"))
    checkpoints.write(b"weights")
    shown = {one.name: one for one in StatusReader(str(stopped)).read().sets}
    assert shown["student"].total is None
    monkeypatch.setattr(checkpoints, "noted", 0.0)
    checkpoints.note({"step": 1199, "steps": 3000, "loss": 1.234, "steps_per_second": 4.0})
    checkpoints.note({"step": 1200, "steps": 3000, "loss": 1.2, "steps_per_second": 4.0})  # too soon
    (one,) = (one for one in StatusReader(str(stopped)).read().sets if one.name == "student")
    assert (one.state, one.done, one.total, one.rate, one.left, one.loss) == ("training", 1200, 3000, 4.0, 450.0, 1.234)
    show_status(str(stopped))
    assert "1200/3000" in capsys.readouterr().out
    assert status._line(one) == "student: training, step 1,200 of 3,000, loss 1.23, 4.0 steps/s, 7 min 30 s to go"
    mover = Mover(str(stopped))
    assert list(repair(str(stopped), mover))
    assert mover.moved == []
    assert (stopped / "student" / "0123456789abcdef" / "checkpoints" / PROGRESS).exists()
