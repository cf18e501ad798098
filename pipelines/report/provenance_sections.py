"""Sections of the page on provenance: records, plan, lineage, recipe."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from gristmill.pipelines.report import figures
from gristmill.pipelines.report.report import LineageNode, RecordFlow, Report
from gristmill.pipelines.report.tables import count, table

_NUMBERED = re.compile(r"(_(1-)?\d+)+$")  # the size, seed or round at the end of a name
MOST_NODES = 80  # of a lineage above which nodes are merged
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
            reasons["other reasons" if reasons else "rejected"] = other
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
    return made


def _planned(name: str, before: Any, after: Any) -> list[str]:
    ratio = "–"
    if isinstance(before, (int, float)) and isinstance(after, (int, float)) and before:
        ratio = f"{after / before:.2f}"
    return [escape(str(name).replace("_", " ")), count(before), count(after), ratio]


def plan_section(report: Report) -> str:
    """Compare the estimate with the measurements."""
    estimate, actual = report.plan.get("estimate", {}), report.plan.get("actual", {})
    rows: list[list[str]] = []
    for name in dict.fromkeys([*estimate, *actual]):
        before, after = estimate.get(name), actual.get(name)
        if isinstance(before, Mapping) or isinstance(after, Mapping):
            rows.append([escape(str(name))])
            inner, outer = before or {}, after or {}
            rows += [_planned(key, inner.get(key), outer.get(key)) for key in dict.fromkeys([*inner, *outer])]
        else:
            rows.append(_planned("seconds in all" if name == "seconds" else name, before, after))
    if not rows:
        return ""
    return table(["", "Estimate", "Actual", "Actual / estimate"], rows, _measured_call(report.plan.get("results", {})))


def _measured_call(results: Mapping[str, Any]) -> str:
    """Say that actual times are of a part of the work, if an earlier call did the rest."""
    if not results or results["made"] == results["of"]:
        return ""
    made, of = results["made"], results["of"]
    return (
        f"Actual times are those of the last call only, which made {made} of {of} results (sets, artifacts and "
        "models); the others were kept from earlier calls, and their times are not here."
    )


def _drawn(nodes: Sequence[LineageNode]) -> list[LineageNode]:
    """Return the nodes to draw; if there are too many, those whose names differ only in numbers are merged."""
    if len(nodes) <= MOST_NODES:
        return list(nodes)
    base = {node.name: _NUMBERED.sub("", node.name.partition(" ")[0]) for node in nodes}
    sizes = Counter(base.values())
    merged_names = {name: f"{name} ({size})" if size > 1 else name for name, size in sizes.items()}
    made: dict[str, LineageNode] = {}
    for node in nodes:
        own = merged_names[base[node.name]]
        one = made.setdefault(own, replace(node, name=own, inputs=(), digest=None if own not in base else node.digest))
        inputs = dict.fromkeys([*one.inputs, *(merged_names[base[name]] for name in node.inputs)])
        made[own] = replace(one, inputs=[name for name in inputs if name != own])
    return list(made.values())


def lineage_section(report: Report) -> str:
    """Show the lineage graph and the digests."""
    made = ""
    if report.lineage:
        drawn = figures.lineage(_drawn(report.lineage), "Lineage of sets and artifacts")
        kinds = '<li><i style="background:var(--accent)"></i>sealed set</li>'
        if any(node.kind == "artifact" for node in report.lineage):
            kinds += '<li><i style="background:var(--s2);border-radius:2px"></i>artifact</li>'
        made += f'<figure><ul class="legend">{kinds}</ul>{drawn}</figure>'
    if report.digests:
        rows = [
            [escape(name), f'<span class="mono">{escape(digest)}</span>'] for name, digest in report.digests.items()
        ]
        inner = table(["Set or artifact", "Digest"], rows, text=(1,))
        made += f"<details><summary>All {len(rows)} digests</summary>{inner}</details>"
    return made


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
