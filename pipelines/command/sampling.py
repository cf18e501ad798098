"""A real run on a small sample of each source, in a temporary folder, from which the whole run is priced."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np

from gristmill.pipelines.command.trial import Spread, Trial
from gristmill.pipelines.results import SourceWork
from gristmill.pipelines.run import Run
from gristmill.shards import canonical, store
from gristmill.shards.artifact import Artifact, get_artifact
from gristmill.shards.dataset import SealedSet, find_sealed, seal_tables
from gristmill.shards.engine import step_url
from gristmill.shards.job import BuildJob, TrainJob
from gristmill.shards.plan import PlanNode, resolved
from gristmill.shards.receipt import committed_shards, read_receipts
from gristmill.shards.settings import Settings
from gristmill.shards.stage import ArtifactRef
from gristmill.shards.step import Step
from gristmill.shards.tombstone import Cleaned, find_tombstone

T = TypeVar("T")

# On Ray, what each takes beside its work, s: a step, training or fit of warm workers, and the start of processes of
# Ray Data and Ray Train.
_WARM, _DATA, _TRAIN = 0.1, 5.0, 15.0
_READ_SHARDS = 8  # of a source that is already finished


@dataclass
class Line:
    """The estimate of one step, source, artifact or training. Amounts are of the whole, times of the remaining work."""

    name: str
    kind: str
    done: int = 0  # shards; artifacts and models count as one
    total: int = 1
    rows: float = 0.0
    hours: float = 0.0  # of audio
    bytes: float = 0.0
    wall: float = 0.0  # seconds, with nothing beside it
    cpu: float = 0.0  # seconds
    gpu: float = 0.0  # seconds
    url: str = ""  # of the sampled result, which tells it from others of its name
    workers: int = 1  # that a step keeps busy

    @property
    def left(self) -> float:
        """The remaining share, 0 to 1."""
        return 1.0 - self.done / self.total if self.total else 0.0


def _timed(method: Callable[..., T]) -> Callable[..., T]:
    """Add the seconds of a method of :class:`SampledRun` to its ``inside``."""

    @functools.wraps(method)
    def timed(self: SampledRun, *args: Any, **kwargs: Any) -> T:
        begun = time.perf_counter()
        try:
            return method(self, *args, **kwargs)
        finally:
            self.inside += time.perf_counter() - begun

    return timed


@dataclass
class SampledRun(Run):
    """A run on ``sample`` records of each source, with the correspondence of sampled to real sets.

    ``real`` is the output of the whole run: finished results there are found by their fingerprints.
    """

    real: str = ""
    sample: int = 48
    workers: int = 1
    on_ray: bool = False
    lines: dict[str, Line] = field(default_factory=dict)  # by URL, in the order in which results were tried
    factors: dict[str, float] = field(default_factory=dict)  # sample digest -> real rows per sampled row
    cuts: dict[str, int] = field(default_factory=dict)  # sample digest -> real shards
    finished: dict[str, SealedSet | Artifact | None] = field(default_factory=dict)  # sample digest -> the real result
    contents: dict[str, Any] = field(default_factory=dict)  # digest of a sample artifact's JSON -> the real one's
    cleaned: dict[str, Line] = field(default_factory=dict)  # by URL: the price of making a cleaned set again
    tried: dict[str, float] = field(default_factory=dict)  # job name -> seconds
    warm: set[str] = field(default_factory=set)  # loops that have run before
    is_whole: bool = True  # no source had more records than the sample
    inside: float = 0.0  # seconds in the methods below: the others are the recipe's own

    # Finished results.

    def _known(self, digests: Sequence[str]) -> bool:
        return all(self.finished.get(digest) is not None for digest in digests)

    def _real(self, value: Any) -> Any:
        """Return a value with sampled sets, artifacts and digests replaced by the real ones."""
        if isinstance(value, SealedSet | Artifact):
            return self.finished.get(value.digest) or value
        if isinstance(value, ArtifactRef):
            real = self.finished.get(value.digest)
            return value if real is None else real.ref
        if isinstance(value, str):
            found = self.finished.get(value)
            return found.digest if found is not None else value
        if isinstance(value, Mapping):
            same = self.contents.get(_content(value))
            return same if same is not None else {key: self._real(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            items = [self._real(inner) for inner in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # a named tuple
        if isinstance(value, Settings):
            return value.but(**self._real(dict(value)))
        return value

    def _real_text(self, text: str) -> str:
        """Return a text, such as the description of a set, with the digests of sampled results replaced."""
        for digest, found in self.finished.items():
            if found is not None:
                text = text.replace(digest, found.digest)
        return text

    def _whole(self, node: PlanNode, sampled: T) -> T:
        """Return what makes a result of the whole run: what comes later is computed of the real results."""
        try:
            return cast(T, resolved(node.work, lambda used: self._real(used.made)))
        except Cleaned:  # it reads rows that were deleted
            return sampled

    def _real_step(self, node: PlanNode, sampled: Step) -> Step | None:
        inputs = [sampled.input.digest, *(join.dataset.digest for join in sampled.joins)]
        refs = [ref.digest for stage in sampled.stages for ref in stage.artifacts.values()]
        if not self._known([*inputs, *refs]):
            return None
        step = self._whole(node, sampled)
        stages = []
        for stage in step.stages:
            artifacts = {key: self._real(ref) for key, ref in stage.artifacts.items()}
            metadata = {key: self._real_text(text) for key, text in stage.metadata.items()}
            stages.append(replace(stage, artifacts=artifacts, params=self._real(stage.params), metadata=metadata))
        joins = tuple(replace(join, dataset=self._real(join.dataset)) for join in step.joins)
        return replace(step, input=self._real(step.input), stages=tuple(stages), joins=joins)

    # The interface of a run.

    @_timed
    def make_source(self, node: PlanNode, source: SourceWork) -> None:
        """Count the whole source, and seal a sample of it; one that is made of a sampled set scales with that set."""
        name, of = source.name, source.of
        whole = replace(source, identity=self._real(self._whole(node, source).identity))
        real = find_sealed(store.join(self.real, name, whole.fingerprint[:16]))
        if real is not None and find_tombstone(real.url) is not None:
            real = None  # its rows were deleted: they are listed again, as the run would
        begun = time.perf_counter()
        spread = Spread(sys.maxsize if source.complete else self.sample)
        if real is None:
            for table in source.tables():
                spread.add(table)
            seconds = time.perf_counter() - begun
            scale = 1.0 if of is None else self.factors.get(of.digest, 1.0)
            shards = spread.tables
            if of is not None and not source.complete:
                shards = self.cuts.get(of.digest, shards)
            rows, size, seconds = spread.rows * scale, spread.bytes * scale, seconds * scale
        else:
            read = len(real.shards) if source.complete else _READ_SHARDS
            for shard in {round(place) for place in np.linspace(0, len(real.shards) - 1, read)}:
                spread.add(real.read(shard))
            rows, shards, size, seconds = real.records, len(real.shards), sum(s.bytes for s in real.shards), 0.0
        place = store.join(self.out, name, source.fingerprint[:16])
        sampled = seal_tables(place, name, spread.kept(), source.totals)
        self.is_whole &= sampled.records == rows
        factor = rows / max(1, sampled.records)
        hours = sampled.total("duration") / 3600 * factor
        self._keep(sampled, factor, shards, real)
        done = shards if real is not None else 0
        self._line(Line(name, "source", done, shards, rows, hours, size, seconds, seconds, url=sampled.url))
        self.plan.finish(node, sampled)

    @_timed
    def make_step(self, node: PlanNode, step: Step) -> None:
        """Run the step on the sample and price the whole step."""
        begun = time.perf_counter()
        super().make_step(node, step)
        sampled = cast(SealedSet, node.made)
        wall = time.perf_counter() - begun
        factor = self.factors.get(step.input.digest, 1.0)
        work: dict[str, float] = {}
        for receipt in read_receipts(sampled.url, committed_shards(sampled.url)):
            for stage, seconds in receipt.attempt["seconds"].items():
                work[stage] = work.get(stage, 0.0) + seconds
        real = self._real_step(node, step)
        sealed, done, total = None, 0, self._shards(step, factor)
        if real is not None:
            url = step_url(self.real, real, self.seed)
            sealed = find_sealed(url)
            if sealed is not None:
                total = len(sealed.shards)
            elif find_tombstone(real.input.url) is None:
                total = len(real.index())  # otherwise the rows that it is cut by were deleted
            done = total if sealed is not None else min(total, len(committed_shards(url)))
        scale = factor
        if sealed is not None:
            factor = sealed.records / max(1, sampled.records)
        line = Line(step.name, "step", done, total, sampled.records * factor, url=sampled.url)
        line.hours = sampled.total("duration") / 3600 * factor
        line.bytes = sum(entry.bytes for entry in sampled.shards) * factor
        self._price(line, step, work, wall, scale)
        if sealed is not None and find_tombstone(sealed.url) is not None:
            self.cleaned[line.url] = replace(line, done=0)
            self._price(self.cleaned[line.url], step, work, wall, scale)
        self._line(line)
        self._keep(sampled, factor, total, sealed)

    def _price(self, line: Line, step: Step, work: Mapping[str, float], wall: float, scale: float) -> None:
        """Price what is left of a step whose stages did ``work`` on the sample (seconds) in ``wall`` seconds, of which
        the whole step has ``scale`` times as much."""
        most = {stage.name: stage.resources for stage in step.stages}
        scale *= line.left
        line.cpu = scale * sum(s * max(1.0, most[n].cpus if n in most else 1.0) for n, s in work.items())
        line.gpu = scale * sum(s * most[n].gpus for n, s in work.items() if n in most)
        if not line.left:
            return
        load = max(0.0, wall - sum(work.values()))  # all workers load their models at the same time
        limits = [stage.resources.max_workers or self.workers for stage in step.stages]
        busy = max(1, min(self.workers, line.total - line.done, *limits))
        cpus = max((stage.resources.cpus for stage in step.stages), default=1.0)
        line.workers = max(1, min(self.workers, math.ceil(busy * cpus)))
        line.wall = load + scale * sum(work.values()) / busy
        alike = len({stage.resources for stage in step.stages}) < 2
        line.wall += (_WARM if alike else _DATA) if self.on_ray else 0.0

    def price_cleaned(self) -> None:
        """Price the sets that were cleaned, and that are made again as something unfinished is made of them."""
        for node in reversed(self.plan.nodes):
            if node.made is None or not self.lines[node.made.url].left:
                continue
            for used in self.plan.used_by(node):
                if used.made is not None and used.made.url in self.cleaned:
                    self.lines[used.made.url] = self.cleaned.pop(used.made.url)

    @_timed
    def make_built(self, node: PlanNode, job: BuildJob) -> None:
        """Fit on the sample; an artifact without inputs is taken from the whole run if it is finished."""
        name, real = job.name, None
        if self._known([one.digest for one in job.inputs]):
            whole = self._whole(node, job)
            whole = replace(whole, given=self._real(whole.given), inputs=self._real(whole.inputs))
            real = get_artifact(store.join(self.real, name, whole.fingerprint))
        if real is not None and not job.inputs:
            self.finished[real.digest] = real
            self._line(Line(name, "artifact", 1, url=real.url))
            self.plan.finish(node, real)
            return
        begun = time.perf_counter()
        super().make_built(node, job)
        made = cast(Artifact, node.made)
        # Not scaled: reading all records is a step of its own, and a fit merges its results.
        seconds = 0.0 if real is not None else time.perf_counter() - begun
        self._line(Line(name, "artifact", int(real is not None), wall=seconds, cpu=seconds, url=made.url))
        self.finished[made.digest] = real
        if real is not None:
            for file in (file for file in made.files if file.endswith(".json")):
                self.contents[_content(json.loads(made.read(file)))] = json.loads(real.read(file))

    @_timed
    def make_trainings(self, nodes: Sequence[PlanNode], jobs: Sequence[TrainJob]) -> None:
        """Run the jobs on the sample; jobs with optimiser steps for a few of them."""
        for node, job in zip(nodes, jobs, strict=True):
            self.plan.finish(node, self._try(node, job))

    def _try(self, node: PlanNode, job: TrainJob) -> Artifact:
        url = job.url(self.out)
        known = self._known([found.digest for found in job.made_of()])
        real = get_artifact(self._real_job(node, job).url(self.real)) if known else None
        artifact, tried = self._tried(job, url)
        seconds = tried * self._growth(node, job) if real is None else 0.0
        line = Line(job.name, "training", int(real is not None), wall=seconds / job.ranks, url=url)
        if self.on_ray and line.left:
            line.wall += _TRAIN if job.stepwise and (job.ranks > 1 or job.resources.gpus) else _WARM
        line.cpu, line.gpu = seconds * job.resources.cpus, seconds * job.resources.gpus
        self._line(line)
        self.finished[artifact.digest] = real
        return artifact

    def _growth(self, node: PlanNode, job: TrainJob) -> float:
        """Return how many times as many rows the whole training passes over as that of the sample. Its sets grow
        unlike each other, and so may the weights by which it takes them."""
        sampled = _rows(job.inputs)
        if not sampled:
            return 1.0
        return _rows(resolved(cast(TrainJob, node.work).inputs, lambda used: self._grown(used.made))) / sampled

    def _grown(self, made: SealedSet | Artifact | None) -> SealedSet | Artifact | None:
        """Return a sampled set with as many rows, as far as it is asked for their number, as the real one has."""
        if not isinstance(made, SealedSet):
            return made
        factor = self.factors.get(made.digest, 1.0)
        shards = [{**entry, "rows": entry["rows"] * factor} for entry in made.seal["shards"]]
        return replace(made, seal={**made.seal, "shards": shards})

    def _tried(self, job: TrainJob, url: str) -> tuple[Artifact, float]:
        """Return the model of the sample, and the seconds that a full training on the sample would take.

        A loop with optimiser steps runs a few of them, and only one once a job of this name was tried.
        """
        trial = self._trial(job)
        begun = time.perf_counter()
        job.run(url, trial)
        if trial.seconds is None and job.loop not in self.warm:
            self.warm.add(str(job.loop))  # the first run includes imports
            begun = time.perf_counter()
            job.run(url, self._trial(job))
        seconds = time.perf_counter() - begun
        made = get_artifact(url)
        assert made is not None
        if trial.seconds is not None:
            seconds = self.tried.setdefault(job.name, trial.seconds)
        return made, seconds

    def _trial(self, job: TrainJob) -> Trial:
        if not job.stepwise and not self.tried:
            return Trial(None)  # no model before this fit stopped early, so what fails here fails in the whole run too
        return Trial(1) if job.name in self.tried else Trial()

    def _real_job(self, node: PlanNode, sampled: TrainJob) -> TrainJob:
        job = self._whole(node, sampled)
        return replace(job, settings=self._real(job.settings), inputs=self._real(job.inputs))

    def _line(self, line: Line) -> None:
        self.lines.setdefault(line.url, line)  # equal results are one

    def _keep(self, sampled: SealedSet, factor: float, shards: int, real: SealedSet | None) -> None:
        self.factors[sampled.digest], self.cuts[sampled.digest] = factor, shards
        self.finished[sampled.digest] = real

    def _shards(self, step: Step, factor: float) -> int:
        """Return the approximate number of shards of a step."""
        if step.cut is None:
            return self.cuts.get(step.input.digest, 1)
        return step.cut.number(step.input.records * factor, step.input.total("duration") * factor)


def _rows(value: Any) -> float:
    """Return how many rows a training passes over, by its inputs: sets side by side in a mapping are columns of one,
    and a number beside a set says how often its rows occur."""
    if isinstance(value, SealedSet):
        return value.records
    if isinstance(value, Mapping):
        beside = [each.records for each in value.values() if isinstance(each, SealedSet)]
        return max(beside, default=0) + sum(_rows(each) for each in value.values() if not isinstance(each, SealedSet))
    if not isinstance(value, list | tuple):
        return 0.0
    if len(value) == 2 and isinstance(value[0], SealedSet) and isinstance(value[1], int | float):
        return value[0].records * value[1]
    return sum(map(_rows, value))


def _content(value: Any) -> str:
    try:
        return canonical.digest(value)
    except TypeError:
        return ""  # holds sets or artifacts, so it is not the content of a file


def at_once(runner: str, workers: int | None) -> int:
    """Return the number of workers of a run."""
    if runner == "inprocess":
        return 1
    return workers or os.cpu_count() or 1
