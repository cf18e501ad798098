"""A recipe's run: the interface that makes sets, artifacts and models, and the trace of its results."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from gristmill.pipelines.ledger import Entry, write_ledger
from gristmill.pipelines.progress import RunProgress, plural
from gristmill.pipelines.remaking import Remaking
from gristmill.shards import canonical, dataset, processor, store
from gristmill.shards.artifact import MARK, Artifact, find_made, put_artifact
from gristmill.shards.cleaning import settle
from gristmill.shards.code import changed
from gristmill.shards.dataset import SealedSet, check_ids, digest_of, seal_tables
from gristmill.shards.engine import Runner, is_finished, kept_code, run_step, step_url
from gristmill.shards.job import TrainJob, TrainListener
from gristmill.shards.step import Step

T = TypeVar("T", SealedSet, Artifact)


class Cluster(Runner, Protocol):
    """Makes shards and trains models, in this process or on a cluster."""

    def train(self, jobs: Sequence[tuple[TrainJob, str]], listener: TrainListener | None = None) -> None:
        """Train each job and commit its artifact at the given URL, as many in parallel as fit; tell a listener how
        they go."""
        ...


class Listening(TrainListener):
    """Shows the trainings of one call, by distinct names: those of several seeds or settings are numbered."""

    def __init__(self, jobs: Sequence[tuple[TrainJob, str]], progress: RunProgress) -> None:
        self.progress, self.all, self.done, self.lock = progress, len(jobs), 0, threading.Lock()
        self.labels = dict(zip((url for _, url in jobs), _labels([job for job, _ in jobs]), strict=True))

    def point(self, url: str, metrics: Mapping[str, float]) -> None:
        """Show a point of a training."""
        with self.lock:
            if metrics.get("steps"):
                self.progress.agenda.at(min(1.0, (metrics["step"] + 1) / metrics["steps"]), url)
            self.progress.training(self.labels[url], metrics)

    def ended(self, url: str) -> None:
        """Show that one more is done."""
        with self.lock:
            self.done += 1
            self.progress.agenda.ended(url)
            self.progress.trained(self.labels[url], self.done, self.all)


def _labels(jobs: Sequence[TrainJob]) -> list[str]:
    """Return a distinct name of each job: with its seed, if that tells it from the others of its name."""
    seeds = [getattr(job.settings, "seed", job.inputs.get("seed")) for job in jobs]
    named = [f"{job.name}_seed{seed}" for job, seed in zip(jobs, seeds, strict=True)]
    found = []
    for place, job in enumerate(jobs):
        same = [other for other, one in enumerate(jobs) if one.name == job.name]
        if len(same) > 1 and len({seeds[other] for other in same}) == len(same):
            found.append(named[place])
        else:
            found.append(job.name if len(same) == 1 else f"{job.name} {same.index(place) + 1} of {len(same)}")
    return found


@dataclass
class Trace:
    """One set, artifact or model of a run."""

    name: str
    kind: str  # source, step, artifact, training
    url: str
    digest: str
    inputs: list[str]  # digests
    records: int = 0
    seconds: float = 0.0  # wall
    kept: bool = False  # finished by an earlier run
    summary: Mapping[str, Any] = field(default_factory=dict)  # the set-level part of a set's seal
    processor: str = ""  # the level that it was made at, if that was recorded


@dataclass
class Run:
    """One run of a recipe under ``out``. Each result is in a folder named by its fingerprint.

    With ``requeue``, steps also run the records that an earlier run quarantined again. What is named in ``again`` is
    made anew, and so, if it comes out otherwise, is what depends on it; an earlier result keeps its place under another
    name.

    Raises:
        UserError: this machine or process cannot keep the instruction set to which it is pinned
            (:mod:`gristmill.shards.processor`).

    Example:
        >>> from gristmill.actors.requests.folds import Folds
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> run = Run("made/run", InProcessRunner())
        >>> texts = run.table("texts", pa.table({"id": ["a", "b"], "text": ["lights on", "lights off"]}))
        >>> dealt = run.step(Step("dealt", (Folds.stage(),), texts))
        >>> dealt.schema.names, dealt.records
        (['id', 'text', 'fold'], 2)
        >>> count = run.artifact("count", lambda: {"n.txt": b"2"}, {"version": 1}, [dealt.digest])
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
    trace: list[Trace] = field(default_factory=list)
    verdict: str = ""  # of its report
    changed_code: dict[str, list[str]] = field(default_factory=dict)  # by name: the results made by the code before
    _renewed: set[str] = field(default_factory=set)  # URLs

    def __post_init__(self) -> None:
        self.out = os.fspath(self.out)  # a script may give a Path
        processor.check()
        self._sets = Remaking(self._begin_work, lambda text: self.progress.say(text), self._note_again)

    def source(
        self,
        name: str,
        tables: Callable[[], Iterator[pa.Table]],
        identity: Mapping[str, Any],
        totals: Sequence[str] = (),
        of: SealedSet | None = None,
    ) -> SealedSet:
        """Seal rows that the driver streams (listings of files, generated requests), or find them sealed.

        Each table is a shard, and its column ``id`` has a distinct text for each record. ``totals`` names numeric
        columns whose sums the seal keeps. ``of`` is the set whose rows these are (parts of it, or ranges of them), a
        table for each of its shards: a plan from a sample of that set scales them with it.
        """
        made_of = source_fingerprint(name, identity)
        url = store.join(self.out, name, made_of[:16])
        self._renew(url, name)
        sealed = self._find(lambda url: dataset.find_made(url, made_of), url)
        begun = time.perf_counter()
        kept = sealed is not None

        def make(again: SealedSet | None = None) -> SealedSet:
            with self._reported(name, "listing", {url: name}):
                expected = None if again is None else again.digest
                return seal_tables(url, name, tables(), totals, expected=expected, fingerprint=made_of)

        if sealed is None:
            sealed = make()
        self._note(name, "source", sealed, [], begun, kept)
        return self._sets.hold(sealed, make)

    def table(self, name: str, table: pa.Table, totals: Sequence[str] = ()) -> SealedSet:
        """Seal a table that is at hand, or find it sealed: it is identified by its rows.

        Its column ``id`` has a distinct text for each record.

        Example:
            >>> from gristmill.cluster.inprocess import InProcessRunner
            >>> run = Run("made/tables", InProcessRunner())
            >>> run.table("texts", pa.Table.from_pylist([{"id": "a", "text": "on"}])).records
            1
        """
        check_ids(name, table)
        identity = {"schema": str(table.schema), "rows": digest_of(iter([table]))}
        return self.source(name, lambda: iter([table]), identity, totals)

    def step(self, step: Step) -> SealedSet:
        """Run a step, or find it done."""
        url = step_url(self.out, step, self.seed)
        fingerprint = step.fingerprint(self.seed)
        self._renew(url, step.name, *(stage.name for stage in step.stages))
        before = self._find(lambda url: dataset.find_made(url, fingerprint), url)
        if before is not None and not is_finished(before, requeue=self.requeue):
            self._begin_work()
            before = dataset.find_made(url, fingerprint)
        codes = {stage.name: stage.actor for stage in step.stages}
        self._tell_changed(changed(kept_code(url, before), codes), f"step {step.name}")
        begun = time.perf_counter()
        refs = [ref for stage in step.stages for ref in stage.artifacts.values()]
        needed = [step.input.url, *(join.dataset.url for join in step.joins), *(ref.url for ref in refs)]

        def make(again: SealedSet | None = None) -> SealedSet:
            self._sets.need(needed)
            self.progress.agenda.begin({url: step.name})
            requeue = self.requeue and again is None
            with self._sets.making():
                return run_step(step, self.out, self.cluster, self.seed, self.progress, requeue=requeue, again=again)

        if is_finished(before, requeue=self.requeue):
            if all(trace.url != url for trace in self.trace):  # a step that is used twice is reported once
                self.progress.found(before)
            sealed = before  # the seal may be long: read it only once
        else:
            if before is not None:  # with records to requeue, which lie in its own files
                self._sets.hold(before, make)
                self._sets.need([url])
            sealed = make()
        kept = before is not None and before.digest == sealed.digest
        inputs = [step.input.digest, *(join.dataset.digest for join in step.joins), *(ref.digest for ref in refs)]
        self._note(step.name, "step", sealed, inputs, begun, kept)
        return self._sets.hold(sealed, make)

    def artifact(
        self,
        name: str,
        make: Callable[[], dict[str, bytes]],
        identity: Mapping[str, Any],
        inputs: Sequence[str] = (),
    ) -> Artifact:
        """Commit a fitted artifact, or find it done. ``inputs`` are the digests of its inputs."""
        whole = {"artifact": name, "inputs": list(inputs), **identity}
        return self.build(name, lambda url: put_artifact(url, make(), whole), identity, inputs)

    def build(
        self, name: str, make: Callable[[str], object], identity: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> Artifact:
        """Like :meth:`artifact`, but ``make`` writes the files itself and commits the artifact at the given URL."""
        url = store.join(self.out, name, canonical.fingerprint([name, identity, list(inputs)])[:16])
        self._renew(url, name)
        made = self._find(find_made, url)
        begun = time.perf_counter()
        kept = made is not None
        if made is None:
            with self._reported(name, "fitting", {url: name}):
                make(url)
            made = find_made(url)
        if made is None:
            raise RuntimeError(f"{url}: the artifact {name} was made but is missing")
        self._note(name, "artifact", made, list(inputs), begun, kept)
        return made

    def train(self, jobs: Sequence[TrainJob]) -> list[Artifact]:
        """Train the unfinished jobs, as many in parallel as fit, and return all artifacts in order."""
        urls = [job.url(self.out) for job in jobs]
        by_url = dict(zip(urls, jobs, strict=True))  # equal jobs are one
        for url, job in by_url.items():
            self._renew(url, job.name)
        todo = [(job, url) for url, job in by_url.items() if self._find(job.done, url) is None]
        begun = time.perf_counter()
        if todo:
            self._sets.need(one.url for job, _ in todo for one in job.made_of())
            names = ", ".join(dict.fromkeys(job.name for job, _ in todo))
            fits = sum(not job.stepwise for job, _ in todo)
            kinds = [f"fitting {plural(fits, 'artifact')}"] if fits else []
            kinds += [f"training {plural(len(todo) - fits, 'model')}"] if fits < len(todo) else []
            with self._reported(names, ", ".join(kinds), {url: job.name for job, url in todo}):
                self.cluster.train(todo, Listening(todo, self.progress))
        made = []
        waiting = {url for _, url in todo}
        fresh = {(job.name, url) for job, url in todo}
        share = (time.perf_counter() - begun) / max(1, len(waiting))  # of each: they ran in parallel
        for job, url in zip(jobs, urls, strict=True):
            artifact = job.done(url)
            if artifact is None:
                raise RuntimeError(f"{url}: the training ended without its artifact")
            made.append(artifact)
            self._tell_changed(changed(artifact.code, {job.name: str(job.loop)}), f"training {job.name}")
            spent = share if url in waiting else 0.0
            waiting.discard(url)
            kept = (job.name, url) not in fresh
            inputs = [one.digest for one in job.made_of()]
            self._note(job.name, "training", artifact, inputs, time.perf_counter() - spent, kept)
        return made

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
        if self.on_work is not None:
            self.on_work()

    @contextlib.contextmanager
    def _reported(self, name: str, activity: str, parts: Mapping[str, str]) -> Iterator[None]:
        begun = time.perf_counter()
        self.progress.agenda.begin(parts)
        self.progress.working(name, activity)
        with self._sets.making():
            yield
        self.progress.worked(name, activity, time.perf_counter() - begun)

    def _note(
        self,
        name: str,
        kind: str,
        made: SealedSet | Artifact,
        inputs: list[str],
        begun: float,
        kept: bool,
    ) -> None:
        seconds = time.perf_counter() - begun
        if not self.trace and self.on_first is not None:
            self.on_first()
        records, summary = (made.records, _summary(made)) if isinstance(made, SealedSet) else (0, {})
        one = Trace(name, kind, made.url, made.digest, inputs, records, seconds, kept, summary, made.processor)
        self.trace.append(one)
        self.progress.made(made.url, name, seconds, kept)

    def _note_again(self, url: str) -> None:
        for one in self.trace:
            if one.url == url:
                one.kept = False

    @property
    def processors(self) -> str:
        """The levels that its results were made at, as their seals and artifacts say."""
        return processor.recorded(trace.processor for trace in self.trace)

    def write_ledger(self, recipe: str, settings: str) -> bool:
        """Write the list of folders that belong to the run as configured now; return whether it changed.

        ``settings`` is the digest of the saved settings: a run of others has begun since if they have changed.
        """
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


def source_fingerprint(name: str, identity: Mapping[str, Any]) -> str:
    """Return the fingerprint of a source, which names its folder."""
    return canonical.fingerprint([name, identity])


def _summary(sealed: SealedSet) -> dict[str, Any]:
    """Return the set-level part of a seal, whose size does not depend on the number of shards."""
    seal = sealed.seal
    short = {key: value for key, value in seal.items() if key not in ("shards", "schema", "rejects", "quarantine")}
    return {**short, "shards": len(seal["shards"])}
