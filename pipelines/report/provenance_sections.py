"""Sections of the page on provenance: records, plan, lineage, recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gristmill.pipelines.graph import GraphNode, merged
from gristmill.pipelines.graph_picture import to_svg
from gristmill.pipelines.pace import clock
from gristmill.pipelines.progress import told_size
from gristmill.pipelines.report.figures import curves
from gristmill.pipelines.report.report import Curve, LineageNode, NumberTable, RecordFlow, Report
from gristmill.pipelines.report.tables import COLOURS, count, dot, table

_KINDS = {"source": "--s3", "step": "--s1", "artifact": "--s2", "training": "--s4"}
_TIME, _SHORT = "seconds", 1.0  # what takes less by plan and clock has no ratio worth telling
_KEPT, _REJECTED, _QUARANTINED = "--s3", ("--s5", "--s2", "--s4", "--s6", "--s0"), "--bad"


def records_section(report: Report) -> str:
    """Show where records were rejected or quarantined, and in a table the counts of every step."""
    if not report.records:
        return ""
    bars, rows = [], []
    for step in report.records:
        reasons = dict(sorted(step.reasons.items(), key=lambda pair: -pair[1]))
        other = step.rejected - sum(reasons.values())
        if other > 0:
            # Of a merge, a reason is of a group, and what is rejected are all of its records.
            reasons["more records of these groups" if reasons else "rejected"] = other
        if step.rejected or step.quarantined:
            bars.append(_bar(step, reasons))
        why = "<br>".join(f"{escape(reason)}: {n:,}" for reason, n in reasons.items() if n)
        figures_ = [f"{n:,}" for n in (step.records_in, step.records_out, step.rejected, step.quarantined)]
        rows.append([escape(step.name), *figures_, count(step.shards), why or "–"])
    whole = len(rows) - len(bars)
    caption = f"{whole} of {len(rows)} sets kept every record."
    if bars:
        caption += " In the others, every input record was output, rejected with a reason, or quarantined."
    if any(step.name.startswith("unlisted_") for step in report.records):
        caption += " Those of unlisted sets are files that could not be listed."
    head = ["Step", "In", "Out", "Rejected", "Quarantined", "Shards", "Reasons"]
    inner = f"<details><summary>All {len(rows)} sets</summary>{table(head, rows, text=(6,))}</details>"
    drawn = f'<div class="card flow">{"".join(bars)}</div>' if bars else ""
    return f'<p class="hint">{escape(caption)}</p>{drawn}{inner}'


def _bar(step: RecordFlow, reasons: Mapping[str, int]) -> str:
    parts = [("kept", step.records_out, _KEPT)]
    parts += [(reason, n, _REJECTED[min(i, 4)]) for i, (reason, n) in enumerate(reasons.items())]
    parts.append(("quarantined", step.quarantined, _QUARANTINED))
    total = sum(n for _, n, _ in parts) or 1
    drawn = "".join(
        f'<b title="{escape(name)}: {n:,}" style="width:{100 * n / total:.2f}%;background:var({colour})"></b>'
        for name, n, colour in parts
        if n
    )
    counts = " · ".join(f"{n:,} {escape(name)}" for name, n, _ in parts if n)
    return (
        f'<div><div class="name"><span>{escape(step.name)}</span><span>{counts}</span></div>'
        f'<div class="bar">{drawn}</div></div>'
    )


def measured_section(report: Report) -> str:
    """Show the tables of numbers that the recipe measured of its sets."""
    made = ""
    for one in report.measured:
        names = list(dict.fromkeys(name for row in one.rows for name in row))
        rows = [[count(row.get(name)) for name in names] for row in one.rows]
        made += f"<h3>{escape(one.title)}</h3>" + table([escape(name) for name in names], rows, escape(one.note))
        if one.curves:
            lines = list(dict.fromkeys(row[curve.by] for curve in one.curves for row in one.rows))
            keys = "".join(f"<li>{dot(place % COLOURS)}{escape(str(name))}</li>" for place, name in enumerate(lines))
            drawn = "".join(_drawn(one, curve, lines) for curve in one.curves)
            made += f'<ul class="legend">{keys}</ul><div class="grid">{drawn}</div>'
    return made


def _drawn(one: NumberTable, curve: Curve, lines: Sequence[Any]) -> str:
    series = []
    for place, name in enumerate(lines):
        own = sorted((row[curve.x], row[curve.y]) for row in one.rows if row[curve.by] == name)
        series.append((place % COLOURS, [x for x, _ in own], [y for _, y in own]))
    drawn = curves(series, f"{curve.y} over {curve.x}", zero=False)
    return f"<figure><h3>{escape(curve.y)}</h3>{drawn}<figcaption>over {escape(curve.x)}</figcaption></figure>"


def plan_section(report: Report) -> str:
    """Compare the estimate with the measurements: of the whole run, and of each result in the order of declaration."""
    estimate, actual = report.plan.get("estimate", {}), report.plan.get("actual", {})
    whole, parts = [], []
    for name in dict.fromkeys([*actual, *estimate]):
        before, after = estimate.get(name), actual.get(name)
        if isinstance(before, Mapping) or isinstance(after, Mapping):
            inner, outer = before or {}, after or {}
            for key in dict.fromkeys([*inner, *outer]):
                label = name if key == _TIME else f"{name}: {key}"
                parts.append(_planned(label, key, inner.get(key), outer.get(key)))
        else:
            whole.append(_planned("whole run" if name == _TIME else name, name, before, after))
    if not whole and not parts:
        return ""
    head, call = ["Result", "Estimate", "Actual", "Actual / estimate"], _measured_call(report.plan.get("results", {}))
    return table(head, [*whole, *parts], call)


def _planned(label: str, key: str, before: Any, after: Any) -> list[str]:
    ratio = "–"
    numbers = isinstance(before, (int, float)) and isinstance(after, (int, float))
    if numbers and before and (key != _TIME or max(before, after) >= _SHORT):
        ratio = f"{after / before:.2f}"
    shown = [clock(one) if key == _TIME and isinstance(one, (int, float)) else count(one) for one in (before, after)]
    return [escape(label), *shown, ratio]


def _measured_call(results: Mapping[str, Any]) -> str:
    """Say that actual times are of a part of the work, if an earlier call did the rest."""
    if not results or results["made"] == results["of"]:
        return ""
    made, of = results["made"], results["of"]
    return (
        f"Actual times are those of the last call only, which made {made} of {of} results (sets, artifacts and "
        "models); the others were kept from earlier calls, and their times are not here."
    )


def lineage_section(report: Report) -> str:
    """Show what was made of what as a picture, and all results in a table."""
    if not report.lineage and not report.digests:
        return ""
    boxes = merged(_graph(report.lineage))
    drawn = to_svg(boxes, "Lineage of sets, artifacts and models", alone=False)
    names = {"source": "source", "step": "step", "artifact": "artifact", "training": "training or fit"}
    kinds = "".join(
        f'<li><i style="background:var({_KINDS[kind]})"></i>{name}</li>'
        for kind, name in names.items()
        if any(node.kind == kind for node in report.lineage)
    )
    hint = (
        "Each result lies below what it was made of. Results whose names differ in numbers only are one box, with "
        "sums; of a large run also those side by side whose names begin alike."
    )
    told = {node.name for node in report.lineage}
    others = [LineageNode(name, digest) for name, digest in report.digests.items() if name not in told]
    rows = [
        [
            escape(node.name),
            escape(", ".join(node.inputs)) or "–",
            count(node.rows),
            "–" if node.bytes is None else told_size(node.bytes),
            "–" if node.seconds is None else clock(node.seconds),
            f'<span class="mono">{escape((node.digest or "").rpartition(":")[2])}</span>',
        ]
        for node in [*report.lineage, *others]
    ]
    head = ["Set, artifact or model", "Made of", "Rows", "Size", "Time", "Digest"]
    inner = table(head, rows, text=(1, 5))
    return (
        f'<p class="hint">{hint}</p><figure><ul class="legend">{kinds}</ul>'
        f'<div class="wide" tabindex="0" role="region" aria-label="Lineage">{drawn}</div></figure>'
        f"<details><summary>All {len(rows)} results</summary>{inner}</details>"
    )


def _graph(lineage: Sequence[LineageNode]) -> list[GraphNode]:
    """Return the lineage as a graph, inputs first."""
    by_name = {node.name: node for node in lineage}
    order: dict[str, int] = {}
    begun: set[str] = set()
    waiting = list(reversed(lineage))
    while waiting:
        node = waiting[-1]
        before = [by_name[name] for name in node.inputs if name in by_name and name not in begun]
        begun.add(node.name)
        if before:
            waiting += before
        else:
            order.setdefault(waiting.pop().name, len(order))
    return [
        GraphNode(
            name,
            by_name[name].kind,
            tuple(sorted(order[one] for one in by_name[name].inputs if order.get(one, place) < place)),
            rows=by_name[name].rows,
            bytes=by_name[name].bytes,
            seconds=by_name[name].seconds,
        )
        for name, place in order.items()
    ]


def recipe_section(report: Report) -> str:
    """Show the settings, those of the run, and the versions of the software."""
    made = ""
    if report.recipe:
        settings = json.dumps(dict(report.recipe), indent=2, ensure_ascii=False, default=str)
        made += f"<details><summary>The recipe's settings</summary><pre>{escape(settings)}</pre></details>"
    if report.run:
        rows = [[escape(name), escape(_written(value))] for name, value in report.run.items()]
        made += f'<div class="slim">{table(["Setting of the run", "Value"], rows)}</div>'
    if report.versions:
        rows = [[escape(name), escape(str(version))] for name, version in report.versions.items()]
        made += f'<div class="slim">{table(["Software", "Version"], rows)}</div>'
    return made


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
