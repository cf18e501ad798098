"""The parts of a published model's card that all have: its figures, what it was made of, and by what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from gristmill.pipelines.finished import Finished
from gristmill.pipelines.report.measures import PERCENT
from gristmill.shards.safe_text import redacted

UNKNOWN = "not known to Gristmill: state it before you pass the model on"


def figures(run: Finished, system: str, counted: str, measures: Collection[str] | None = None) -> Iterator[str]:
    """Yield the figures of a system with their intervals, beside the baseline's: of the report's measure, or of
    ``measures`` by name. ``counted`` is what a test set's size counts."""
    report = run.report
    wanted = [report["metric"]] if measures is None else measures
    seeds = report.get("run", {}).get("seeds", [0])
    several = f"means over seeds {', '.join(map(str, seeds))}, of which this model is of {seeds[0]}; "
    yield from ("## Figures", "")
    for measure in (one for one in report["measures"] if one["name"] in wanted):
        scale, unit = (100.0, " %") if measure["unit"] == PERCENT.name else (1.0, "")
        rows = [row for row in report["metrics"] if row["metric"] == measure["name"] and row["seed"] is None]
        own = [row for row in rows if row["system"] == system]
        if not own:
            continue
        yield (
            f"{measure['label']} of `{system}` ({several if len(seeds) > 1 else ''}95 % bootstrap intervals"
            f"{'; the less, the better' if measure['better'] == 'lower' and measures is not None else ''}):"
        )
        baseline = report["baseline"]
        theirs = {row["test_set"]: row["value"] for row in rows if row["system"] == baseline != system}
        beside = f" `{baseline}` |" if theirs else ""
        yield from (
            "",
            f"| test set | {measure['label']} | interval | of |{beside}",
            "| --- " * (4 + bool(beside)) + "|",
        )
        for row in own:
            value, low, high = (_shown(row[name], scale, unit) for name in ("value", "low", "high"))
            other = f" {_shown(theirs.get(row['test_set']), scale, unit)} |" if theirs else ""
            yield f"| {row['test_set']} | {value} | {low} to {high} | {row['n']:,} {counted} |{other}"
        yield ""


def _shown(value: float | None, scale: float, unit: str) -> str:
    return "–" if value is None else f"{value * scale:.1f}{unit}"


def as_code(places: Any) -> str:
    """Return places as code; of a path on the machine of the run its last two names."""
    given = [places] if isinstance(places, str) else places or []
    return ", ".join(f"`{redacted(place if '://' in place else '/'.join(place.split('/')[-2:]))}`" for place in given)


def ancestors(lineage: Sequence[Mapping[str, Any]], digests: Collection[str]) -> list[str]:
    """Return the names of what the models of some digests were made of, inputs first."""
    inputs = {node["name"]: node["inputs"] for node in lineage}
    waiting = [node["name"] for node in lineage if node["digest"] in digests]
    found: set[str] = set()
    while waiting:
        for name in inputs.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return [node["name"] for node in lineage if node["name"] in found]


def origin(run: Finished, digests: Collection[str]) -> Iterator[str]:
    """Yield the digests of the trainings, and the versions of the software."""
    versions = ", ".join(f"{name} {version}" for name, version in run.report.get("versions", {}).items())
    shown = ", ".join(f"`{digest}`" for digest in digests)
    several = "s of the trainings' artifacts" if len(digests) > 1 else " of the training's artifact"
    yield from ("## Where it comes from", "", f"Digest{several}: {shown}. Made with {versions}.", "")
