"""Progress of a run: bars with an ETA on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from gristmill.pipelines.agenda import Agenda
from gristmill.pipelines.pace import Pace, TrainingPace, clock, is_due
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Progress
from gristmill.shards.receipt import Receipt
from gristmill.shards.safe_text import safe

LOG_EVERY = 15.0  # most seconds between lines of one step: see `is_due`
WHOLE = 4  # as many times as rare are at last those of the whole run


class RunProgress(Progress):
    """Callbacks for the steps and the other work of a run; these show nothing, and keep the run's ``agenda``.

    They are called from several threads, since results are made side by side: a step is begun, advanced and ended by
    one of them.
    """

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.here = _OfThread()

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Take the share of a step that is done."""
        self.here.name, self.here.pace = name, Pace(shards, done, records)
        self.agenda.at(done / max(1, shards))

    def advance(self, receipt: Receipt) -> None:
        """Take a shard."""
        pace = self.here.pace
        pace.advance(receipt)
        self.agenda.at(pace.done / max(1, pace.shards), left=pace.left)

    def made(self, url: str, name: str) -> None:
        """Called for each result, whether it was made or found."""
        self.agenda.made(url, name)

    def say(self, text: str) -> None:
        """Show a message about the run as a whole."""

    def waits(self, whole: str) -> None:
        """Called while another run is at work on the output, with how far that is; with ``""`` when it has ended."""
        self.agenda.awaited = whole

    def working(self, name: str, activity: str) -> None:
        """Called when work without shards starts: a listing, a fit, a training."""

    def worked(self, name: str, activity: str, seconds: float) -> None:
        """Called when that work has succeeded."""

    def training(self, name: str, metrics: Mapping[str, float]) -> None:
        """Called with points of a training's curves, while :meth:`working` goes on."""

    def trained(self, name: str, of: str, done: int, jobs: int) -> None:
        """Called when a training or fit has ended: ``done`` of so many of the work named ``of`` have."""

    def close(self) -> None:
        """Called when the run is over."""


class _OfThread(threading.local):
    """The step, or other work, that a thread tells of."""

    name: str
    pace: Pace
    bar: Any = None  # on a terminal


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{number} {noun}{'s' * (number != 1)}"


def told_size(size: float) -> str:
    """Return a number of bytes, in the unit that it has three digits of.

    Example:
        >>> told_size(999), told_size(2048), told_size(5 * 2**30)
        ('999 B', '2.0 KiB', '5.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


class LogProgress(RunProgress):
    """Plain lines, for logs."""

    def __init__(self, stream: TextIO | None = None, every: float = LOG_EVERY) -> None:
        super().__init__()
        self.stream, self.every = stream or sys.stderr, every
        self.paces: dict[str, TrainingPace] = {}
        self.activities: dict[str, str] = {}  # by name
        self.begun = self.summed = time.monotonic()
        self.since = self.counted = self.begun  # of the other work that was begun last
        self.lock = threading.Lock()  # of the stream

    def say(self, text: str) -> None:
        """Write a line."""
        with self.lock:
            print(f"{time.strftime('%H:%M:%S')} {safe(text)}", file=self.stream, flush=True)

    def whole(self) -> None:
        """Report how far the run is, if that is due."""
        with self.lock:
            if not self.agenda.active or not is_due(self.begun, self.summed, WHOLE * self.every):
                return
            self.summed = time.monotonic()
        self.say(f"whole run: {self.agenda.line()}")

    def made(self, url: str, name: str) -> None:
        """Report how far the run is."""
        super().made(url, name)
        self.whole()

    def waits(self, whole: str) -> None:
        """Report how far the other run is."""
        super().waits(whole)
        self.whole()

    def found(self, sealed: SealedSet) -> None:
        """Report that a step was finished before."""
        self.say(f"{sealed.name}: finished by an earlier run, {plural(sealed.records, 'record')}")

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Report the start of a step."""
        super().begin(name, shards, done, records)
        kept = f", {done} of them kept from before" if done else ""
        self.say(f"{name}: {plural(shards, 'shard')}{kept}, {plural(records, 'record')}")

    def advance(self, receipt: Receipt) -> None:
        """Report the progress of the step, if that is due."""
        super().advance(receipt)
        pace = self.here.pace
        if pace.done < pace.shards and is_due(pace.begun, pace.logged, self.every):
            pace.logged = time.monotonic()
            rate = f"{pace.rate:.1f} records/s, {clock(pace.left)} to go"
            self.say(f"{self.here.name}: {pace.done}/{pace.shards} shards, {rate}")
        self.whole()

    def end(self, sealed: SealedSet) -> None:
        """Report that the step is sealed."""
        seal = sealed.seal
        self.say(
            f"{sealed.name}: sealed, {plural(sealed.records, 'record')}, {seal['rejected']} rejected, "
            f"{seal['quarantined']} quarantined, {clock(time.monotonic() - self.here.pace.begun)}"
        )

    def working(self, name: str, activity: str) -> None:
        """Report the start of other work."""
        self.say(f"{name}: {activity}")
        self.since = self.counted = time.monotonic()
        self.activities[name] = activity

    def training(self, name: str, metrics: Mapping[str, float]) -> None:
        """Report the progress of a training, if that is due."""
        if "step" not in metrics:
            return
        pace = self.paces.setdefault(name, TrainingPace(metrics))
        pace.take(metrics)
        if is_due(pace.begun, pace.logged, self.every):
            pace.logged = time.monotonic()
            self.say(f"{name}: {', '.join(part for part in pace.parts() if part)}")
        self.whole()

    def trained(self, name: str, of: str, done: int, jobs: int) -> None:
        """Report how many are done, if that is due."""
        self.paces.pop(name, None)
        if done < jobs and is_due(self.since, self.counted, self.every):
            self.counted = time.monotonic()
            self.say(f"{of}: {self.activities[of]}: {done} of {jobs} done")
        self.whole()

    def worked(self, name: str, activity: str, seconds: float) -> None:
        """Report the end of other work."""
        self.say(f"{name}: {activity} done, {clock(seconds)}")


