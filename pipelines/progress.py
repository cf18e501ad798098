"""How a run tells where it is: bars with an ETA on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Progress
from gristmill.shards.receipt import Receipt

LOG_EVERY = 15.0  # seconds between lines of one step


class RunProgress(Progress):
    """Hears of steps, and of the other work of a run; this one tells nobody."""

    def say(self, text: str) -> None:
        """Something is to be known of the run as a whole."""

    def working(self, name: str, what: str) -> None:
        """Something without shards begins: a listing, a fit, a training."""

    def worked(self, name: str, what: str, seconds: float) -> None:
        """It ended well."""

    def close(self) -> None:
        """The run is over."""


def plural(number: int, what: str) -> str:
    """Return how many there are of something."""
    return f"{number} {what}{'s' * (number != 1)}"


class Pace:
    """The rate of a step, over what this run did itself."""

    def __init__(self, shards: int, done: int, records: int) -> None:
        self.shards, self.done, self.records = shards, done, records
        self.fresh = self.seen = self.kept_out = 0
        self.begun = self.told = time.monotonic()

    def advance(self, receipt: Receipt) -> None:
        """Count a shard."""
        self.done, self.fresh, self.seen = self.done + 1, self.fresh + 1, self.seen + receipt.records_in
        self.kept_out += receipt.rejected + receipt.quarantined

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.seen / max(time.monotonic() - self.begun, 1e-6)

    @property
    def left(self) -> float | None:
        """Seconds until the end, once a shard is done."""
        if not self.fresh:
            return None
        return (time.monotonic() - self.begun) / self.fresh * (self.shards - self.done)


class LogProgress(RunProgress):
    """Plain lines, for logs."""

    def __init__(self, stream: TextIO | None = None, every: float = LOG_EVERY) -> None:
        self.stream, self.every = stream or sys.stderr, every

    def say(self, text: str) -> None:
        """Write a line."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self.stream, flush=True)

    def found(self, sealed: SealedSet) -> None:
        """Say that a step was finished before."""
        self.say(f"{sealed.name}: finished by an earlier run, {sealed.records} records")

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Say that a step starts."""
        self.name, self.pace = name, Pace(shards, done, records)
        kept = f", {done} of them kept from before" if done else ""
        self.say(f"{name}: {plural(shards, 'shard')}{kept}, {plural(records, 'record')}")

    def advance(self, receipt: Receipt) -> None:
        """Say how far the step is, now and then."""
        pace = self.pace
        pace.advance(receipt)
        if time.monotonic() - pace.told >= self.every and pace.done < pace.shards:
            pace.told = time.monotonic()
            self.say(
                f"{self.name}: {pace.done}/{pace.shards} shards, {pace.rate:.1f} records/s, {clock(pace.left)} to go"
            )

    def end(self, sealed: SealedSet) -> None:
        """Say that the step is sealed."""
        seal = sealed.seal
        self.say(
            f"{sealed.name}: sealed, {sealed.records} records, {seal['rejected']} rejected, "
            f"{seal['quarantined']} quarantined, {clock(time.monotonic() - self.pace.begun)}"
        )

    def working(self, name: str, what: str) -> None:
        """Say that other work begins."""
        self.say(f"{name}: {what}")

    def worked(self, name: str, what: str, seconds: float) -> None:
        """Say that it ended."""
        self.say(f"{name}: {what} done, {clock(seconds)}")


class TerminalProgress(RunProgress):
    """Bars with rate and ETA."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[shards]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self.bars.start()
        self.task: Any = None

    def _clear(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None

    def say(self, text: str) -> None:
        """Leave a line."""
        self.bars.console.print(text, highlight=False, markup=False)

    def found(self, sealed: SealedSet) -> None:
        """Say that a step was finished before."""
        self.say(f"{sealed.name}: finished by an earlier run, {sealed.records} records")

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Show a bar."""
        self._clear()
        self.pace = Pace(shards, done, records)
        self.task = self.bars.add_task(
            name, total=shards, completed=done, shards=f"{done}/{shards} shards", rate="", left=""
        )

    def advance(self, receipt: Receipt) -> None:
        """Move the bar."""
        self.pace.advance(receipt)
        self.bars.update(
            self.task,
            completed=self.pace.done,
            shards=f"{self.pace.done}/{self.pace.shards} shards",
            rate=f"{self.pace.rate:.1f} records/s",
            left=f"ETA {clock(self.pace.left)}",
        )

    def end(self, sealed: SealedSet) -> None:
        """Leave a line in the bar's place."""
        self._clear()
        seal = sealed.seal
        self.say(
            f"{sealed.name}: {sealed.records} records, {seal['rejected']} rejected, {seal['quarantined']} quarantined, "
            f"{clock(time.monotonic() - self.pace.begun)}"
        )

    def working(self, name: str, what: str) -> None:
        """Show a bar without an end."""
        self._clear()
        self.task = self.bars.add_task(f"{name}: {what}", total=None, shards="", rate="", left="")

    def worked(self, name: str, what: str, seconds: float) -> None:
        """Leave a line in the bar's place."""
        self._clear()
        self.say(f"{name}: {what} done, {clock(seconds)}")

    def close(self) -> None:
        """Give the terminal back."""
        self.bars.stop()


@contextlib.contextmanager
def shown(quiet: bool = False) -> Iterator[RunProgress]:
    """Give the progress that fits where standard error goes, and end it whatever happens."""
    progress: RunProgress
    if quiet:
        progress = RunProgress()
    elif sys.stderr.isatty():
        progress = TerminalProgress()
    else:
        progress = LogProgress()
    try:
        yield progress
    finally:
        progress.close()


def clock(seconds: float | None) -> str:
    """Return a span of time as people write it."""
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
