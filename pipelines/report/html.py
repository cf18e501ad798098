"""``report.html``: one self-contained page from a report; no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import numpy as np

from gristmill.pipelines.report import figures
from gristmill.pipelines.report.report import ROW_KEYS, Report, Row, find
from gristmill.pipelines.report.style import CSS
from gristmill.pipelines.report.tables import (
    NAMES,
    colour_of,
    count,
    dot,
    filters_section,
    inline,
    lineage_section,
    measured,
    p_value,
    percent,
    plan_section,
    recipe_section,
    records_section,
    reliability_section,
    shown,
    signed,
    systems,
    table,
    test_sets,
    verdict,
)


def to_html(report: Report) -> str:
    """Return the page. Sections without content are left out."""
    made = [
        ("results", "Results", _results(report)),
        ("reliability", "Calibration", reliability_section(report)),
        ("sweep", "Sweep", _sweep(report)),
        ("training", "Training", _curves(report)),
        ("sound", "Clean and noisy", _spectrograms(report)),
        ("filters", "What filters kept and dropped", filters_section(report)),
        ("examples", "Examples", _examples(report)),
        ("records", "Where the records went", records_section(report)),
        ("plan", "Plan and actual", plan_section(report)),
        ("lineage", "Lineage", lineage_section(report)),
        ("recipe", "Recipe and versions", recipe_section(report)),
    ]
    made = [(key, name, body) for key, name, body in made if body]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in made)
    sections = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(name)}</h2>{body}</section>'
        for key, name, body in made
    )
    name = report.recipe.get("name")
    kicker = f"Gristmill report · {name}" if name else "Gristmill report"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{CSS}</style></head><body>"
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(report.title)}</h1>'
        f'<p class="lead">{escape(summary(report))}</p>{_facts(report)}'
        f'<nav aria-label="Sections">{links}</nav></header><main>{sections}</main>'
        f"<footer><div>{''.join(f'<p>{escape(note)}</p>' for note in report.notes)}"
        "<p>All numbers of this page are in <code>report.json</code>, beside it.</p></div></footer></body></html>\n"
    )


def summary(report: Report) -> str:
    """Return the report's own sentence, or one made of the headline comparison."""
    if report.summary or report.headline is None:
        return report.summary
    system, test_set = report.headline
    mine, base = find(report, system, test_set), find(report, report.baseline, test_set)
    change = find(report, system, test_set, f"{report.metric}_relative")
    if mine is None or base is None:
        return ""
    told = (
        f"On {inline(report, test_set)} {report.tested}, {inline(report, system)} has a "
        f"{shown(report, report.metric)} of {measured(report, mine['value'])} against "
        f"{measured(report, base['value'])} for {inline(report, report.baseline)}"
    )
    if change is None:
        return told + "."
    if change["low"] <= 0 <= change["high"]:
        between = f"{signed(change['low'])} to {signed(change['high'])}"
        return f"{told}; the difference is not certain (95% interval {between})."
    word = "less" if change["value"] < 0 else "more"
    if report.percent and report.lower_is_better:
        word = "fewer errors" if change["value"] < 0 else "more errors"
    least, most = sorted((abs(change["low"]), abs(change["high"])))
    between = f"{percent(least)} to {percent(most)}"
    return f"{told}: {percent(abs(change['value']))} {word} (95% interval {between})."


def _facts(report: Report) -> str:
    """The headline system's change on every test set, as a row of large numbers."""
    if report.headline is None:
        return ""
    system = report.headline[0]
    cards = []
    for test_set in test_sets(report):
        row = find(report, system, test_set, f"{report.metric}_relative")
        if row is None:
            continue
        css = verdict(report, row["low"], row["high"])
        cards.append(
            f"<div><dt>{escape(shown(report, test_set))} {escape(shown(report, report.metric))}, "
            f"against {escape(inline(report, report.baseline))}</dt>"
            f'<dd class="{css}">{signed(row["value"])}'
            f"<small>{signed(row['low'])} to {signed(row['high'])}</small></dd></div>"
        )
    return f'<dl class="facts">{"".join(cards)}</dl>' if cards else ""


