"""Progress of a run: bars with an ETA on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Progress
from gristmill.shards.receipt import Receipt
from gristmill.shards.safe_text import safe

LOG_EVERY = 15.0  # seconds between lines of one step


class RunProgress(Progress):
    """Callbacks for the steps and the other work of a run; these do nothing."""

    def say(self, text: str) -> None:
        """Show a message about the run as a whole."""

    def working(self, name: str, activity: str) -> None:
        """Called when work without shards starts: a listing, a fit, a training."""

    def worked(self, name: str, activity: str, seconds: float) -> None:
        """Called when that work has succeeded."""

    def close(self) -> None:
        """Called when the run is over."""


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{number} {noun}{'s' * (number != 1)}"


class Pace:
    """The rate of a step, over the shards that this run made itself."""

    def __init__(self, shards: int, done: int, records: int) -> None:
        self.shards, self.done, self.records = shards, done, records
        self.fresh = self.seen = self.kept_out = 0
        self.begun = self.logged = time.monotonic()

    def advance(self, receipt: Receipt) -> None:
        """Count a shard."""
        self.done, self.fresh, self.seen = self.done + 1, self.fresh + 1, self.seen + receipt.records_in
        self.kept_out += receipt.rejected + receipt.quarantined

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.seen / max(time.monotonic() - self.begun, 1e-6)

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end; ``None`` before the first shard."""
        if not self.fresh:
            return None
        return (time.monotonic() - self.begun) / self.fresh * (self.shards - self.done)


class LogProgress(RunProgress):
    """Plain lines, for logs."""

    def __init__(self, stream: TextIO | None = None, every: float = LOG_EVERY) -> None:
        self.stream, self.every = stream or sys.stderr, every

    def say(self, text: str) -> None:
        """Write a line."""
        print(f"{time.strftime('%H:%M:%S')} {safe(text)}", file=self.stream, flush=True)

    def found(self, sealed: SealedSet) -> None:
        """Report that a step was finished before."""
        self.say(f"{sealed.name}: finished by an earlier run, {plural(sealed.records, 'record')}")

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Report the start of a step."""
        self.name, self.pace = name, Pace(shards, done, records)
        kept = f", {done} of them kept from before" if done else ""
        self.say(f"{name}: {plural(shards, 'shard')}{kept}, {plural(records, 'record')}")

    def advance(self, receipt: Receipt) -> None:
        """Report the progress of the step, at most every ``every`` seconds."""
        pace = self.pace
        pace.advance(receipt)
        if time.monotonic() - pace.logged >= self.every and pace.done < pace.shards:
            pace.logged = time.monotonic()
            self.say(
                f"{self.name}: {pace.done}/{pace.shards} shards, {pace.rate:.1f} records/s, {clock(pace.left)} to go"
            )

    def end(self, sealed: SealedSet) -> None:
        """Report that the step is sealed."""
        seal = sealed.seal
        self.say(
            f"{sealed.name}: sealed, {plural(sealed.records, 'record')}, {seal['rejected']} rejected, "
            f"{seal['quarantined']} quarantined, {clock(time.monotonic() - self.pace.begun)}"
        )

    def working(self, name: str, activity: str) -> None:
        """Report the start of other work."""
        self.say(f"{name}: {activity}")

    def worked(self, name: str, activity: str, seconds: float) -> None:
        """Report the end of other work."""
        self.say(f"{name}: {activity} done, {clock(seconds)}")


class TerminalProgress(RunProgress):
    """Bars with rate and ETA."""

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self.bars = Bars(
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
        self.task: Any = None

    def _clear(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.bars.console.print(safe(text), highlight=False, markup=False)

    def found(self, sealed: SealedSet) -> None:
        """Report that a step was finished before."""
        self.say(f"{sealed.name}: finished by an earlier run, {plural(sealed.records, 'record')}")

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        """Show a bar."""
        self._clear()
        self.pace = Pace(shards, done, records)
        self.task = self.bars.add_task(
            safe(name), total=shards, completed=done, shards=f"{done}/{shards} shards", rate="", left=""
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
        """Replace the bar by a line."""
        self._clear()
        seal = sealed.seal
        self.say(
            f"{sealed.name}: {plural(sealed.records, 'record')}, {seal['rejected']} rejected, "
            f"{seal['quarantined']} quarantined, {clock(time.monotonic() - self.pace.begun)}"
        )

    def working(self, name: str, activity: str) -> None:
        """Show a bar of unknown length."""
        self._clear()
        self.task = self.bars.add_task(safe(f"{name}: {activity}"), total=None, shards="", rate="", left="")

    def worked(self, name: str, activity: str, seconds: float) -> None:
        """Replace the bar by a line."""
        self._clear()
        self.say(f"{name}: {activity} done, {clock(seconds)}")

    def close(self) -> None:
        """Stop the bars."""
        self.bars.stop()


@contextlib.contextmanager
def shown(quiet: bool = False) -> Iterator[RunProgress]:
    """Yield bars if standard error is a terminal, else log lines; close the progress at the end in any case."""
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
    """Return a duration in readable form."""
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
