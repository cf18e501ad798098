"""The tables of the expansion recipe's report: the funnel of the pool, self-labels, learning curves, extremes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.nearest import DISTANCE
from gristmill.pipelines.report.report import Curve, MetricRow, NumberTable
from gristmill.pipelines.requests.expand_systems import Expansion
from gristmill.shards.dataset import SealedSet

LABELS = {
    "target": "New function",
    "seeds": "Seeds only",
    "random": "Seeds and random requests",
    "self": "Filter and self-training",
    "fused_seeds": "Fused, seeds only",
    "fused": "Fused, filter and self-training",
    "diverse_half": "Diverse half of what fused added",
    "diverse_quarter": "Diverse quarter",
    "annotated": "Seeds and the annotated proposals",
    "all_gold": "The pool, annotated",
}
_BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.01)
_SHOWN = 5
_PARTS = ("_half", "_quarter")


def measured(made: Sequence[Expansion], rows: Sequence[MetricRow]) -> list[NumberTable]:
    """Return the tables."""
    kept = [_funnel(made), _labels(made), _added(made, rows), _curves(made, rows), _extremes(made[0])]
    return [table for table in kept if table.rows]


def _funnel(made: Sequence[Expansion]) -> NumberTable:
    def mean(sets: Sequence[SealedSet]) -> float:
        return round(float(np.mean([one.records for one in sets])), 1)

    rows = [
        {"requests": "annotated seeds", "mean": mean([one.cell.seeds for one in made])},
        {"requests": "pool", "mean": mean([one.cell.pool for one in made])},
    ]
    for name in ("self", "fused"):
        rows.append({"requests": f"{name}: most relevant", "mean": mean([one.trained[name].filtered for one in made])})
        rows.append({"requests": f"{name}: accepted", "mean": mean([one.added[name] for one in made])})
    notes = []
    for name in ("self", "fused"):
        recalls = [found for one in made if (found := _recall(one.trained[name].filtered, one.added)) is not None]
        if recalls:
            share = f"{np.mean(recalls):.0%}"
            notes.append(f"Of the function's requests in the pool, {share} are among the most relevant of {name}.")
    none = [one.cell.name for one in made if not one.added["fused"].records]
    if none:
        notes.append(f"Nothing of the pool was accepted for {', '.join(none)}: fused has the seeds alone there.")
    return NumberTable("Where the pool went", rows, " ".join(notes))


def _recall(filtered: SealedSet, added: Mapping[str, SealedSet]) -> float | None:
    """Return the share of the function's requests in the pool that the filter keeps."""
    if "all_gold" not in added:
        return None
    wanted = {name for table in added["all_gold"].tables(["id"]) for name in table["id"].to_pylist()}
    kept = {name for table in filtered.tables(["id"]) for name in table["id"].to_pylist()}
    return len(wanted & kept) / max(1, min(len(wanted), filtered.records))


def _labels(made: Sequence[Expansion]) -> NumberTable:
    """Return the share of right self-labels by confidence, where the annotation is known."""
    sure, intents, slots = [], [], []
    for one in made:
        own = one.added["fused"]
        if "gold_intent" not in own.schema.names:
            continue
        for table in own.tables(["confidence", "intent", "slots", "gold_intent", "gold_slots"]):
            for row in table.to_pylist():
                sure.append(row["confidence"])
                intents.append(row["intent"] == row["gold_intent"])
                slots.append(_spans(row["slots"]) == _spans(row["gold_slots"]))
    place = np.digitize(sure, _BINS) if sure else np.zeros(0, int)
    rows: list[dict[str, Any]] = []
    for number, (low, high) in enumerate(pairwise(_BINS), 1):
        here = place == number
        if here.any():
            name = f"{low:g} to {min(high, 1):g}"
            right = [round(float(np.array(given)[here].mean()), 3) for given in (intents, slots)]
            rows.append(
                {"confidence": name, "requests": int(here.sum()), "intent right": right[0], "slots right": right[1]}
            )
    return NumberTable("Self-labels of fused", rows, "Annotation that no system has seen tells what is right.")


def _spans(slots: Sequence[Mapping[str, Any]] | None) -> list[tuple[Any, ...]]:
    return sorted((slot["name"], slot["value"]) for slot in slots or ())


def _found(metrics: Sequence[MetricRow]) -> dict[tuple[str, str], float]:
    rows = (row for row in metrics if row.seed is None and row.test_set == "target")
    return {(row.system, row.metric): row.value for row in rows if row.value is not None}


def _mean_size(made: Sequence[Expansion], name: str) -> float:
    return round(float(np.mean([one.added[name].records for one in made])), 1)


def _added(made: Sequence[Expansion], metrics: Sequence[MetricRow]) -> NumberTable:
    """Return the metrics of each system with the number of requests that it added."""
    found, rows = _found(metrics), []
    base, full = found.get(("fused_seeds", "f1")), found.get(("fused", "f1"))
    for name in made[0].added:
        f1, semer = found.get((name, "f1")), found.get((name, "semer"))
        if f1 is None or semer is None:
            continue
        row = {"system": name, "added": _mean_size(made, name), "F1": round(f1, 4), "SemER": round(semer, 4)}
        if name.endswith(_PARTS) and base is not None and full is not None and full > base:
            row["share of the F1 gain"] = round((f1 - base) / (full - base), 3)
        rows.append(row)
    return NumberTable("Fewer requests, by selector", rows, "The gain is that of fused over the same without the pool.")


def _curves(made: Sequence[Expansion], metrics: Sequence[MetricRow]) -> NumberTable:
    """Return learning curves over the requests that are added, by selector: none, a quarter, a half, and all."""
    found, rows = _found(metrics), []
    selectors = [name.removesuffix("_quarter") for name in made[0].added if name.endswith("_quarter")]
    for selector in selectors:
        for name in ("fused_seeds", f"{selector}_quarter", f"{selector}_half", "fused"):
            if (name, "f1") in found:
                added = 0.0 if name == "fused_seeds" else _mean_size(made, name)
                numbers = {"F1": round(found[name, "f1"], 4), "SemER": round(found[name, "semer"], 4)}
                rows.append({"selector": selector, "requests added": added, **numbers})
    drawn = tuple(Curve("requests added", name, "selector") for name in ("F1", "SemER"))
    return NumberTable("Learning curves, by selector", rows, "", drawn)


def _extremes(one: Expansion) -> NumberTable:
    """Return the requests that were added with the least and the greatest relevance."""
    columns = ["text", DISTANCE.name, "confidence"]
    table = pa.concat_tables(one.added["fused"].tables(columns)).sort_by(DISTANCE.name)
    most = table.slice(0, _SHOWN).to_pylist()
    least = table.slice(max(_SHOWN, table.num_rows - _SHOWN)).to_pylist()
    rows = []
    for kind, some in (("typical", most), ("least typical", least)):
        for row in some:
            numbers = {"log-odds": round(-row[DISTANCE.name], 2), "confidence": round(row["confidence"], 3)}
            rows.append({"request": row["text"], "is": kind, **numbers})
    return NumberTable(f"Requests added for {one.cell.function}", rows)
