"""A recipe's run: the interface by which it declares sets, artifacts and models, and the trace of its results."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.ledger import Entry, write_ledger
from gristmill.pipelines.listening import Listening
from gristmill.pipelines.progress import RunProgress, plural
from gristmill.pipelines.remaking import Remaking
from gristmill.pipelines.results import SourceWork, Trace, is_on_driver, trace_of
from gristmill.pipelines.scheduler import Alone, Cluster, Scheduler
from gristmill.shards import dataset, processor, store
from gristmill.shards.artifact import MARK, Artifact
from gristmill.shards.cleaning import settle
from gristmill.shards.code import changed
from gristmill.shards.dataset import SealedSet, check_ids, digest_of, seal_tables
from gristmill.shards.engine import is_finished, kept_code, run_step, step_url
from gristmill.shards.job import BuildJob, Job, TrainJob
from gristmill.shards.plan import Plan, PlanNode, holds_later, resolved, using
from gristmill.shards.step import Step

T = TypeVar("T", SealedSet, Artifact)
NAMED = 12  # trainings that a line of the log names


@dataclass
class Run:
    """One run of a recipe under ``out``. Each result is in a folder named by its fingerprint.

    A method that declares a result returns its handle at once (:mod:`gristmill.shards.plan`): the result is made when a
    value of it is read, with what it needs, or by :meth:`finish`, with all that was declared.

    With ``requeue``, steps also run the records that an earlier run quarantined again. What is named in ``again`` is
    made anew, and so, if it comes out otherwise, is what depends on it; an earlier result keeps its place under another
    name.

    Raises:
        UserError: this machine or process cannot keep the instruction set to which it is pinned
            (:mod:`gristmill.shards.processor`).

    Example:
        >>> from gristmill.actors.nlu.folds import Folds
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> run = Run("made/run", InProcessRunner())
        >>> texts = run.table("texts", pa.table({"id": ["a", "b"], "text": ["lights on", "lights off"]}))
        >>> dealt = run.step(Step("dealt", (Folds.stage(),), texts))
        >>> dealt.schema.names, dealt.records
        (['id', 'text', 'fold'], 2)
        >>> count = run.artifact("count", lambda url: {"n.txt": str(dealt.records).encode()}, {"version": 1}, [dealt])
        >>> run.finish()
        >>> [(one.name, one.kind) for one in run.trace]
        [('texts', 'source'), ('dealt', 'step'), ('count', 'artifact')]
    """

    out: str
    cluster: Cluster
    seed: int = 0
    progress: RunProgress = field(default_factory=RunProgress)
    requeue: bool = False
    seeds: list[int] = field(default_factory=lambda: [0])  # of trainings
    on_first: Callable[[], None] | None = None  # called after the first set, artifact or model
    on_work: Callable[[], None] | None = None  # called before each result is made; it may wait
    again: frozenset[str] = frozenset()  # stages, steps, artifacts and trainings to make anew, by name
    verdict: str = ""  # of its report
    changed_code: dict[str, list[str]] = field(default_factory=dict)  # by name: the results made by the code before
    _traces: dict[int, Trace] = field(default_factory=dict)  # by the number of the node
    _renewed: set[str] = field(default_factory=set)  # URLs
    _alone: Alone = field(default_factory=Alone)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.out = os.fspath(self.out)  # a script may give a Path
        self.plan = Plan(lambda nodes: self._scheduler.make(nodes))
        self._scheduler = Scheduler(
            self.plan,
            self._make,
            self.cluster.side_by_side,
            is_on_driver,
            lambda text: self.progress.say(text),
        )
        self._sets = Remaking(self._begin_work, lambda text: self.progress.say(text), self._note_again)
        self.progress.agenda.declared = self.plan.count
        processor.check()

    def source(
        self,
        name: str,
        tables: Callable[[], Iterator[pa.Table]],
        identity: Mapping[str, Any],
        totals: Sequence[str] = (),
        of: SealedSet | None = None,
        *,
        complete: bool = False,
    ) -> SealedSet:
        """Declare rows that the driver streams (listings of files, generated requests), to be sealed unless they are.

        Each table is a shard, and its column ``id`` has a distinct text for each record. The source is identified by
        ``identity``, which names sets and artifacts that ``tables`` reads by their handles. ``totals`` names numeric
        columns whose sums the seal keeps. ``of`` is the set whose rows these are (parts of it, or ranges of them), a
        table for each of its shards: a plan from a sample of that set scales them with it. Of rows that have
        to be ``complete``, as the words of all texts, a plan takes no sample.
        """
        return self.plan.set(name, "source", SourceWork(name, tables, identity, tuple(totals), of, complete))

    def table(self, name: str, table: pa.Table, totals: Sequence[str] = ()) -> SealedSet:
        """Declare a table that is at hand, to be sealed unless it is: it is identified by its rows.

        Its column ``id`` has a distinct text for each record.

        Example:
            >>> from gristmill.cluster.inprocess import InProcessRunner
            >>> run = Run("made/tables", InProcessRunner())
            >>> run.table("texts", pa.Table.from_pylist([{"id": "a", "text": "on"}])).records
            1
        """
        check_ids(name, table)
        identity = {"schema": str(table.schema), "rows": digest_of(iter([table]))}
        work = SourceWork(name, lambda: iter([table]), identity, tuple(totals), None)
        return self.plan.set(name, "source", work, schema=lambda: table.schema)

    def step(self, step: Step) -> SealedSet:
        """Declare a step, to be run unless it is done."""
        later = holds_later(step.stages)  # then its columns are known when it is made
        return self.plan.set(step.name, "step", step, schema=None if later else lambda: step.schema)

    def artifact(
        self,
        name: str,
        make: Callable[[str], Mapping[str, bytes] | object],
        identity: Mapping[str, Any],
        inputs: Sequence[SealedSet | Artifact] = (),
        *,
        on_driver: bool = False,
    ) -> Artifact:
        """Declare an artifact that a function makes, to be committed unless it is.

        ``make`` is given the URL of the artifact, and returns its files by name, or commits them there itself. It runs
        on a worker, unless it needs what only the machine of the driver has (``on_driver``): it holds handles and plain
        values, not the run. ``inputs`` are what it reads.
        """
        return self.plan.artifact(name, "artifact", BuildJob(name, make, identity, tuple(inputs), on_driver))

    def train(self, job: TrainJob) -> Artifact:
        """Declare a training or fit, to be run unless it is done; those that can are run in parallel."""
        return self.plan.artifact(job.name, "training", job)

    def finish(self) -> None:
        """Make what is declared and not made yet."""
        missing = self.plan.missing()
        if missing:
            self._scheduler.make(missing)

    def _make(self, nodes: Sequence[PlanNode]) -> None:
        """Make a result that is ready, or several trainings."""
        kind, work = nodes[0].kind, []
        for node in nodes:
            with using(node):
                work.append(resolved(node.work))
        with using(nodes[0]):
            if kind == "training":
                self.make_trainings(nodes, work)
            elif kind == "source":
                self.make_source(nodes[0], work[0])
            elif kind == "step":
                self.make_step(nodes[0], work[0])
            else:
                self.make_built(nodes[0], work[0])

    def _cluster(self, node: PlanNode) -> Cluster:
        return self.cluster.at(self._scheduler.urgency(node))

    def make_source(self, node: PlanNode, source: SourceWork) -> None:
        """Seal a source, or find it sealed."""
        made_of = source.fingerprint
        url = store.join(self.out, source.name, made_of[:16])
        self._renew(url, source.name)
        sealed = self._find(lambda url: dataset.find_made(url, made_of), url)
        begun = time.perf_counter()
        kept = sealed is not None

        def make(again: SealedSet | None = None) -> SealedSet:
            expected = None if again is None else again.digest
            with self._reported(source.name, "listing", {url: source.name}):
                return seal_tables(
                    url, source.name, source.tables(), source.totals, expected=expected, fingerprint=made_of
                )

        if sealed is None:
            sealed = make()
        self._note(node, self._sets.hold(node, sealed, make), time.perf_counter() - begun, kept)

    def make_step(self, node: PlanNode, step: Step) -> None:
        """Run a step, or find it done."""
        url = step_url(self.out, step, self.seed)
        with self._alone.on(url):  # an equal one may run beside
            self._make_step(node, step, url)

    def _make_step(self, node: PlanNode, step: Step, url: str) -> None:
        fingerprint = step.fingerprint(self.seed)
        self._renew(url, step.name, *(stage.name for stage in step.stages))
        before = self._find(lambda url: dataset.find_made(url, fingerprint), url)
        if before is not None and not is_finished(before, requeue=self.requeue):
            self._begin_work()
            before = dataset.find_made(url, fingerprint)
        codes = {stage.name: stage.actor for stage in step.stages}
        self._tell_changed(changed(kept_code(url, before), codes), f"step {step.name}")
        begun, waited = time.perf_counter(), 0.0
        refs = [ref for stage in step.stages for ref in stage.artifacts.values()]
        needed = [step.input.url, *(join.dataset.url for join in step.joins), *(ref.url for ref in refs)]

        def make(again: SealedSet | None = None) -> SealedSet:
            nonlocal waited
            self._sets.need(needed)
            self.progress.agenda.begin({url: step.name})
            requeue, cluster = self.requeue and again is None, self._cluster(node)
            made = run_step(step, self.out, cluster, self.seed, self.progress, requeue=requeue, again=again)
            waited += cluster.waited
            return made

        if is_finished(before, requeue=self.requeue):
            if all(trace.url != url for trace in self.trace):  # a step that is used twice is reported once
                self.progress.found(before)
            sealed = before  # the seal may be long: read it only once
        else:
            if before is not None:  # with records to requeue, which lie in its own files
                self._sets.hold(node, before, make)
                self._sets.need([url])
            sealed = make()
        kept = before is not None and before.digest == sealed.digest
        inputs = [step.input.digest, *(join.dataset.digest for join in step.joins), *(ref.digest for ref in refs)]
        seconds = time.perf_counter() - begun - waited
        self._note(node, self._sets.hold(node, sealed, make), seconds, kept, inputs)

    def make_built(self, node: PlanNode, job: BuildJob) -> None:
        """Commit an artifact, or find it done."""
        self._make_jobs([node], [job])

    def make_trainings(self, nodes: Sequence[PlanNode], jobs: Sequence[TrainJob]) -> None:
        """Train the unfinished jobs, as many in parallel as fit."""
        self._make_jobs(nodes, jobs)

    def _make_jobs(self, nodes: Sequence[PlanNode], jobs: Sequence[Job]) -> None:
        urls = [job.url(self.out) for job in jobs]
        with self._alone.on(*urls):
            self._make_alone(nodes, jobs, urls)

    def _make_alone(self, nodes: Sequence[PlanNode], jobs: Sequence[Job], urls: Sequence[str]) -> None:
        by_url = dict(zip(urls, jobs, strict=True))  # equal jobs are one
        for url, job in by_url.items():
            self._renew(url, job.name)
        todo = [(job, url) for url, job in by_url.items() if self._find(job.done, url) is None]
        fresh, last = {url for _, url in todo}, time.perf_counter()

        def made(url: str, seconds: float | None) -> None:
            """Note what was trained or found as soon as it is there, as others may wait for it."""
            nonlocal last
            job = by_url[url]
            artifact = job.done(url)
            if artifact is None:
                raise RuntimeError(f"{url}: {job.name} ended without its artifact")
            if isinstance(job, TrainJob):
                self._tell_changed(changed(artifact.code, {job.name: str(job.loop)}), f"training {job.name}")
            before, last = last, time.perf_counter()
            seconds = last - before if seconds is None else seconds  # of several in parallel each has its part
            inputs = [one.digest for one in job.made_of()]
            for node in (node for node, its in zip(nodes, urls, strict=True) if its == url):
                self._note(node, artifact, seconds, url not in fresh, inputs)
                seconds = 0.0

        for url in (one for one in by_url if one not in fresh):
            made(url, 0.0)
        if todo:
            self._sets.need(one.url for job, _ in todo for one in job.made_of())
            each = list(dict.fromkeys(job.name for job, _ in todo))
            names = ", ".join(each[:NAMED]) + (f" and {len(each) - NAMED} more" if len(each) > NAMED else "")
            fits = sum(not job.stepwise for job, _ in todo)
            kinds = [f"fitting {plural(fits, 'artifact')}"] if fits else []
            kinds += [f"training {plural(len(todo) - fits, 'model')}"] if fits < len(todo) else []
            last = time.perf_counter()
            cluster: Cluster = InProcessRunner() if is_on_driver(nodes[0]) else self._cluster(nodes[0])
            with self._reported(names, ", ".join(kinds), {url: job.name for job, url in todo}):
                cluster.train(todo, Listening(todo, self.progress, names, made))

    def _find(self, find: Callable[[str], T | None], url: str) -> T | None:
        """Return the result at a URL. ``None`` is returned only after waiting for the lease of any other run.

        Raises:
            UserError: it was made with another instruction set than this run has.
        """
        found = find(url)
        if found is None:
            self._begin_work()
            found = find(url)
            if found is None:
                settle(url, self._begin_work)
        if found is not None:
            processor.check_made(url, found.processor)
        return found

    def _renew(self, url: str, *names: str) -> None:
        """Give an earlier result another name if one of its names says that it is to be made anew, once a run."""
        # The stage of a filter that is named by its module too may be named without that.
        short = [name.rpartition(":")[2] for name in names]
        if not self.again.intersection([*names, *short]) or url in self._renewed:
            return
        self._renewed.add(url)
        self._begin_work()
        above, name = url.rsplit("/", 1)
        there = store.list_names(above)
        if name in there and {dataset.SEAL, MARK}.intersection(store.list_names(url)):
            number = next(number for number in itertools.count(1) if f"{name}-{number}" not in there)
            store.move_folder(url, f"{url}-{number}")
        elif name in there:
            store.remove(url)  # it was not finished

    def _tell_changed(self, names: Sequence[str], where: str) -> None:
        for name in names:
            places = self.changed_code.setdefault(name, [])
            if not places:
                self.progress.say(
                    f"{where}: the code of {name} is not that which its result was made by, and its version is the "
                    f"same, so the earlier result is used; expected a raised version, or `gristmill run ... --again "
                    f"{name}` if results may differ"
                )
            if where not in places:
                places.append(where)

    def _begin_work(self) -> None:
        with self._lock:  # the first takes the output's lease, and others wait for it
            if self.on_work is not None:
                self.on_work()

    @contextlib.contextmanager
    def _reported(self, name: str, activity: str, parts: Mapping[str, str]) -> Iterator[None]:
        begun = time.perf_counter()
        self.progress.agenda.begin(parts)
        self.progress.working(name, activity)
        yield
        self.progress.worked(name, activity, time.perf_counter() - begun)

    def _note(
        self, node: PlanNode, made: SealedSet | Artifact, seconds: float, kept: bool, inputs: Sequence[str] = ()
    ) -> None:
        """Keep what was made, and what it was made of: the digests of ``inputs`` first."""
        self.plan.finish(node, made)
        used = [one.made.digest for one in self.plan.used_by(node) if one.made is not None]
        inputs = list(dict.fromkeys([*inputs, *used]))
        trace = trace_of(node, made, inputs, seconds, kept)
        with self._lock:
            if not self._traces and self.on_first is not None:
                self.on_first()
            self._traces[node.number] = trace
            self.progress.made(made.url, node.name)
        self._scheduler.look()

    def _note_again(self, url: str) -> None:
        for one in self._traces.values():
            if one.url == url:
                one.kept = False

    @property
    def trace(self) -> list[Trace]:
        """What was made so far, in the order of declaration."""
        return [self._traces[number] for number in sorted(self._traces)]

    @property
    def processors(self) -> str:
        """The levels that its results were made at, as their seals and artifacts say."""
        return processor.recorded(trace.processor for trace in self.trace)

    def write_ledger(self, recipe: str, settings: str) -> bool:
        """Write the list of folders that belong to the run as configured now; return whether it changed.

        ``settings`` is the digest of the saved settings: a run of others has begun since if they have changed.
        """
        self.finish()
        entries: list[Entry] = [
            {
                "name": t.name,
                "kind": t.kind,
                "path": t.url.removeprefix(self.out).strip("/"),
                "digest": t.digest,
                "inputs": t.inputs,
                "read": t.url in self._sets.read,
            }
            for t in self.trace
        ]
        return write_ledger(self.out, recipe, settings, self.processors, entries)
