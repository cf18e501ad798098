"""Where a run's results come from: what became of the records, what was made of what, with which versions."""

from __future__ import annotations

from gristmill.pipelines.report.report import LineageNode, RecordFlow, Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.versions import versions


def add_provenance(report: Report, run: Run, runner: str) -> None:
    """Fill the report's records, lineage, digests, seeds and versions from what the run did; note results of code that
    has changed since."""
    names: dict[str, str] = {}
    for trace in run.trace:
        # Trainings of several seeds or grid points share a name; the fingerprint tells them apart.
        fingerprint = trace.url.rstrip("/").rsplit("/", 1)[-1]
        shared = sum(other.name == trace.name and other.url != trace.url for other in run.trace)
        name = f"{trace.name} {fingerprint[:6]}" if shared else trace.name
        known = (names[digest] for digest in trace.inputs if digest in names)
        inputs = list(dict.fromkeys(known))  # that of two stages once
        if name not in report.digests:
            report.lineage.append(LineageNode(name, trace.digest, inputs, trace.kind))
        names.setdefault(trace.digest, name)
        report.digests[name] = trace.digest
        if trace.summary:
            report.records.append(RecordFlow.of_seal(trace.summary))
    report.run = {"seed": run.seed, "seeds": list(run.seeds), "runner": runner}
    report.versions = {"processor": run.processors, **versions()}
    report.notes = [*report.notes, *(_changed(name, places) for name, places in run.changed_code.items())]


def _changed(name: str, places: list[str]) -> str:
    return (
        f"The code of {name} is not that which its results were made by ({', '.join(places)}), and its version is the "
        f"same: the numbers here are of the earlier code. `gristmill run ... --again {name}` makes them anew."
    )
