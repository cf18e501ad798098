"""The progress of a run, read from its committed files; needs neither Ray nor the running process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gristmill.cluster.checkpoints import Checkpoints
from gristmill.pipelines.command.audit import damaged_files
from gristmill.pipelines.command.planfile import read_plan
from gristmill.pipelines.command.whole import SetStatus, WholeRun, whole_run
from gristmill.pipelines.config import read_saved, saved_digest, settings_digest
from gristmill.pipelines.graph import base_name
from gristmill.pipelines.ledger import has_report, read_ledger
from gristmill.pipelines.pace import clock, training_parts
from gristmill.pipelines.progress import plural
from gristmill.pipelines.report.files import REPORT
from gristmill.shards import engine, store
from gristmill.shards.artifact import MARK, get_artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.finding import Found, find_below
from gristmill.shards.lease import Lease
from gristmill.shards.receipt import check_stored, committed_shards, read_receipts
from gristmill.shards.safe_text import escaped
from gristmill.shards.store import join

RECENT = 600.0  # seconds before the newest commit from which the rate is taken
PATIENCE = 3.0  # multiple of the mean interval between commits after which there is no forecast
SHORTEST = 60.0  # seconds without a commit that never end the forecast
BEFORE_WORK = 30.0  # seconds that a run may need until it holds the lease of its output


@dataclass(frozen=True)
class RunStatus:
    """The progress of a run."""

    sets: list[SetStatus]  # by last activity, newest at the end
    whole: WholeRun = WholeRun()
    over: bool = False  # the run with the settings saved last has ended, and all that it made is there
    stopped: bool = False  # it is not over, and no run is at work
    faults: tuple[str, ...] = ()  # of the files that the run keeps beside its sets
    planned: float | None = None  # Unix time of the estimate, if nothing has run since

    @property
    def unreadable(self) -> list[SetStatus]:
        """The sets and artifacts that are damaged."""
        return [one for one in self.sets if one.state == "unreadable"]

    @property
    def under_way(self) -> list[SetStatus]:
        """The unfinished steps and trainings."""
        return [one for one in self.sets if one.state in ("under way", "training")]


@dataclass
class _Work:
    """Sums over the receipts of a set, so that each is read once."""

    shards: set[str] = field(default_factory=set)
    rows: int = 0
    rejected: int = 0
    quarantined: int = 0
    base: dict[str, int] = field(default_factory=dict)  # committed shards of the index: records in each
    planned: dict[str, int] | None = None
    times: dict[str, float] = field(default_factory=dict)  # of commits, by the clock of the worker that made them
    stages: Counter[str] = field(default_factory=Counter)  # seconds of each

    @property
    def seconds(self) -> float:
        """Of work, over all workers."""
        return sum(self.stages.values())

    @property
    def last(self) -> float | None:
        """The Unix time of the newest commit, if one is known."""
        return max(self.times.values(), default=None)

    def read(self, url: str, names: list[str]) -> None:
        """Add the new receipts."""
        new = [name for name in names if name not in self.shards]
        for receipt in read_receipts(url, new):
            again = receipt.requeue_of is not None
            self.rows += receipt.data.rows
            self.rejected += receipt.rejected
            self.quarantined += receipt.quarantined - (receipt.records_in if again else 0)
            self.stages.update(receipt.attempt.get("seconds", {}))
            if "at" in receipt.attempt:
                self.times[receipt.shard] = receipt.attempt["at"]
            if not again:
                self.base[receipt.shard] = receipt.records_in
        self.shards.update(new)


class StatusReader:
    """Reads the state of a run repeatedly, each time only the new receipts."""

    def __init__(self, out: str) -> None:
        self.out = out
        self._work: dict[str, _Work] = {}
        # Sets (by URL and digest) and artifacts whose files were found to be there.
        self._whole: set[tuple[str, str]] = set()

    def read(self) -> RunStatus:
        """Return the state of each set, artifact and training below the output, and of the run as a whole.

        Raises:
            UserError: there is no run.
        """
        found = find_below(self.out)
        faults = tuple(
            f"{error.url.removeprefix(self.out).lstrip('/')}: {error.fault}" for error in damaged_files(self.out)
        )
        sets = [self._state(one.name, one.url, partial(self._sealed, one)) for one in found.sealed]
        for urls, read in ((found.unsealed, self._unsealed), (found.artifacts, self._artifact)):
            sets += [self._state(found.names[url], url, partial(read, found.names[url], url)) for url in urls]
        sets += [_training(found.names[url], url) for url in found.training]
        sets += self._cleaned(found)
        sets += [SetStatus(found.names[url], url, "unreadable", fault=why) for url, why in found.unreadable.items()]
        plan = read_plan(self.out) if not faults else None
        if not sets and not plan:
            raise UserError(f"{self.out}: there is no run here; expected the output of `gristmill run`")
        sets.sort(key=lambda one: (one.last or 0.0, one.name))
        unfinished = faults or any(one.state in ("under way", "training", "unreadable") for one in sets)
        over = not unfinished and self._is_over(found)
        if faults:
            return RunStatus(sets, over=over, faults=faults)
        saved = read_saved(self.out)
        digest = None if saved is None else settings_digest(saved)
        stopped = not over and Lease(self.out).is_free()
        planned = None
        if plan is not None and not sets and "run" not in plan:
            planned, digest = plan.get("at"), plan.get("settings", digest)  # no settings were saved yet
        whole = whole_run(self.out, plan, digest, sets, self._a_record, stopped=stopped)
        return RunStatus(sets, whole, over, stopped, planned=planned if stopped else None)

    @staticmethod
    def _state(name: str, url: str, read: Callable[[], SetStatus]) -> SetStatus:
        try:
            return read()
        except Damaged as error:
            where = error.url.removeprefix(url).lstrip("/")
            return SetStatus(name, url, "unreadable", fault=f"{where}: {error.fault}")

    def _sealed(self, sealed: SealedSet) -> SetStatus:
        work = self._of(sealed.url)
        if (sealed.url, sealed.digest) not in self._whole:  # looked at once
            check_stored(sealed.url, sealed.files)
            if sealed.seal.get("input_digests") is not None and engine.read_plan(sealed.url) is None:
                raise Damaged(join(sealed.url, engine.PLAN), "the file is missing")
            self._whole.add((sealed.url, sealed.digest))
        counts = (sealed.records, sealed.seal["rejected"], sealed.seal["quarantined"], work.seconds)
        number = len(work.base)
        return SetStatus(sealed.name, sealed.url, "sealed", number, number, *counts, work.last)

    def _artifact(self, name: str, url: str) -> SetStatus:
        if (url, MARK) not in self._whole and (made := get_artifact(url)) is not None:
            made.check_stored()
            self._whole.add((url, MARK))
        return SetStatus(name, url, "artifact")

    def _is_over(self, found: Found) -> bool:
        """Return whether the run with the settings saved last has ended, and all that it made is there."""
        ledger = read_ledger(self.out)
        if ledger is None or ledger["settings"] != saved_digest(self.out):
            return False
        if has_report(ledger) and not store.exists(join(self.out, REPORT)):
            return False
        there = {one.url for one in found.sealed} | {*found.artifacts, *found.cleaned}
        return all(join(self.out, entry["path"]) in there for entry in ledger["made"])

    def _cleaned(self, found: Found) -> Iterator[SetStatus]:
        """Yield the state of what was cleaned, by its seal if that was kept."""
        ledger = read_ledger(self.out) if found.cleaned else None
        used = {join(self.out, entry["path"]) for entry in (ledger or {"made": []})["made"]}
        for one in found.cleaned.values():
            sealed, named = one.sealed, (one.tombstone.name, one.url, "cleaned")
            if sealed is not None:
                number, seal = len(sealed.shards), sealed.seal
                counts = (sealed.records, seal["rejected"], seal["quarantined"])
                yield SetStatus(*named, number, number, *counts, used=one.url in used)
            elif one.tombstone.kind != "unfinished":
                yield SetStatus(*named)

    def _of(self, url: str) -> _Work:
        work = self._work.setdefault(url, _Work())
        work.read(url, committed_shards(url))
        return work

    def _unsealed(self, name: str, url: str) -> SetStatus:
        work = self._of(url)
        if work.planned is None:
            work.planned = engine.planned_rows(url)
        planned = None if work.planned is None else sum(work.planned.values())
        total = None if work.planned is None else len(work.planned)
        records = sum(work.base.values())
        rate = _rate([(work.times[shard], count) for shard, count in work.base.items() if shard in work.times])
        left = max(0, planned - records) / rate if rate and planned is not None else None
        counts = (work.rows, work.rejected, work.quarantined, work.seconds, work.last)
        return SetStatus(name, url, "under way", len(work.base), total, *counts, records, planned, rate, left)

    def _a_record(self) -> dict[str, float]:
        """Return the seconds that stages spent on a record, over all workers; those of several seeds are one."""
        seconds: Counter[str] = Counter()
        records: Counter[str] = Counter()
        for work in self._work.values():
            for stage, spent in work.stages.items():
                seconds[base_name(stage)] += spent
                records[base_name(stage)] += sum(work.base.values())
        return {stage: spent / records[stage] for stage, spent in seconds.items() if records[stage]}


def read_status(out: str) -> list[SetStatus]:
    """Return the state of each set, artifact and training below an output, by last activity.

    Raises:
        UserError: there is no run.
    """
    return StatusReader(out).read().sets


def _rate(commits: list[tuple[float, int]], now: float | None = None) -> float | None:
    """Return the records per second of the recent commits, each given as (time, records)."""
    commits = sorted(commits)
    recent = [one for one in commits if one[0] >= commits[-1][0] - RECENT]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    (first, _), (last, _) = recent[0], recent[-1]
    silent = (time.time() if now is None else now) - last
    if silent > max(SHORTEST, PATIENCE * (last - first) / (len(recent) - 1)):
        return None
    return sum(count for _, count in recent[1:]) / (last - first)


def show_status(out: str, watch: float | None = None) -> None:
    """Print one line per set; with ``watch``, again every so many seconds until the run is over, or no run was at work
    for half a minute.

    On a terminal the table is updated in place; elsewhere lines are printed for the steps under way.
    """
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 200)
    reader = StatusReader(out)
    if watch is None:
        status = reader.read()
        if status.sets:
            console.print(_table(status))
        for line in _whole(status):
            print(line)
    elif console.is_terminal:
        _live(reader, watch, console)
    else:
        for status in _again(reader, watch):
            for line in [*map(_line, status.under_way), *_whole(status)]:
                print(f"{time.strftime('%H:%M:%S')} {escaped(line)}", flush=True)


def _again(reader: StatusReader, every: float) -> Iterator[RunStatus]:
    at_work = time.monotonic()
    while True:
        status = reader.read()
        if not status.stopped:
            at_work = time.monotonic()
        yield status
        if status.over or time.monotonic() - at_work >= BEFORE_WORK:
            return
        time.sleep(every)


def _live(reader: StatusReader, every: float, console: Any) -> None:
    from rich.console import Group
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for status in _again(reader, every):
            # The sets under way, at the end of the table, stay visible if it is longer than the terminal.
            rows = max(5, console.height - 6)
            live.update(Group(_table(status, rows), *_whole(status)), refresh=True)


def _table(status: RunStatus, most: int | None = None) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    for column in ("state", "shards", "rows", "rejected", "quarantined", "work", "rate", "to go", "last activity"):
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for one in status.sets[-most:] if most else status.sets:
        counts = [_shards(one), *map(str, (one.rows, one.rejected, one.quarantined)), clock(one.seconds)]
        if one.state in ("artifact", "training", "unreadable") or (one.state == "cleaned" and one.total is None):
            known = [_shards(one), "" if one.loss is None else f"loss {one.loss:.3g}"] if one.total else ["", ""]
            counts = [*known, "", "", ""] if one.state == "training" else [""] * 5
        pace = [f"{one.rate:.1f}/s" if one.rate else "", clock(one.left) if one.left is not None else ""]
        ago = "" if one.last is None else f"{clock(max(0.0, time.time() - one.last))} ago"
        name = Text(escaped(f"{one.name} {one.url[-16:][:8]}"))  # a plain text may hold Rich's markup
        table.add_row(name, one.state, *counts, *pace, ago)
    return table


def _shards(one: SetStatus) -> str:
    return f"{one.done}/{'?' if one.total is None else one.total}"


def _training(name: str, url: str) -> SetStatus:
    """Return the state of a training, by the point of its curves that it wrote last; none in its first seconds, and
    no rate if that was long ago."""
    try:
        written = Checkpoints(url).noted_point()
        last, rate = float(written["at"]), float(written["steps_per_second"]) or None
        done, total, loss = int(written["step"]) + 1, written.get("steps"), written.get("loss")
    except (KeyError, TypeError, ValueError):
        return SetStatus(name, url, "training")
    if time.time() - last > RECENT:
        rate = None  # it was stopped, or stands still
    left = (total - done) / rate if total and rate else None
    total = None if total is None else int(total)
    return SetStatus(name, url, "training", done, total, last=last, rate=rate, left=left, loss=loss)


def _line(one: SetStatus) -> str:
    if one.state == "training":
        known = training_parts(one.done, one.total, one.loss, one.rate, one.left) if one.total else ()
        return f"{one.name}: {', '.join(['training', *filter(None, known)])}"
    pace = f"{one.rate:.1f} records/s, {clock(one.left)} to go" if one.rate else "no rate: no recent commits"
    return f"{one.name}: {_shards(one)} shards, {one.rejected} rejected, {one.quarantined} quarantined, {pace}"


def _whole(status: RunStatus) -> list[str]:
    """Return the lines about the run as a whole."""
    cleaned = sum(one.state == "cleaned" for one in status.sets)
    told = f"{plural(cleaned, 'result')} deleted by `gristmill clean`; a run makes again what it needs"
    return [*([told] if cleaned else []), *_of_run(status)]


def _of_run(status: RunStatus) -> list[str]:
    if status.over:
        return ["all steps are finished", "whole run: finished"]
    if status.unreadable or status.faults:
        return [
            *(f"{one.name}: damaged ({escaped(one.fault)})" for one in status.unreadable),
            *(f"damaged: {escaped(fault)}" for fault in status.faults),
            "`gristmill audit` tells all of it, `gristmill repair` moves it aside",
        ]
    under = len(status.under_way)
    if status.planned is not None:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.planned))
        return [f"nothing has run yet: a plan was made on {at}, and `gristmill run` begins", status.whole.line()]
    if status.stopped:
        begun = f" {plural(under, 'result')} begun and not finished." if under else ""
        return [f"no run is at work: it ended before its end.{begun} The same command goes on", status.whole.line()]
    # A training is visible from its first checkpoint.
    idle = "none under way and no report yet: the run is between steps, is starting a training, or was ended"
    return [f"{under} under way" if under else idle, status.whole.line()]
