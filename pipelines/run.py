"""What a recipe is handed: the means to make sets, artifacts and models, and the trace of what was done."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from gristmill.pipelines.progress import RunProgress, plural
from gristmill.shards import canonical, store
from gristmill.shards.artifact import Artifact, get_artifact, put_artifact
from gristmill.shards.dataset import SealedSet, find_sealed, seal_tables
from gristmill.shards.engine import Runner, is_finished, run_step, step_url
from gristmill.shards.job import TrainJob
from gristmill.shards.step import Step

LEDGER = "run.json"

T = TypeVar("T")


class Cluster(Runner, Protocol):
    """Makes shards and trains models somewhere."""

    def train(self, jobs: Sequence[tuple[TrainJob, str]]) -> None:
        """Train each job and commit its artifact at the URL given with it; as many at once as fit."""
        ...


@dataclass
class Trace:
    """What was done for one set, artifact or model of a run."""

    name: str
    kind: str  # source, step, artifact, training
    url: str
    digest: str
    inputs: list[str]  # digests
    records: int = 0
    seconds: float = 0.0  # wall
    kept: bool = False  # finished by an earlier run
    told: Mapping[str, Any] = field(default_factory=dict)  # what the seal of a set tells of it as a whole


@dataclass
class Run:
    """One run of a recipe under ``out``. Everything it makes lies in a folder named by its fingerprint."""

    out: str
    cluster: Cluster
    seed: int = 0
    progress: RunProgress = field(default_factory=RunProgress)
    requeue: bool = False
    seeds: list[int] = field(default_factory=lambda: [0])  # of trainings
    on_first: Callable[[], None] | None = None  # called when the first set, artifact or model is there
    on_work: Callable[[], None] | None = None  # called before each that is to be made; it may wait
    trace: list[Trace] = field(default_factory=list)

    def source(
        self,
        name: str,
        tables: Callable[[], Iterator[pa.Table]],
        identity: Mapping[str, Any],
        totals: Sequence[str] = (),
    ) -> SealedSet:
        """Seal what the driver streams: listings of files, generated requests. Seen again, it is not written.

        ``totals`` names numeric columns whose sums the seal keeps.
        """
        url = store.join(self.out, name, canonical.digest([name, identity])[:16])
        sealed = self._find(find_sealed, url)
        begun = time.perf_counter()
        kept = sealed is not None
        if sealed is None:
            with self._told(name, "listing"):
                sealed = seal_tables(url, name, tables(), totals)
        self._note(name, "source", sealed.url, sealed.digest, [], sealed.records, begun, kept, _summary(sealed))
        return sealed

    def step(self, step: Step) -> SealedSet:
        """Run a step, or find it done."""
        url = step_url(self.out, step, self.seed)
        before = self._find(find_sealed, url)
        if before is not None and not is_finished(before, requeue=self.requeue):
            self._begin_work()
            before = find_sealed(url)
        begun = time.perf_counter()
        if is_finished(before, requeue=self.requeue):
            if all(trace.url != url for trace in self.trace):  # a step that is used twice is told of once
                self.progress.found(before)
            sealed = before  # its seal may be long: it is read once
        else:
            sealed = run_step(step, self.out, self.cluster, self.seed, self.progress, requeue=self.requeue)
        kept = before is not None and before.digest == sealed.digest
        inputs = [step.input.digest, *(join.dataset.digest for join in step.joins)]
        inputs += [ref.digest for stage in step.stages for ref in stage.artifacts.values()]
        self._note(step.name, "step", sealed.url, sealed.digest, inputs, sealed.records, begun, kept, _summary(sealed))
        return sealed

    def artifact(
        self,
        name: str,
        make: Callable[[], dict[str, bytes]],
        identity: Mapping[str, Any],
        inputs: Sequence[str] = (),
    ) -> Artifact:
        """Commit a fitted thing, or find it done. ``inputs`` are the digests of what it is made from."""
        whole = {"artifact": name, "inputs": list(inputs), **identity}
        return self.build(name, lambda url: put_artifact(url, make(), whole), identity, inputs)

    def build(
        self, name: str, make: Callable[[str], object], identity: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> Artifact:
        """Like :meth:`artifact`, for what writes its files itself: ``make`` commits it at the URL it is given."""
        url = store.join(self.out, name, canonical.digest([name, identity, list(inputs)])[:16])
        made = self._find(get_artifact, url)
        begun = time.perf_counter()
        kept = made is not None
        if made is None:
            with self._told(name, "fitting"):
                make(url)
            made = get_artifact(url)
        if made is None:
            raise RuntimeError(f"{url}: the artifact {name} was made and is not there")
        self._note(name, "artifact", url, made.digest, list(inputs), 0, begun, kept)
        return made

    def train(self, jobs: Sequence[TrainJob]) -> list[Artifact]:
        """Train the jobs that are not done, as many at once as fit, and return all their artifacts in order."""
        urls = [job.url(self.out) for job in jobs]
        by_url = dict(zip(urls, jobs, strict=True))  # equal jobs are one
        todo = [(job, url) for url, job in by_url.items() if self._find(job.done, url) is None]
        begun = time.perf_counter()
        if todo:
            names = ", ".join(dict.fromkeys(job.name for job, _ in todo))
            with self._told(names, f"training {plural(len(todo), 'model')}"):
                self.cluster.train(todo)
        made = []
        waiting = {url for _, url in todo}
        fresh = {(job.name, url) for job, url in todo}
        share = (time.perf_counter() - begun) / max(1, len(waiting))  # of each: they ran together
        for job, url in zip(jobs, urls, strict=True):
            artifact = job.done(url)
            if artifact is None:
                raise RuntimeError(f"{url}: the training ended without its artifact")
            made.append(artifact)
            spent = share if url in waiting else 0.0
            waiting.discard(url)
            kept = (job.name, url) not in fresh
            inputs = [one.digest for one in job.made_of()]
            self._note(job.name, "training", url, artifact.digest, inputs, 0, time.perf_counter() - spent, kept)
        return made

    def _find(self, find: Callable[[str], T | None], url: str) -> T | None:
        """Return what is at a URL; before it is said that nothing is, nobody else is at work any more."""
        found = find(url)
        if found is None:
            self._begin_work()
            found = find(url)
        return found

    def _begin_work(self) -> None:
        if self.on_work is not None:
            self.on_work()

    @contextlib.contextmanager
    def _told(self, name: str, what: str) -> Iterator[None]:
        begun = time.perf_counter()
        self.progress.working(name, what)
        yield
        self.progress.worked(name, what, time.perf_counter() - begun)

    def _note(
        self,
        name: str,
        kind: str,
        url: str,
        digest: str,
        inputs: list[str],
        records: int,
        begun: float,
        kept: bool = False,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        seconds = time.perf_counter() - begun
        if not self.trace and self.on_first is not None:
            self.on_first()
        self.trace.append(Trace(name, kind, url, digest, inputs, records, seconds, kept, told or {}))

    def write_ledger(self, recipe: str) -> bool:
        """Write which folders belong to the run as it is configured now; tell whether that had changed."""
        entries = [
            {
                "name": t.name,
                "kind": t.kind,
                "path": t.url.removeprefix(self.out).strip("/"),
                "digest": t.digest,
            }
            for t in self.trace
        ]
        data = json.dumps({"recipe": recipe, "made": entries}, indent=1).encode()
        url = store.join(self.out, LEDGER)
        if store.read_if_present(url) == data:
            return False
        store.write_bytes(url, data)
        return True


def _summary(sealed: SealedSet) -> dict[str, Any]:
    """Return what a seal tells of its set as a whole, which is short whatever the number of shards."""
    seal = sealed.seal
    short = {key: value for key, value in seal.items() if key not in ("shards", "schema", "rejects", "quarantine")}
    return {**short, "shards": len(seal["shards"])}
