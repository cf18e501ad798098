"""The plan of a run: its steps, time and cost, estimated before it starts."""

from __future__ import annotations

import re
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from gristmill.pipelines.command.launch import check_storage
from gristmill.pipelines.command.planfile import write_plan
from gristmill.pipelines.command.sampling import Line, SampledRun, at_once
from gristmill.pipelines.config import Loaded
from gristmill.pipelines.forecast import PlannedResult, forecast, priced
from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY, UNKNOWN, GraphNode, merged, mermaid, text_lines
from gristmill.pipelines.graph_picture import to_svg
from gristmill.pipelines.pace import clock
from gristmill.pipelines.progress import told_size
from gristmill.pipelines.report.tables import listed
from gristmill.pipelines.results import workers_of
from gristmill.shards import processor
from gristmill.shards.errors import GristmillError, Interrupted, UserError, with_class
from gristmill.shards.safe_text import escaped
from gristmill.shards.scratch import scratch
from gristmill.shards.store import write_bytes

SAMPLE = 48  # records of each source
_PICTURES = (".svg", ".mmd")
LARGER = 8  # times as many are tried if so few do not carry a recipe to its end


@dataclass
class PricedPlan:
    """The lines of a plan, and their totals."""

    out: str
    sample: int
    workers: int
    beside: int  # workers that make results side by side; 0: one after the other
    lines: list[Line]
    rest: float  # seconds outside all lines: scoring and the report
    cost: float
    priced: bool
    notes: list[str] = field(default_factory=list)
    settings: str = ""  # the digest of those that results depend on
    nodes: list[GraphNode] = field(default_factory=list)
    results: list[PlannedResult] = field(default_factory=list)  # of each node
    awaited: list[str] = field(default_factory=list)  # names of unfinished results that say what else there is

    @property
    def seconds(self) -> float:
        """Wall time of the remaining work."""
        if not any(line.left for line in self.lines):
            return 0.0
        return forecast(priced([], self.results), self.beside, rest=self.rest).left or 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the estimates that the report compares with measurements."""
        by_name: dict[str, Any] = {"seconds": round(self.seconds, 3)}
        for line in self.lines:
            seconds = by_name.setdefault(line.name, {"seconds": 0.0})
            seconds["seconds"] = round(seconds["seconds"] + line.wall, 3)
        told = {"sample": self.sample, "workers": self.beside, "cost": round(self.cost, 4), "rest": self.rest}
        return {"estimate": by_name, "results": self.results, "settings": self.settings, **told}


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
    lines = list(run.lines.values())
    cost = sum(line.cpu * prices.cpu_hour + line.gpu * prices.gpu_hour for line in lines) / 3600
    priced = bool(prices.cpu_hour or prices.gpu_hour)
    unpriced = "no prices are set: give --cpu-hour and --gpu-hour, or price.cpu_hour and price.gpu_hour"
    beside = run.workers if run.on_ray else 0
    notes = [] if priced else [unpriced]
    made = PricedPlan(common.out, sample, run.workers, beside, lines, rest, cost, priced, notes)
    if not lines:
        raise UserError(f"{loaded.recipe}: the recipe makes nothing")
    made.settings = loaded.digest
    made.nodes, made.results, made.awaited = _graph(run)
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
                run.price_cleaned()
            except (Interrupted, OSError):
                raise
            except Exception as error:
                if not any(line.kind != "source" for line in run.lines.values()):
                    if isinstance(error, GristmillError):
                        error.args = tuple(map(_without_inspect, error.args))
                    raise  # a mistake that is found before any work
                place = list(run.lines.values())[-1].name, type(error)
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
        said = map(_without_inspect, error.args)
        kind = UserError if isinstance(error, UserError) else GristmillError
        more = "; if too few records are the reason, expected --sample N with more" if sample else ""
        return kind(*said, where + more)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return GristmillError(f"{with_class(error)} ({frame.filename}, line {frame.lineno}): {where}")


def _without_inspect(sentence: str) -> str:
    """Return a sentence without what can be inspected: what a trial made is gone."""
    return re.sub(r"; see `gristmill inspect [^`]*`", "", sentence)


def _graph(run: SampledRun) -> tuple[list[GraphNode], list[PlannedResult], list[str]]:
    """Return the results of a tried recipe as a graph and as a plan keeps them, and the names of those on whose content
    it depends what else is declared, as far as they are not finished. Equal results are one, as a run counts them."""
    unfinished = [node.made is not None and run.lines[node.made.url].left > 0 for node in run.plan.read]
    nodes: list[GraphNode] = []
    results: list[PlannedResult] = []
    awaited: dict[str, None] = {}
    place_of: dict[str, int] = {}  # by URL
    for node in run.plan.nodes:
        if node.made is None or node.made.url in place_of:
            continue
        line, read = run.lines[node.made.url], zip(run.plan.read[: node.after], unfinished, strict=False)
        waits = [one.name for one, is_open in read if is_open]
        inputs = sorted({place_of[one.made.url] for one in run.plan.used_by(node) if one.made is not None})
        more = {"shards": f"{line.done}/{line.total}" if node.kind in ("source", "step") else ""}
        hours = {"audio": line.hours} if line.hours else {}
        hours |= {"cpu": line.cpu / 3600, "gpu": line.gpu / 3600}
        state = DONE if not line.left else UNDER_WAY if line.done else UNKNOWN if waits else TO_DO
        awaited |= dict.fromkeys(waits if state == UNKNOWN else ())
        rows, size = (line.rows, line.bytes) if node.kind in ("source", "step") else (None, None)
        place_of[node.made.url] = len(nodes)
        seconds = line.wall if line.left else None
        nodes.append(GraphNode(node.name, node.kind, tuple(inputs), state, rows, size, seconds, more, hours))
        workers = line.workers if node.kind == "step" else workers_of(node)
        wall = round(line.wall, 3)
        results.append({"name": node.name, "kind": node.kind, "seconds": wall, "workers": workers, "inputs": inputs})
    return nodes, results, list(awaited)


def check_picture(url: str) -> None:
    """Check that a file is named as a picture of a graph is.

    Raises:
        UserError: its name ends otherwise.
    """
    if not url.endswith(_PICTURES):
        raise UserError(f"--graph {url}: expected a name that ends with {' or '.join(_PICTURES)}")


def write_picture(plan: PricedPlan, url: str) -> None:
    """Write the graph of a plan as SVG or as the source of a Mermaid flowchart, by the name of the file."""
    boxes = merged(plan.nodes)
    made = to_svg(boxes, f"Plan of {plan.out}") if url.endswith(_PICTURES[0]) else mermaid(boxes)
    write_bytes(url, made.encode())


def show_plan(plan: PricedPlan) -> None:
    """Print the plan: its results, each with its state, its price and what it is made of, and their sums."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    print(*text_lines(merged(plan.nodes, len(plan.nodes)), width), sep="\n")
    cpu, gpu = (sum(getattr(line, key) for line in plan.lines) / 3600 for key in ("cpu", "gpu"))
    if not plan.seconds:
        print("nothing to do: everything was finished by an earlier run")
        return
    scope = f"{plan.workers} worker{'s' * (plan.workers > 1)}"
    size = told_size(sum(line.bytes * line.left for line in plan.lines))
    print(f"in total about {clock(plan.seconds)} with {scope}: {cpu:.2f} CPU h, {gpu:.2f} GPU h, {size} to write")
    print(f"cost {plan.cost:.2f}" if plan.priced else "cost 0 (no prices set)")
    if plan.awaited:
        print(
            f"unknown yet: what else there is, and how much, is known when {escaped(listed(plan.awaited))} "
            f"{'are' if len(plan.awaited) > 1 else 'is'} made; it is priced as the sample has it"
        )
    print(f"priced from up to {plan.sample} records of each source; writes go to {plan.out}")
    for note in plan.notes:
        print(f"note: {escaped(note)}")
