"""Curves are read back with the readers of TensorBoard and MLflow themselves."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill.cluster import training_log
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.training_log import LogSettings, TrainingLog, check
from gristmill.pipelines.command.launch import make_cluster
from gristmill.pipelines.config import load, save
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings


class Learning(Settings):
    steps: int = 6
    stop_at: int | None = None


def learn(settings: Learning, context: Any) -> dict[str, Any]:
    """Report a falling loss from the last checkpoint on; stop once at ``stop_at``."""
    start = int((context.resume() or b"0").decode())
    for step in range(start, settings.steps):
        context.report({"step": step, "steps": settings.steps, "loss": 1.0 / (step + 1), "lr": 0.1})
        if step % 2 == 1:
            context.report({"step": step, "loss": 1.0 / (step + 1)}, str(step + 1).encode())
        if step == settings.stop_at and start == 0:
            raise KeyError("stopped")
    return {"files": {"value.json": b"1"}}


def job(**config: Any) -> TrainJob:
    return TrainJob("student", learn, Learning(**config))


def curve(folder: Path) -> list[tuple[int, float]]:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]


def test_tensorboard_reads_the_curve_of_a_training_that_was_resumed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    runner = InProcessRunner(log=LogSettings(tensorboard=str(tmp_path / "board")))
    made = job(stop_at=4)
    with pytest.raises(KeyError, match="stopped"):
        runner.train([(made, str(tmp_path / "student" / "0123"))])
    runner.train([(made, str(tmp_path / "student" / "0123"))])
    files = sorted((tmp_path / "board" / "student" / made.fingerprint).iterdir())
    assert len(files) == 2, "one for each attempt"
    steps = [step for step, _ in curve(files[0].parent)]
    assert sorted(set(steps)) == list(range(6))
    assert steps.count(4) == 1, "the step done again counts once"
    assert dict(curve(files[0].parent))[3] == 0.25


def test_tensorboard_on_object_storage_is_one_object_an_attempt(tmp_path: Path, bucket: str) -> None:
    pytest.importorskip("tensorboard")
    from gristmill.shards import store

    made = job()
    with TrainingLog(LogSettings(tensorboard=f"{bucket}/{tmp_path.name}"), "run", made) as log:
        for step in range(3):
            log.point({"step": step, "loss": float(step)})
            log.flush()
    (name,) = store.list_names(f"{bucket}/{tmp_path.name}/student/{made.fingerprint}")
    (tmp_path / name).write_bytes(store.read_bytes(f"{bucket}/{tmp_path.name}/student/{made.fingerprint}/{name}"))
    assert curve(tmp_path) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_mlflow_has_one_run_for_a_training_that_was_resumed(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    settings = LogSettings(mlflow=str(tmp_path / "mlruns"))
    check(settings, "distill")
    made = job(stop_at=4)
    for status in ("FAILED", "FINISHED"):
        with pytest.raises(KeyError, match="stopped") if status == "FAILED" else contextlib.nullcontext():
            InProcessRunner("distill", settings).train([(made, str(tmp_path / "student" / "0123"))])
        client = training_log._client(settings.mlflow)
        experiment = client.get_experiment_by_name("distill")
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == status
    history = client.get_metric_history(run.info.run_id, "loss")
    assert {point.step: pytest.approx(point.value) for point in history} == {n: 1 / (n + 1) for n in range(6)}
    assert run.data.tags["gristmill.fingerprint"] == made.fingerprint
    assert set(run.data.metrics) == {"loss", "lr"}


def test_a_log_that_fails_does_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "board").write_text("a file, no folder")
    with caplog.at_level(logging.WARNING):
        runner = InProcessRunner(log=LogSettings(tensorboard=str(tmp_path / "board")))
        runner.train([(job(), str(tmp_path / "student" / "0123"))])
    assert (tmp_path / "student" / "0123" / "artifact.json").exists()
    assert caplog.text.count("no more points are logged, the training goes on") == 1


@pytest.mark.parametrize(("package", "key"), [("tensorboard", "tensorboard=true"), ("mlflow", "mlflow=x")])
def test_a_missing_package_is_reported_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, key: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(training_log, "find_spec", lambda name: None)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"recipe: tests.pipelines.tiny\nout: {tmp_path}/out\nrunner: inprocess\n")
    loaded = load(str(recipe), [f"log.{key}"])
    with pytest.raises(UserError, match=rf"log.{package}: the package {package} is not installed.*\.\[{package}\]"):
        make_cluster(loaded.common)


def test_an_unusable_store_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"log.mlflow=.*cannot be used"):
        check(LogSettings(mlflow=str(tmp_path / "file")), "run")


def test_results_do_not_depend_on_a_log(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"recipe: tests.pipelines.tiny\nout: {tmp_path}/out\nrunner: inprocess\n")
    assert save(load(str(recipe)))
    with_log = load(str(recipe), ["log.tensorboard=true"])
    assert not save(with_log), "the settings kept are the same"
    pytest.importorskip("tensorboard")
    assert make_cluster(with_log.common).log == LogSettings(tensorboard=f"{tmp_path}/out/tensorboard")
