"""Logs of a training's curves while it runs: TensorBoard event files and MLflow, both optional.

No result depends on them: their settings are in no fingerprint, and a log that fails during a training is dropped with
one warning, as days of training are worth more. Settings that are bound to fail are rejected beforehand.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from gristmill.shards import store
from gristmill.shards.errors import UserError, one_line, with_class
from gristmill.shards.job import Job
from gristmill.shards.settings import Settings

FLUSH_EVERY = 10.0  # seconds
Point = tuple[int, float, dict[str, float]]  # step, Unix time in seconds, and metrics by name
_NO_METRICS = ("step", "steps")
RUN = "gristmill"  # default name of a run
_log = logging.getLogger(__name__)


class LogSettings(Settings):
    """Logs of training curves, in addition to the report."""

    tensorboard: bool | str = False
    """The folder of TensorBoard's event files, a path or URL; ``true`` is ``tensorboard`` below OUT."""
    mlflow: str | None = None
    """A tracking URI or a folder; the experiment is named after the run."""

    def below(self, out: str) -> LogSettings:
        """Return the settings with ``true`` replaced by its folder, and paths made absolute for workers."""
        folder = store.join(out, "tensorboard") if self.tensorboard is True else self.tensorboard
        uri = self.mlflow
        if uri and not re.match(r"[a-z+]+:", uri) and uri != "databricks":
            uri = store.absolute(uri)
        return LogSettings(tensorboard=store.absolute(folder) if isinstance(folder, str) else False, mlflow=uri)


class Sink(Protocol):
    """A destination of points."""

    def write(self, points: list[Point]) -> None:
        """Write points; may raise."""
        ...

    def end(self, whole: bool) -> None:
        """Finish the log; ``whole`` if the training finished. May raise."""
        ...


class TrainingLog:
    """The log of one training of a run, on its first rank."""

    def __init__(self, settings: LogSettings, run: str, job: Job) -> None:
        self.points: list[Point] = []
        self.flushed = time.monotonic()
        self.sinks: list[Sink] = []
        if isinstance(settings.tensorboard, str):
            self.sinks.append(TensorBoard(store.join(settings.tensorboard, job.name, job.fingerprint)))
        if settings.mlflow:
            self.sinks.append(MLflow(settings.mlflow, run, job.name, job.fingerprint))

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(kind is None)

    def point(self, metrics: Mapping[str, float]) -> None:
        """Buffer a point of the curves: ``step`` and its metrics."""
        if not self.sinks or "step" not in metrics:
            return
        values = {name: float(value) for name, value in metrics.items() if name not in _NO_METRICS}
        self.points.append((int(metrics["step"]), time.time(), values))
        if time.monotonic() - self.flushed >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write the buffered points."""
        points, self.points, self.flushed = self.points, [], time.monotonic()
        if points:
            self._each(lambda sink: sink.write(points))

    def close(self, whole: bool) -> None:
        """Write the buffered points and finish all logs; ``whole`` if the training finished."""
        self.flush()
        self._each(lambda sink: sink.end(whole))

    def _each(self, do: Callable[[Sink], None]) -> None:
        for sink in list(self.sinks):
            try:
                do(sink)
            except Exception as error:
                self.sinks.remove(sink)
                why = one_line(error)[:200]
                _log.warning("%s: no more points are logged, the training goes on (%s)", type(sink).__name__, why)


class TensorBoard:
    """One event file per attempt; where a resumed training repeats steps, the newest attempt counts."""

    def __init__(self, folder: str) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self.url = store.join(folder, name)
        self.data = b""

    def write(self, points: list[Point]) -> None:
        """Append points to the file."""
        import io

        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        records = RecordWriter(buffer)
        if not self.data:
            first, at, _ = points[0]
            start = SessionLog(status=SessionLog.START)  # readers discard earlier files' points from this step on
            records.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())
            records.write(Event(wall_time=at, step=first, session_log=start).SerializeToString())
        for step, at, values in points:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            records.write(Event(wall_time=at, step=step, summary=summary).SerializeToString())
        if store.is_local(self.url):
            # Append, since TensorBoard keeps the file open. Object storage only has whole files.
            path = store.filesystem(self.url)[1]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "ab") as file:
                file.write(buffer.getvalue())
            self.data = b"begun"
            return
        self.data += buffer.getvalue()
        store.write_bytes(self.url, self.data)

    def end(self, whole: bool) -> None:
        """Do nothing: the file is complete after each write."""


class MLflow:
    """One MLflow run per training; a resumed training continues its run."""

    def __init__(self, uri: str, experiment: str, name: str, fingerprint: str) -> None:
        self.uri, self.experiment, self.name, self.fingerprint = uri, experiment, name, fingerprint
        self.client: Any = None
        self.run = ""

    def _begin(self) -> None:
        self.client = _client(self.uri)
        number = _experiment(self.client, self.uri, self.experiment)
        same = f"tags.`gristmill.fingerprint` = '{self.fingerprint}'"
        found = self.client.search_runs([number], same, max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.set_terminated(self.run, "RUNNING")
            return
        tags = {"gristmill.fingerprint": self.fingerprint, "gristmill.training": self.name}
        title = f"{self.name} {self.fingerprint[:8]}"
        self.run = self.client.create_run(number, run_name=title, tags=tags).info.run_id

    def write(self, points: list[Point]) -> None:
        """Log points to the run."""
        if not self.run:
            self._begin()
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, int(at * 1000), step) for step, at, values in points for key, value in values.items()
        ]
        for start in range(0, len(metrics), 1000):  # MLflow's limit per request
            self.client.log_batch(self.run, metrics=metrics[start : start + 1000])

    def end(self, whole: bool) -> None:
        """Set the status of the run."""
        if self.run:
            self.client.set_terminated(self.run, "FINISHED" if whole else "FAILED")


def check(settings: LogSettings, run: str) -> None:
    """Raise :class:`UserError` for a log whose package is missing or whose server does not answer."""
    if settings.tensorboard:
        _installed("tensorboard", "tensorboard", "log.tensorboard")
    if settings.mlflow:
        _experiment(_client(settings.mlflow), settings.mlflow, run)


def _client(uri: str) -> Any:
    _installed("mlflow", "mlflow", "log.mlflow")
    # No telemetry; fail within seconds when the server is gone; allow a folder as the store.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow

    try:
        return mlflow.MlflowClient(tracking_uri=uri)
    except Exception as error:  # stores raise their own classes, also for missing packages
        raise _unreachable(uri, error) from None


def _experiment(client: Any, uri: str, name: str) -> str:
    try:
        found = client.get_experiment_by_name(name)
        return found.experiment_id if found else client.create_experiment(name)
    except Exception as error:  # stores raise their own classes
        raise _unreachable(uri, error) from None


def _unreachable(uri: str, error: Exception) -> UserError:
    why = with_class(error)[:200]
    return UserError(f"log.mlflow={uri}: MLflow cannot be used there ({why}); expected a tracking URI or a folder")


def _installed(package: str, extra: str, key: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"{key}: the package {package} is not installed; expected `pip install '.[{extra}]'`")
