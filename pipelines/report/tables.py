"""Tables, names and numbers of the report page, and its sections that are mostly tables."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from gristmill.pipelines.report import figures
from gristmill.pipelines.report.report import Report

NAMES = {
    "teacher": "Clean teacher",
    "multicondition": "Multi-condition",
    "hard_labels": "Hard labels",
    "student": "Student",
    "student_seq": "Student + sequence",
    "test": "Test",
    "clean": "Clean",
    "noisy": "Noisy",
    "rerecorded": "Re-recorded",
    "wer": "WER",
    "per": "PER",
    "ctc": "CTC loss",
    "soft": "soft-target loss",
    "mwer": "expected word errors",
    "semer": "SemER",
    "R0": "R0 (unweighted)",
    "R1": "R1 (expected SemER)",
    "R2": "R2 (cross-entropy)",
    "R3": "R3 (both)",
    "R1_no_context": "R1 without context",
    "R2_no_context": "R2 without context",
    "R3_no_context": "R3 without context",
    "perplexity": "Perplexity",
    "oov": "OOV",
    "chrf": "chrF",
    "bleu": "BLEU",
    "in_domain": "In-domain only",
    "raw": "Raw translations",
    "selected": "Selected pairs",
    "fine_tuned": "Fine-tuned",
    "rescored": "Rescored",
    "filtered": "Filtered",
    "combined": "Combined",
    "centroid_share": "Share nearest to the centroid",
    "moore_lewis_share": "Share by Moore-Lewis",
    "random_share": "Share at random",
    "lambdarank": "LambdaRank",
    "lambdarank_temperature": "LambdaRank + temperatures",
    "lambdarank_platt": "LambdaRank + Platt",
}
_NUMBERED = re.compile(r"(_(1-)?\d+)+$")  # the size, seed or round at the end of a name
MOST_NODES = 80  # of a lineage that is drawn one by one
_KEPT, _REJECTED, _QUARANTINED = "--s3", ("--s5", "--s2", "--s4", "--s6", "--s0"), "--bad"


def shown(report: Report, name: str) -> str:
    """Return the name to show for a system, test set or metric."""
    return report.labels.get(name) or NAMES.get(name) or name.replace("_", " ")


def inline(report: Report, name: str) -> str:
    """Return the name to show inside a sentence: a capital that only opens a word becomes small."""
    told = shown(report, name)
    return told[:1].lower() + told[1:] if told[1:2].islower() else told


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as percent."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def measured(report: Report, value: float | None) -> str:
    """Return a value of the report's metric: a rate as percent, anything else as a number."""
    if value is None or report.percent:
        return percent(value)
    return f"{value:.4g}"


def verdict(report: Report, low: float | None, high: float | None) -> str:
    """Return the class of a change whose interval leaves out zero: ``better``, ``worse`` or none."""
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (high < 0) == report.lower_is_better else "worse"