def _results(report: Report) -> str:
    if not report.metrics:
        return ""
    panels = []
    for test_set in test_sets(report):
        lines = []
        for system in systems(report):
            row = find(report, system, test_set)
            if row is None:
                continue
            wanted = (system, test_set, report.metric)
            each = [
                r["value"]
                for r in report.metrics
                if (r["system"], r["test_set"], r["metric"]) == wanted and r["seed"] is not None
            ]
            colour = colour_of(report, system)
            each = each if len(each) > 1 else []
            label = shown(report, system)
            lines.append(figures.Point(label, colour, row["value"], row["low"], row["high"], each))
        names = [s for s in systems(report) if find(report, s, test_set)]
        base = names.index(report.baseline) if report.baseline in names else 0
        title = shown(report, test_set)
        size = report.test_sets.get(test_set, {})
        told = " · ".join(f"{count(v)} {escape(k)}" for k, v in size.items() if not isinstance(v, str))
        label = f"{shown(report, report.metric)} on {title}"
        drawn = figures.points(lines, partial(measured, report), _tick(report), label, base)
        panels.append(f"<figure><h3>{escape(title)}</h3>{drawn}<figcaption>{told}</figcaption></figure>")
    ways = {size["resampled"] for size in report.test_sets.values() if size.get("resampled")}
    how = f" by bootstrap, resampling {escape(' or '.join(sorted(ways)))}" if ways else ""
    hint = (
        f"{escape(shown(report, report.metric))} with its 95% interval{how}; small dots are seeds. "
        f"The dashed rule is the {escape(inline(report, report.baseline))}. "
        f"Each panel has its own scale; {'less' if report.lower_is_better else 'more'} is better."
    )
    return (
        f'<p class="hint">{hint}</p><div class="grid">{"".join(panels)}</div>'
        f"{_result_table(report)}{_all_metrics(report)}"
    )


def _tick(report: Report) -> Callable[[float], str]:
    return _short_percent if report.percent else "{:g}".format


def _short_percent(value: float) -> str:
    return f"{100 * value:.1f}".removesuffix(".0") + "%"


def _result_table(report: Report) -> str:
    """One row a system and test set; columns that no system has a number for are left out."""
    base = escape(inline(report, report.baseline))
    relative = f"{report.metric}_relative"
    columns: list[tuple[str, str, Callable[[Row], str]]] = [
        (report.metric, f"{escape(shown(report, report.metric))} (95% interval)",
         lambda row: _ranged(row, partial(measured, report))),
        ("oov", "OOV", lambda row: percent(row["value"])),
        ("wer", "WER", lambda row: percent(row["value"])),
        ("chrf", "chrF", lambda row: f"{row['value']:.1f}"),
        ("bleu", "BLEU", lambda row: f"{row['value']:.1f}"),
        ("substitutions", "Sub.", lambda row: percent(row["value"])),
        ("deletions", "Del.", lambda row: percent(row["value"])),
        ("insertions", "Ins.", lambda row: percent(row["value"])),
        ("icer", "ICER", lambda row: percent(row["value"])),
        ("irer", "IRER", lambda row: percent(row["value"])),
        ("slot_f1", "Slot F1", lambda row: percent(row["value"])),
        ("ece", "ECE (95% interval)", lambda row: _ranged(row, "{:.4f}".format)),
        ("ece_top1", "ECE, chosen ones", lambda row: f"{row['value']:.3f}"),
        ("nll", "NLL", lambda row: f"{row['value']:.4f}"),
        (relative, f"Relative to {base}",
         lambda row: _ranged(row, signed, verdict(report, row["low"], row["high"]))),
        ("mapsswe_p", "MAPSSWE p", lambda row: p_value(row["value"])),
    ]  # fmt: skip
    told = {row["metric"] for row in report.metrics if row["seed"] is None}
    if report.metric != "wer":
        told -= {"substitutions", "deletions", "insertions", "mapsswe_p"}  # parts of the word error rate
    own, *more = columns
    columns = [own, *(column for column in more if column[0] in told - {report.metric})]
    rows: list[list[str]] = []
    for test_set in test_sets(report):
        rows.append([escape(shown(report, test_set))])
        for system in systems(report):
            if find(report, system, test_set) is None:
                continue
            found = [(find(report, system, test_set, metric), show) for metric, _, show in columns]
            cells = [show(row) if row else "–" for row, show in found]
            rows.append([dot(colour_of(report, system)) + escape(shown(report, system)), *cells])
    hint = "Mean over seeds."
    if "mapsswe_p" in told:
        hint += f" MAPSSWE is against {base}; its p is the largest of the seeds'."
    return table(["System", *(head for _, head, _ in columns)], rows, hint)


def _ranged(row: Row, show: Callable[[float], str], css: str = "") -> str:
    value = f'<span class="{css}">{show(row["value"])}</span>' if css else show(row["value"])
    if row["low"] is None or row["high"] is None:
        return value
    return f'{value} <span class="range">({show(row["low"])} to {show(row["high"])})</span>'


def _all_metrics(report: Report) -> str:
    def show(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.6g}"
        return "all" if value is None else escape(str(value))

    rows = [
        [show(row[key]) if key == "seed" or row[key] is not None else "" for key in ROW_KEYS] for row in report.metrics
    ]
    inner = table([key.replace("_", " ") for key in ROW_KEYS], rows, text=(1, 2))
    return f"<details><summary>All {len(rows)} rows of the metrics table</summary>{inner}</details>"


