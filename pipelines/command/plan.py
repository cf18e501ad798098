"""The plan of a run: its steps, time and cost, estimated before it starts."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.pipelines.command.launch import check_storage, write_plan
from gristmill.pipelines.command.sampling import Line, SampledRun, at_once
from gristmill.pipelines.config import Loaded
from gristmill.pipelines.progress import clock, told_size
from gristmill.shards import processor
from gristmill.shards.errors import GristmillError, Interrupted, UserError, with_class
from gristmill.shards.safe_text import escaped
from gristmill.shards.scratch import scratch

SAMPLE = 48  # records of each source
LARGER = 8  # times as many are tried if so few do not carry a recipe to its end


@dataclass
class PricedPlan:
    """The lines of a plan, and their totals."""

    out: str
    sample: int
    workers: int
    lines: list[Line]
    rest: float  # seconds outside all lines: scoring and the report
    cost: float
    priced: bool
    notes: list[str] = field(default_factory=list)
    settings: str = ""  # the digest of those that results depend on

    @property
    def seconds(self) -> float:
        """Wall time of the remaining work."""
        wall = sum(line.wall for line in self.lines)
        return wall + self.rest if any(line.left for line in self.lines) else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the estimates that the report compares with measurements."""
        by_name: dict[str, Any] = {"seconds": round(self.seconds, 3)}
        for line in self.lines:
            seconds = by_name.setdefault(line.name, {"seconds": 0.0})
            seconds["seconds"] = round(seconds["seconds"] + line.wall, 3)
        # What a run counts by; equal jobs, and a step that is used twice, are one result.
        results = {line.url: [line.name, round(line.wall, 3)] for line in reversed(self.lines)}
        told: dict[str, Any] = {"results": [*reversed(results.values())], "settings": self.settings}
        told |= {"sample": self.sample, "workers": self.workers, "cost": round(self.cost, 4)}
        return {"estimate": by_name, **told}


def make_plan(loaded: Loaded, sample: int | None = None) -> PricedPlan:
    """Estimate a run from a sample of each source, and write the estimate to ``plan.json`` under the output.

    ``sample`` is the number of records per source; the default is the recipe's ``SAMPLE``, or 48. A recipe that does
    not come to its end with so few records is tried with more.

    Raises:
        UserError: the run itself would fail at once.
        GristmillError: the recipe comes to its end with no sample.
    """
    common = loaded.common
    processor.choose(common.processor)
    sample = getattr(loaded.module, "SAMPLE", SAMPLE) if sample is None else sample
    check_storage(loaded)
    run, rest, sample = _try(loaded, sample)
    prices = common.price
    cost = sum(line.cpu * prices.cpu_hour + line.gpu * prices.gpu_hour for line in run.lines) / 3600
    priced = bool(prices.cpu_hour or prices.gpu_hour)
    unpriced = "no prices are set: give --cpu-hour and --gpu-hour, or price.cpu_hour and price.gpu_hour"
    made = PricedPlan(common.out, sample, run.workers, run.lines, rest, cost, priced, [] if priced else [unpriced])
    if not run.lines:
        raise UserError(f"{loaded.recipe}: the recipe makes nothing")
    made.settings = loaded.digest
    if made.seconds:
        write_plan(common.out, made.to_json())
    return made


def _try(loaded: Loaded, sample: int) -> tuple[SampledRun, float, int]:
    """Try a recipe on a sample; return the run, the seconds outside its lines, and the size of the sample.

    A few records may be too few for a recipe (no speaker to hold out, an empty part), so one that fails is tried once
    more with a larger sample, and again if it got further with that. What fails at the same place with more records, or
    with all there are, fails for another reason.
    """
    from gristmill.cluster.inprocess import InProcessRunner

    common = loaded.common
    failed: tuple[str, type[Exception]] | None = None
    while True:
        with scratch() as folder:
            run = SampledRun(
                str(folder),
                InProcessRunner(),
                common.seed,
                seeds=list(common.seeds),
                real=common.out,
                sample=sample,
                workers=at_once(common.runner, common.workers),
                on_ray=common.runner == "ray",
            )
            print(f"trying the recipe on up to {sample} records of each source ...", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            try:
                loaded.run(loaded.config, run)
                run.finish()
            except (Interrupted, OSError):
                raise
            except Exception as error:
                if not any(line.kind != "source" for line in run.lines):
                    raise  # a mistake that is found before any work
                place = run.lines[-1].name, type(error)
                if run.is_whole or place == failed:
                    raise _failure(error, place[0], None if run.is_whole else sample) from error
                failed = place
            else:
                return run, time.perf_counter() - begun - run.inside, sample
        sample *= LARGER


def _failure(error: Exception, last: str, sample: int | None) -> GristmillError:
    """Return an error that ended the trial of a recipe as sentences, with the exit code that the run would have.

    ``sample`` is the number of records of each source that it was tried on, ``None`` for all.
    """
    where = (
        f"so ended the recipe, tried on {f'up to {sample}' if sample else 'all'} records of each source, after {last}"
    )
    if isinstance(error, GristmillError):
        # What a trial made is gone, and cannot be inspected.
        said = [re.sub(r"; see `gristmill inspect [^`]*`", "", sentence) for sentence in error.args]
        kind = UserError if isinstance(error, UserError) else GristmillError
        more = "; if too few records are the reason, expected --sample N with more" if sample else ""
        return kind(*said, where + more)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return GristmillError(f"{with_class(error)} ({frame.filename}, line {frame.lineno}): {where}")


def show_plan(plan: PricedPlan) -> None:
    """Print the plan."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for column in ("done", "to do", "rows", "audio", "size", "time", "cpu h", "gpu h"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in _joined(plan.lines):
        table.add_row(
            Text(escaped(line.name)),
            line.kind,
            str(line.done),
            str(line.total - line.done),
            f"{line.rows:,.0f}" if line.rows else "",
            f"{line.hours:.2f} h" if line.hours else "",
            told_size(line.bytes) if line.bytes else "",
            clock(line.wall) if line.left else "finished",
            f"{line.cpu / 3600:.2f}",
            f"{line.gpu / 3600:.2f}",
        )
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    cpu, gpu = (sum(getattr(line, key) for line in plan.lines) / 3600 for key in ("cpu", "gpu"))
    if not plan.seconds:
        print("nothing to do: everything was finished by an earlier run")
    else:
        scope = f"{plan.workers} worker{'s' * (plan.workers > 1)}"
        size = told_size(sum(line.bytes * line.left for line in plan.lines))
        print(f"in total about {clock(plan.seconds)} with {scope}: {cpu:.2f} CPU h, {gpu:.2f} GPU h, {size} to write")
        print(f"cost {plan.cost:.2f}" if plan.priced else "cost 0 (no prices set)")
    print(f"priced from up to {plan.sample} records of each source; writes go to {plan.out}")
    for note in plan.notes:
        print(f"note: {escaped(note)}")


def _joined(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with equal names merged: models of several seeds, sets of several parts."""
    joined: dict[tuple[str, str], Line] = {}
    for line in lines:
        whole = joined.setdefault((line.name, line.kind), Line(line.name, line.kind, total=0))
        for key in ("done", "total", "rows", "hours", "bytes", "wall", "cpu", "gpu"):
            setattr(whole, key, getattr(whole, key) + getattr(line, key))
    return list(joined.values())
