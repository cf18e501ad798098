"""Sections of the page on models and their outputs: calibration, curves, spectrograms, filters, examples."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from gristmill.actors.audio import encode_opus
from gristmill.models.measures.wer import CORRECT, DELETED, align
from gristmill.pipelines.report import figures
from gristmill.pipelines.report.report import Clip, CurvePoint, Diagram, Report
from gristmill.pipelines.report.tables import colour_of, count, dot, shown, table


def reliability_section(report: Report) -> str:
    """Show the calibration of each system's scores, over all parts and by part."""
    given = report.reliability
    pooled = [one for one in given.diagrams if one.part is None]
    if not pooled:
        return ""

    def panel(one: Diagram) -> str:
        system = shown(report, one.system)
        title = system if one.part is None else f"{system}: {one.part}"
        colour = colour_of(report, one.system)
        drawn = figures.reliability(one.bins, colour, f"Reliability, {title}", given.scored)
        total = sum(b.n for b in one.bins)
        size = f"{total:,} {escape(given.scored)}"
        return f"<figure><h3>{escape(title)}</h3>{drawn}<figcaption>{size}</figcaption></figure>"

    wanted = {report.baseline, *([report.headline[0]] if report.headline else [])}
    single = [one for one in given.diagrams if one.part is not None and one.system in wanted]
    hint = (
        f"Share of correct {given.scored} over their mean score, in bins of equal width with Wilson's 95% "
        "interval; a dot's area is its count. On the dashed line scores equal the probability of being correct."
    )
    by_part = "".join(panel(one) for one in sorted(single, key=lambda one: one.part or ""))
    more = f'<details><summary>Each {escape(given.part)} by itself</summary><div class="grid">{by_part}</div></details>'
    pooled_panels = "".join(map(panel, pooled))
    return f'<p class="hint">{escape(hint)}</p><div class="grid">{pooled_panels}</div>{more if single else ""}'


def filters_section(report: Report) -> str:
    """Show the records that each filter kept and dropped: counts and examples."""
    if not report.filters:
        return ""
    rows = [[escape(one.name), count(one.kept), count(one.dropped)] for one in report.filters]
    made = table(["Filter", "Kept", "Dropped"], rows, text=(0,))
    for one in report.filters:
        example_rows = [
            [side, " · ".join(escape(str(value)) for key, value in row.items() if key != "id")]
            for side, examples in (("kept", one.examples_kept), ("dropped", one.examples_dropped))
            for row in examples
        ]
        inner = table(["", "Examples"], example_rows, text=(0, 1))
        made += f"<details><summary>Examples: {escape(one.name)}</summary>{inner}</details>"
    return made


def curves_section(report: Report) -> str:
    """Show the training curves, one panel per value, for losses one per value and system."""
    names = list(dict.fromkeys(point.system for point in report.curves))
    panels = []
    for value in dict.fromkeys(name for point in report.curves for name in point.values):
        # Losses of different objectives have no common scale; other values do.
        groups = [[name] for name in names] if "loss" in value else [names]
        panels += [_curve_panel(report, value, group) for group in groups]
    if not any(panels):
        return ""
    keys = "".join(f"<li>{dot(colour_of(report, n))}{escape(shown(report, n))}</li>" for n in names)
    return (
        '<p class="hint">One line per training seed, over steps; a dashed rule is where a later phase begins. '
        "Losses of different objectives share no scale.</p>"
        f'<ul class="legend">{keys}</ul><div class="grid">{"".join(panels)}</div>'
    )


def _curve_panel(report: Report, value: str, group: Sequence[str]) -> str:
    runs: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for point in report.curves:
        found = point.values.get(value)
        if point.system in group and found is not None:
            runs.setdefault((point.system, point.seed), []).append((point.step, found))
    series = [
        (colour_of(report, name), [step for step, _ in some], [value for _, value in some])
        for (name, _), some in runs.items()
    ]
    title = report.labels.get(value) or " ".join(shown(report, word) for word in value.split("_"))
    title = f"{shown(report, group[0])}: {title}" if len(group) == 1 else title
    drawn = figures.curves(series, f"{title} over training steps", marks=_phases(report, value, group))
    caption = f"<figcaption>{escape(report.explained[value])}</figcaption>" if value in report.explained else ""
    return f"<figure><h3>{escape(title[:1].upper() + title[1:])}</h3>{drawn}{caption}</figure>" if drawn else ""