def _sweep(report: Report) -> str:
    cells = {(c["temperature"], c["k"]): c["value"] for c in report.sweep if c.get("value") is not None}
    if not cells:
        return ""
    rows, columns = sorted({t for t, _ in cells}), sorted({k for _, k in cells})
    chosen = (report.sweep_chosen[1], report.sweep_chosen[0]) if report.sweep_chosen else None
    best = (min if report.lower_is_better else max)(cells, key=lambda cell: cells[cell])
    label = f"{shown(report, report.metric)} by k and temperature"
    drawn = figures.heat_map(
        cells, rows, columns, _tick(report), ("T", "k, log-probabilities kept a frame"), label, best, chosen
    )
    told = f"Best: k = {best[1]:g}, T = {best[0]:g} with {measured(report, cells[best])} (full ring)."
    if chosen == best:
        told += " It is the recipe's own setting."
    elif chosen in cells:
        gap = cells[chosen] / cells[best] - 1 if cells[best] else 0.0
        told += (
            f" The recipe's k = {chosen[1]:g}, T = {chosen[0]:g} with {measured(report, cells[chosen])} (dotted), "
            f"{signed(gap)} from the best."
        )
    return f"<figure><h3>{escape(report.sweep_title)}</h3>{drawn}<figcaption>{told}</figcaption></figure>"


def _curves(report: Report) -> str:
    measures = dict.fromkeys(
        key
        for point in report.curves
        for key, value in point.items()
        if key not in {"system", "seed", "step", "phase"} and isinstance(value, (int, float))
    )
    names = list(dict.fromkeys(point["system"] for point in report.curves))
    panels = []
    for measure in measures:
        # Losses of different objectives share no scale; other measures do.
        groups = [[name] for name in names] if "loss" in measure else [names]
        for group in groups:
            runs: dict[tuple[str, Any], list[dict[str, Any]]] = {}
            for point in report.curves:
                if point["system"] in group and point.get(measure) is not None:
                    runs.setdefault((point["system"], point.get("seed")), []).append(point)
            series = [
                (colour_of(report, name), [p["step"] for p in some], [p[measure] for p in some])
                for (name, _), some in runs.items()
            ]
            title = " ".join(NAMES.get(word, word) for word in measure.split("_"))
            title = f"{shown(report, group[0])}: {title}" if len(group) == 1 else title
            drawn = figures.curves(series, f"{title} over training steps")
            if drawn:
                panels.append(f"<figure><h3>{escape(title[:1].upper() + title[1:])}</h3>{drawn}</figure>")
    if not panels:
        return ""
    keys = "".join(f"<li>{dot(colour_of(report, n))}{escape(shown(report, n))}</li>" for n in names)
    return (
        '<p class="hint">One line a training seed, over steps. Losses of different objectives share no scale.</p>'
        f'<ul class="legend">{keys}</ul><div class="grid">{"".join(panels)}</div>'
    )


def _spectrograms(report: Report) -> str:
    if not report.spectrograms:
        return ""
    flat = np.concatenate([np.asarray(s.values, float).ravel() for s in report.spectrograms])
    low, high = np.percentile(flat[np.isfinite(flat)], [2, 99.8])
    shown = []
    for s in report.spectrograms:
        length = len(s.values) * s.hop
        marks = "".join(f"<span>{length * part / 4:.1f} s</span>" for part in range(5))
        alt = f"Spectrogram, {s.title}, {length:.1f} seconds"
        caption = f"<figcaption>{escape(s.caption)}</figcaption>" if s.caption else ""
        uri = figures.spectrogram(s.values, float(low), float(high))
        shown.append(
            f'<figure><h3>{escape(s.title)}</h3><img alt="{escape(alt)}" src="{uri}">'
            f'<div class="axis" aria-hidden="true">{marks}</div>{caption}</figure>'
        )
    return (
        '<p class="hint">The same seconds, frame for frame, on one colour scale; low frequencies at the bottom.</p>'
        f'<div class="pair">{"".join(shown)}</div>'
    )


def _examples(report: Report) -> str:
    rows: list[list[str]] = []
    for example in report.examples:
        where = shown(report, str(example.get("test_set", "")))
        rows.append([f"{escape(str(example['id']))} · {escape(where)}"])
        rows.append(["Reference", escape(example["reference"])])
        for system, text in example["hypotheses"].items():
            rows.append(
                [dot(colour_of(report, system)) + escape(shown(report, system)), _marked(example["reference"], text)]
            )
    return table(["System", "Text; words that are not the reference's are underlined"], rows, text=(1,)) if rows else ""


def _marked(reference: str, text: str) -> str:
    from gristmill.models.measures.wer import CORRECT, DELETED, align

    words = text.split()
    letters = align(reference.split(), words)
    told, i = [], 0
    for letter in letters:
        if letter == DELETED:
            told.append("<mark>·</mark>")
            continue
        word = escape(words[i])
        told.append(word if letter == CORRECT else f"<mark>{word}</mark>")
        i += 1
    return " ".join(told)