class TerminalProgress(RunProgress):
    """Bars with rate and ETA, and below them how far the run is as a whole."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
        from rich.text import Text

        super().__init__()
        progress = self

        class Above(Bars):
            """Bars above the line of the whole run."""

            def get_renderables(self) -> Iterator[Any]:
                yield self.make_tasks_table(self.tasks)
                if progress.agenda.active:
                    yield Text(f"whole run: {progress.agenda.line()}")

        self.bars = Above(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[shards]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self.bars.start()
        self.works: dict[str, Any] = {}  # the bar of each work but steps, by name
        self.trainings: dict[str, tuple[TrainingPace, Any]] = {}

    def _clear(self) -> None:
        if self.here.bar is not None:
            self.bars.remove_task(self.here.bar)
            self.here.bar = None

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.bars.console.print(safe(text), highlight=False, markup=False)

    def found(self, sealed: SealedSet) -> None:
        """Report that a step was finished before."""
        self.say(f"{sealed.name}: finished by an earlier run, {plural(sealed.records, 'record')}")

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Show a bar."""
        self._clear()
        super().begin(name, shards, done, records)
        self.here.bar = self.bars.add_task(
            safe(name), total=shards, completed=done, shards=f"{done}/{shards} shards", rate="", left=""
        )

    def advance(self, receipt: Receipt) -> None:
        """Move the bar."""
        super().advance(receipt)
        pace = self.here.pace
        self.bars.update(
            self.here.bar,
            completed=pace.done,
            shards=f"{pace.done}/{pace.shards} shards",
            rate=f"{pace.rate:.1f} records/s",
            left=f"ETA {clock(pace.left)}",
        )

    def end(self, sealed: SealedSet) -> None:
        """Replace the bar by a line."""
        self._clear()
        seal = sealed.seal
        self.say(
            f"{sealed.name}: {plural(sealed.records, 'record')}, {seal['rejected']} rejected, "
            f"{seal['quarantined']} quarantined, {clock(time.monotonic() - self.here.pace.begun)}"
        )

    def working(self, name: str, activity: str) -> None:
        """Show a bar of unknown length."""
        self.works[name] = self.bars.add_task(safe(f"{name}: {activity}"), total=None, shards="", rate="", left="")

    def worked(self, name: str, activity: str, seconds: float) -> None:
        """Replace the bar by a line."""
        self.bars.remove_task(self.works.pop(name))
        self.say(f"{name}: {activity} done, {clock(seconds)}")

    def training(self, name: str, metrics: Mapping[str, float]) -> None:
        """Show or move the bar of a training, beside those of others."""
        if "step" not in metrics:
            return
        if name not in self.trainings:
            task = self.bars.add_task(f"  {safe(name)}", total=metrics.get("steps"), shards="", rate="", left="")
            self.trainings[name] = TrainingPace(metrics), task
        pace, task = self.trainings[name]
        pace.take(metrics)
        step, rate, left = pace.parts()
        self.bars.update(task, completed=pace.done, shards=step, rate=rate, left=left)

    def trained(self, name: str, of: str, done: int, jobs: int) -> None:
        """Remove the bar of a training, and count it."""
        if name in self.trainings:
            self.bars.remove_task(self.trainings.pop(name)[1])
        self.bars.update(self.works[of], total=jobs, completed=done, shards=f"{done} of {jobs} done")

    def close(self) -> None:
        """Stop the bars."""
        self.bars.stop()


@contextlib.contextmanager
def shown(quiet: bool = False) -> Iterator[RunProgress]:
    """Yield bars if standard error is a terminal, else log lines; close the progress at the end in any case."""
    progress: RunProgress
    stream = _own_stderr()
    if quiet:
        progress = RunProgress()
    elif sys.stderr.isatty():
        from rich.console import Console

        progress = TerminalProgress(Console(file=stream))
    else:
        progress = LogProgress(stream)
    try:
        yield progress
    finally:
        progress.close()
        if stream is not sys.stderr:
            stream.close()


def _own_stderr() -> TextIO:
    """Return standard error by a descriptor of its own: a Ray that starts meanwhile mutes the other for a while."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")
    except (OSError, ValueError):  # it was replaced, as by tests, or is closed
        return sys.stderr
