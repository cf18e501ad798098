from __future__ import annotations

import io
import itertools
import time

import pytest
from rich.console import Console

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.pace import clock
from gristmill.pipelines.progress import LogProgress, RunProgress, TerminalProgress
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import seal_tables
from gristmill.shards.job import TrainJob
from gristmill.shards.receipt import read_receipts
from gristmill.shards.settings import Settings
from tests.pipelines.tiny import texts


def hear(progress: RunProgress, folder: str) -> None:
    sealed = seal_tables(folder, "texts", [texts(3), texts(2, start=3)])
    progress.working("bank", "fitting")
    progress.worked("bank", "fitting", 1.0)
    progress.found(sealed)
    progress.begin("texts", 3, 1, 5)
    for receipt in read_receipts(sealed.url, ["000000", "000001"]):
        progress.advance(receipt)
    progress.end(sealed)
    progress.working("model", "training 2 models")
    for step in (0, 20):
        progress.training("model_seed0", {"step": step, "steps": 3000, "loss": 1.234})
        progress.training("model_seed1", {"step": step, "loss": 0.5})
    progress.trained("model_seed0", "model", 1, 2)
    progress.close()


def test_lines_in_a_log(tmp_path) -> None:
    stream = io.StringIO()
    hear(LogProgress(stream, every=0.0), str(tmp_path))
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert lines[:4] == [
        "bank: fitting",
        "bank: fitting done, 1.0 s",
        "texts: finished by an earlier run, 5 records",
        "texts: 3 shards, 1 of them kept from before, 5 records",
    ]
    assert lines[4].startswith("texts: 2/3 shards, ")
    assert lines[4].endswith(" s to go")
    assert lines[5].startswith("texts: sealed, 5 records, 0 rejected, 0 quarantined, ")
    assert lines[6:9] == [
        "model: training 2 models",
        "model_seed0: step 1 of 3,000, loss 1.23",
        "model_seed1: step 1, loss 0.5",
    ]
    assert lines[9].startswith("model_seed0: step 21 of 3,000, loss 1.23, ")
    assert lines[9].endswith(" to go")
    assert lines[11:] == ["model: training 2 models: 1 of 2 done"]


def test_bars_on_a_terminal(tmp_path) -> None:
    stream = io.StringIO()
    hear(TerminalProgress(Console(file=stream, force_terminal=True, width=100)), str(tmp_path))
    shown = stream.getvalue()
    assert "texts: 5 records, 0 rejected, 0 quarantined" in shown
    assert "bank: fitting done, 1.0 s" in shown
    assert "model: training 2 models" in shown
    assert "1 of 2 done" in shown
    assert "step 21 " in shown
    assert "loss 0.5, " in shown


@pytest.mark.parametrize(("seconds", "least", "most"), [(54, 6, 12), (3600, 60, 90)])
def test_how_far_a_run_is_comes_soon_and_then_less_often(
    seconds: int, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = LogProgress(stream := io.StringIO())
    told = []
    for second in range(seconds):
        now[0] += 1
        stream.truncate(stream.seek(0))
        progress.made(f"made/{second}", "one of many")
        told += [second + 1] * stream.getvalue().count("whole run: ")
    assert least <= len(told) <= most
    gaps = [after - before for before, after in itertools.pairwise([0, *told])]
    assert (told[0], gaps) == (5, sorted(gaps))
    assert gaps[-1] <= 60


def test_a_step_and_a_training_of_seconds_tell_of_themselves(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sealed = seal_tables(str(tmp_path), "texts", [texts(3), texts(2, start=3)])
    (receipt,) = read_receipts(sealed.url, ["000000"])
    progress = LogProgress(stream := io.StringIO())
    progress.begin("texts", 12, 0, 36)
    progress.training("model", {"step": 0, "steps": 12})
    for step in range(1, 9):
        now[0] += 1
        progress.advance(receipt)
        progress.training("model", {"step": step, "steps": 12})
    assert stream.getvalue().count("texts: 5/12 shards, ") == 1
    assert stream.getvalue().count("model: step 6 of 12, ") == 1
    assert stream.getvalue().count("whole run: ") == 0, "nothing of an agenda was begun"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (3.21, "3.2 s"), (42, "42 s"), (61, "1 min 01 s"), (3720, "1 h 02 min")]
)
def test_spans_of_time(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


def counted(settings, context, **inputs):
    return {"files": {"n.txt": b"1"}}


class Walk(Settings):
    seed: int = 0
    length: int = 1


def walked(settings, context, **inputs):
    for step in range(3):
        context.report({"step": step, "steps": 3, "loss": 1.0 / (step + 1)})
    return {"files": {"n.txt": b"1"}}


def test_each_training_says_how_far_it_is(tmp_path) -> None:
    stream = io.StringIO()
    run = Run(str(tmp_path), InProcessRunner(), progress=LogProgress(stream, every=0.0))
    jobs = [TrainJob("student", walked, Walk(seed=seed)) for seed in (0, 1)]
    jobs += [TrainJob("cell", walked, Walk(length=length)) for length in (1, 2)] + [TrainJob("alone", walked)]
    for job in jobs:
        run.train(job)
    run.finish()
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert "student_seed1: step 1 of 3, loss 1" in lines
    assert any(line.startswith("student_seed0: step 3 of 3, loss 0.333, ") for line in lines)
    assert {line.partition(":")[0] for line in lines[1:-1]} - {"whole run"} == {
        "student_seed0",
        "student_seed1",
        "cell 1 of 2",
        "cell 2 of 2",
        "alone",
        "student, cell, alone",
    }
    assert "student, cell, alone: training 5 models: 4 of 5 done" in lines


def test_fits_are_not_called_trainings(tmp_path) -> None:
    stream = io.StringIO()
    run = Run(str(tmp_path), InProcessRunner(), progress=LogProgress(stream))
    run.train(TrainJob("count", counted, stepwise=False))
    run.finish()
    run.train(TrainJob("again", counted, stepwise=False))
    run.train(TrainJob("model", counted))
    run.finish()
    assert "count: fitting 1 artifact done" in stream.getvalue()
    assert "again, model: fitting 1 artifact, training 1 model done" in stream.getvalue()
