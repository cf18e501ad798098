"""Where a run's results come from: what became of the records, what was made of what, with which versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from gristmill.pipelines.report.report import LineageNode, RecordFlow, Report
from gristmill.pipelines.results import Trace
from gristmill.pipelines.run import Run
from gristmill.pipelines.versions import versions
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.plan import Made


def add_provenance(report: Report, run: Run, runner: str, earlier: Mapping[str, float] | None = None) -> None:
    """Fill the report's records, lineage, digests, seeds and versions from what the run did; note results of code that
    has changed since.

    The lineage has an edge for each set and artifact that a result was given, and for each that was read to make it.
    ``earlier`` has the seconds of results that were kept from earlier calls, by URL, as far as they are known.
    """
    names = _names(run)
    traces = first_made(run.trace)
    made_as: dict[str, str] = {}  # name by digest
    inputs: dict[str, dict[str, None]] = {name: {} for name in names.values()}  # a result that is used twice is one
    for node in run.plan.nodes:
        if node.made is None:
            continue
        name = names[node.made.url]
        used = [one.made for one in run.plan.used_by(node) if one.made is not None]
        others = traces[node.made.url].inputs  # also of what was given as it is, and not by its handle
        others = [digest for digest in others if digest in made_as and digest not in {one.digest for one in used}]
        needs = [*(names[one.url] for one in used), *(made_as[digest] for digest in others)]
        inputs[name].update(dict.fromkeys(needs))
        made_as.setdefault(node.made.digest, name)
    for url, name in names.items():
        trace = traces[url]
        seconds = (earlier or {}).get(url) if trace.kept else trace.seconds
        rows = trace.records if trace.summary else None
        needs = [one for one in inputs[name] if one != name]
        report.lineage.append(LineageNode(name, trace.digest, needs, trace.kind, rows, None, seconds))
        report.digests[name] = trace.digest
    report.records += [RecordFlow.of_seal(trace.summary) for trace in run.trace if trace.summary]
    report.run = {"seed": run.seed, "seeds": list(run.seeds), "runner": runner}
    report.versions = {"processor": run.processors, **versions()}
    report.notes = [*report.notes, *(_changed(name, places) for name, places in run.changed_code.items())]


def first_made(traces: Iterable[Trace]) -> dict[str, Trace]:
    """Return the trace of each result by its URL: of those that are used twice, the one that tells of its making."""
    return {trace.url: trace for trace in sorted(traces, key=lambda trace: trace.kept, reverse=True)}


def add_sizes(report: Report, run: Run) -> None:
    """Fill in the bytes of the lineage. Those of artifacts cost a look into each of their folders."""
    names = _names(run)
    made = {names[node.made.url]: node.made for node in run.plan.nodes if node.made is not None}
    report.lineage = [replace(one, bytes=_stored_bytes(made[one.name])) for one in report.lineage]


def _stored_bytes(made: Made) -> int | None:
    """Return the bytes of the files of a set or artifact; ``None`` if some of them are not there any more."""
    if isinstance(made, SealedSet):
        return sum(file.bytes for file in made.files)
    sizes: dict[str, int] = {}
    for folder in {path.rpartition("/")[0] for path in made.stored}:
        found = store.list_sizes(store.join(made.url, folder) if folder else made.url)
        sizes |= {f"{folder}/{name}" if folder else name: size for name, size in found.items()}
    return sum(sizes[path] for path in made.stored) if made.stored.keys() <= sizes.keys() else None


def _names(run: Run) -> dict[str, str]:
    """Return a name of each result by its URL: trainings of several seeds or grid points share theirs, and the
    fingerprint tells them apart."""
    found = {trace.url: trace.name for trace in run.trace}
    shared = Counter(found.values())
    return {url: f"{name} {store.last_name(url)[:6]}" if shared[name] > 1 else name for url, name in found.items()}


def _changed(name: str, places: list[str]) -> str:
    return (
        f"The code of {name} is not that which its results were made by ({', '.join(places)}), and its version is the "
        f"same: the numbers here are of the earlier code. `gristmill run ... --again {name}` makes them anew."
    )
