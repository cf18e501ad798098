"""How far a run is, told from what it has committed; needs neither Ray nor the run itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.progress import clock
from shards import store
from shards.engine import planned_shards
from shards.errors import UserError
from shards.finding import find_below
from shards.receipt import RECEIPTS, committed_shards, read_receipts


@dataclass(frozen=True)
class SetStatus:
    """How far one set is."""

    name: str
    url: str
    state: str  # sealed, under way, artifact, training, unreadable
    done: int = 0
    total: int | None = None
    rows: int = 0
    rejected: int = 0
    quarantined: int = 0
    seconds: float = 0.0  # of work, over all workers
    last: float | None = None  # when the newest shard was committed, seconds since 1970


def read_status(out: str) -> list[SetStatus]:
    """Return the state of each set, artifact and training below an output, the one touched last at the end.

    Raises:
        UserError: there is nothing of a run.
    """
    found = find_below(out)
    states = []
    for sealed in found.sealed:
        seal = sealed.seal
        seconds, last = _work(sealed.url)[2:]
        states.append(
            SetStatus(
                sealed.name,
                sealed.url,
                "sealed",
                len(sealed.shards),
                len(sealed.shards),
                sealed.records,
                seal["rejected"],
                seal["quarantined"],
                seconds,
                last,
            )
        )
    for url in found.unsealed:
        done, counts, seconds, last = _work(url)
        states.append(SetStatus(_name(url), url, "under way", done, planned_shards(url), *counts, seconds, last))
    states += [SetStatus(_name(url), url, "artifact", last=_newest(url)) for url in found.artifacts]
    states += [
        SetStatus(_name(url), url, "training", last=_newest(store.join(url, "checkpoints"))) for url in found.training
    ]
    states += [SetStatus(_name(url), url, "unreadable") for url in found.unreadable]
    if not states:
        raise UserError(f"{out}: nothing of a run is here; expected the output of `gristmill run`")
    return sorted(states, key=lambda state: (state.last or 0.0, state.name))


def _name(url: str) -> str:
    return url.rstrip("/").split("/")[-2]


def _work(url: str) -> tuple[int, tuple[int, int, int], float, float | None]:
    shards = committed_shards(url)
    rows = rejected = quarantined = 0
    seconds = 0.0
    for receipt in read_receipts(url, shards):
        rows, rejected = rows + receipt.data.rows, rejected + receipt.rejected
        quarantined += receipt.quarantined - (receipt.records_in if receipt.requeue_of else 0)
        seconds += sum(receipt.attempt.get("seconds", {}).values())
    return len(shards), (rows, rejected, quarantined), seconds, _newest(store.join(url, RECEIPTS))


def _newest(url: str) -> float | None:
    """Return when the newest file of a folder was written; storage names that time each in its own way."""
    fs, path = store.filesystem(url)
    times = []
    for info in fs.ls(path, detail=True) if fs.exists(path) else []:
        at: Any = info.get("mtime") or info.get("LastModified") or info.get("updated") or info.get("last_modified")
        if isinstance(at, datetime):
            at = at.timestamp()
        if isinstance(at, float | int):
            times.append(float(at))
    return max(times, default=None)


def show_status(out: str) -> None:
    """Print one line for each set."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    for column in ("state", "shards", "rows", "rejected", "quarantined", "work", "last activity"):
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    states = read_status(out)
    for state in states:
        shards = f"{state.done}/{'?' if state.total is None else state.total}"
        counts = [shards, *map(str, (state.rows, state.rejected, state.quarantined)), clock(state.seconds)]
        if state.state in ("artifact", "training", "unreadable"):
            counts = [""] * 5
        ago = "" if state.last is None else f"{clock(max(0.0, time.time() - state.last))} ago"
        table.add_row(f"{state.name} {state.url[-16:][:8]}", state.state, *counts, ago)
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    under = sum(state.state in ("under way", "training") for state in states)
    print(f"{under} under way" if under else "all that was begun is finished")