def _phases(report: Report, value: str, group: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return where later phases of trainings begin: (colour, step, the phase), each once."""
    made: dict[tuple[int, int, str], None] = {}
    last: dict[tuple[str, int], CurvePoint] = {}
    for point in report.curves:
        if point.system not in group or value not in point.values:
            continue
        before = last.get((point.system, point.seed))
        if before is not None and before.phase != point.phase:
            made[colour_of(report, point.system), before.step, point.phase] = None
        last[point.system, point.seed] = point
    return list(made)


def spectrograms_section(report: Report) -> str:
    """Show the spectrograms as images with one colour scale."""
    if not report.spectrograms:
        return ""
    flat = np.concatenate([np.asarray(s.values, float).ravel() for s in report.spectrograms])
    low, high = np.percentile(flat[np.isfinite(flat)], [2, 99.8])
    panels = []
    for s in report.spectrograms:
        length = len(s.values) * s.hop
        marks = "".join(f"<span>{length * part / 4:.1f} s</span>" for part in range(5))
        alt = f"Spectrogram, {s.title}, {length:.1f} seconds"
        caption = f"<figcaption>{escape(s.caption)}</figcaption>" if s.caption else ""
        uri = figures.spectrogram(s.values, float(low), float(high))
        panels.append(
            f'<figure><h3>{escape(s.title)}</h3><img alt="{escape(alt)}" src="{uri}">'
            f'<div class="axis" aria-hidden="true">{marks}</div>{caption}</figure>'
        )
    return (
        '<p class="hint">The same seconds, frame by frame, on one colour scale; low frequencies at the bottom.</p>'
        f'<div class="pair">{"".join(panels)}</div>'
    )


def pictures_section(report: Report) -> str:
    """Show drawings."""
    made = ""
    for one in report.pictures:
        caption = f"<figcaption>{escape(one.caption)}</figcaption>" if one.caption else ""
        made += f'<figure><h3>{escape(one.title)}</h3><div class="wide">{one.svg}</div>{caption}</figure>'
    return made


def examples_section(report: Report) -> str:
    """Show a few records of the test sets: their audio, if there is any, and what each system made of them."""
    players = {(one.id, one.test_set): _player(one.audio) for one in report.examples if one.audio is not None}
    made = ""
    for name in dict.fromkeys(example.id for example in report.examples):
        some = [example for example in report.examples if example.id == name]
        rows: list[list[str]] = []
        for example in some:
            rows.append([escape(shown(report, example.test_set)) + players.get((name, example.test_set), "")])
            for system, text in example.hypotheses.items():
                label = dot(colour_of(report, system)) + escape(shown(report, system))
                rows.append([label, _marked(example.reference, text)])
        head = ["System", f"<b>{escape(some[0].reference)}</b> · {escape(name)}"]
        made += table(head, rows, text=(1,))
    if not made:
        return ""
    hint = (
        "The first records of the test sets, not chosen by their results. Differences from the reference, which heads "
    )
    hint += "each table, are underlined."
    if players:
        size = sum(map(len, players.values())) / 1000
        hint += f" {len(players)} clips, {size:,.0f} kB of this page, are lossy: they are for ears only."
    return f'<p class="hint">{hint}</p>{made}'


def _player(sound: Clip) -> str:
    data = base64.b64encode(encode_opus(sound.samples, sound.rate)).decode()
    return f'<audio controls preload="metadata" src="data:audio/ogg;base64,{data}"></audio>'


def _marked(reference: str, text: str) -> str:
    words = text.split()
    letters = align(reference.split(), words)
    marked, i = [], 0
    for letter in letters:
        if letter == DELETED:
            marked.append("<mark>·</mark>")
            continue
        word = escape(words[i])
        marked.append(word if letter == CORRECT else f"<mark>{word}</mark>")
        i += 1
    return " ".join(marked)