def signed(value: float | None) -> str:
    """Return a relative change as percent with its sign."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}%".replace("-", "−") if abs(value) >= 0.0005 else "0.0%"


def p_value(value: float) -> str:
    """Return a p as markup."""
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: Any) -> str:
    """Return a number for a table, escaped."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else escape(str(value))
    if isinstance(value, int) or (abs(value) >= 1000 and math.isfinite(value)):
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text: Sequence[int] = ()) -> str:
    """Lay out cells of ready markup; the first is the row's header. A row of one cell heads a group."""

    def css(i: int) -> str:
        return ' class="text"' if i in text else ""

    body = []
    for row in rows:
        if len(row) == 1:
            body.append(f'<tr><th class="group" scope="rowgroup" colspan="{len(head)}">{row[0]}</th></tr>')
            continue
        cells = "".join(f"<td{css(i)}>{cell}</td>" for i, cell in enumerate(row[1:], 1))
        body.append(f'<tr><th scope="row">{row[0]}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col"{css(i)}>{name}</th>' for i, name in enumerate(head))
    told = f'<p class="hint">{caption}</p>' if caption else ""
    region = f'role="region" aria-label="{caption or head[0] or head[1]}"'
    return (
        f'{told}<div class="scroll" tabindex="0" {region}><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def systems(report: Report) -> list[str]:
    """Return the systems of the metrics, in their order."""
    return list(dict.fromkeys(row["system"] for row in report.metrics))


def test_sets(report: Report) -> list[str]:
    """Return the test sets of the metrics, in their order."""
    return list(dict.fromkeys(row["test_set"] for row in report.metrics))


def colour_of(report: Report, system: str) -> int:
    """Return the number of a system's colour variable."""
    names = systems(report) or list(dict.fromkeys(point["system"] for point in report.curves))
    return (names.index(system) if system in names else 0) % 8


def dot(colour: int) -> str:
    """Return the dot of a colour that stands before a name."""
    return f'<i class="key" style="background:var(--s{colour})"></i>'


def reliability_section(report: Report) -> str:
    """Show how far each system's scores can be trusted: of all domains together, and of each."""
    pooled = [entry for entry in report.reliability if entry["domain"] is None]
    if not pooled:
        return ""

    def panel(entry: dict[str, Any]) -> str:
        system, domain = shown(report, entry["system"]), entry["domain"]
        title = system if domain is None else f"{system}: {domain}"
        drawn = figures.reliability(entry["bins"], colour_of(report, entry["system"]), f"Reliability, {title}")
        total = sum(b["n"] for b in entry["bins"])
        return f"<figure><h3>{escape(title)}</h3>{drawn}<figcaption>{total:,} hypotheses</figcaption></figure>"

    wanted = {report.baseline, *([report.headline[0]] if report.headline else [])}
    single = [entry for entry in report.reliability if entry["domain"] is not None and entry["system"] in wanted]
    hint = (
        "Share of hypotheses that are right over their mean score, in bins of equal width with Wilson's 95% interval; "
        "a dot's area is its count. On the dashed line a score is the probability that it says it is."
    )
    by_domain = "".join(panel(entry) for entry in sorted(single, key=lambda entry: entry["domain"]))
    more = f'<details><summary>Each domain by itself</summary><div class="grid">{by_domain}</div></details>'
    return f'<p class="hint">{hint}</p><div class="grid">{"".join(map(panel, pooled))}</div>{more if single else ""}'


def filters_section(report: Report) -> str:
    """Show what each filter kept and dropped, with examples."""
    if not report.filters:
        return ""
    rows = [[escape(str(one["name"])), count(one["kept"]), count(one["dropped"])] for one in report.filters]
    made = table(["Filter", "Kept", "Dropped"], rows, text=(0,))
    for one in report.filters:
        told = [
            [escape(side), " · ".join(escape(str(value)) for key, value in row.items() if key != "id")]
            for side in ("kept", "dropped")
            for row in one["examples"][side]
        ]
        inner = table(["", "Examples"], told, text=(0, 1))
        made += f"<details><summary>Examples: {escape(str(one['name']))}</summary>{inner}</details>"
    return made


def records_section(report: Report) -> str:
    """Show kept, rejected and quarantined records of each step."""
    if not report.records:
        return ""
    bars, rows = [], []
    for step in report.records:
        entered, left = int(step.get("records_in") or 0), int(step.get("records_out") or 0)
        reasons = dict(sorted((step.get("reasons") or {}).items(), key=lambda pair: -pair[1]))
        rejected, quarantined = int(step.get("rejected") or 0), int(step.get("quarantined") or 0)
        other = rejected - sum(reasons.values())
        if other > 0:
            reasons["other reasons" if reasons else "rejected"] = other
        parts = [("kept", left, _KEPT)]
        parts += [(reason, n, _REJECTED[min(i, 4)]) for i, (reason, n) in enumerate(reasons.items())]
        parts.append(("quarantined", quarantined, _QUARANTINED))
        total = sum(n for _, n, _ in parts) or 1
        drawn = "".join(
            f'<b title="{escape(name)}: {n:,}" style="width:{100 * n / total:.2f}%;background:var({colour})"></b>'
            for name, n, colour in parts
            if n
        )
        told = " · ".join(f"{n:,} {escape(name)}" for name, n, _ in parts if n)
        bars.append(
            f'<div><div class="name"><span>{escape(str(step["name"]))}</span><span>{told}</span></div>'
            f'<div class="bar">{drawn}</div></div>'
        )
        why = "<br>".join(f"{escape(reason)}: {n:,}" for reason, n in reasons.items() if n)
        figures_ = [f"{n:,}" for n in (entered, left, rejected, quarantined)]
        rows.append([escape(str(step["name"])), *figures_, count(step.get("shards")), why or "–"])
    told = "Each record that went in came out, was rejected for a reason, or is in quarantine."
    head = ["Step", "In", "Out", "Rejected", "Quarantined", "Shards", "Reasons"]
    return f'<div class="card flow">{"".join(bars)}</div>{table(head, rows, told, text=(6,))}'


def _planned(name: str, before: Any, after: Any) -> list[str]:
    ratio = "–"
    if isinstance(before, (int, float)) and isinstance(after, (int, float)) and before:
        ratio = f"{after / before:.2f}"
    return [escape(str(name).replace("_", " ")), count(before), count(after), ratio]


def plan_section(report: Report) -> str:
    """Set the estimate against what was measured."""
    estimate, actual = report.plan.get("estimate", {}), report.plan.get("actual", {})
    rows: list[list[str]] = []
    for name in dict.fromkeys([*estimate, *actual]):
        before, after = estimate.get(name), actual.get(name)
        if isinstance(before, dict) or isinstance(after, dict):
            rows.append([escape(str(name))])
            inner, outer = before or {}, after or {}
            rows += [_planned(key, inner.get(key), outer.get(key)) for key in dict.fromkeys([*inner, *outer])]
        else:
            rows.append(_planned(name, before, after))
    return table(["", "Estimate", "Actual", "Actual / estimate"], rows) if rows else ""


def _drawn(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes to draw: where there are very many, those that share a name but for numbers are one."""
    if len(nodes) <= MOST_NODES:
        return list(nodes)
    base = {node["name"]: _NUMBERED.sub("", node["name"].partition(" ")[0]) for node in nodes}
    sizes = Counter(base.values())
    told = {name: f"{name} ({size})" if size > 1 else name for name, size in sizes.items()}
    made: dict[str, dict[str, Any]] = {}
    for node in nodes:
        own = told[base[node["name"]]]
        one = made.setdefault(
            own, {**node, "name": own, "inputs": [], "digest": None if own not in base else node["digest"]}
        )
        inputs = [told[base[name]] for name in node["inputs"]]
        one["inputs"] += [name for name in inputs if name != own and name not in one["inputs"]]
    return list(made.values())


def lineage_section(report: Report) -> str:
    """Show what was made from what, and the digests."""
    made = ""
    if report.lineage:
        drawn = figures.lineage(_drawn(report.lineage), "What was made from what")
        kinds = '<li><i style="background:var(--accent)"></i>sealed set</li>'
        if any(node.get("kind") == "artifact" for node in report.lineage):
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
    """Show the settings and the versions of the software."""
    made = ""
    if report.recipe:
        told = json.dumps(report.recipe, indent=2, ensure_ascii=False, default=str)
        made += f"<details><summary>The recipe's settings</summary><pre>{escape(told)}</pre></details>"
    if report.versions:
        rows = [[escape(name), escape(str(version))] for name, version in report.versions.items()]
        made += f'<div class="slim">{table(["Software", "Version"], rows)}</div>'
    return made
