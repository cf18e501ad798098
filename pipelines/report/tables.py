"""Names, numbers and tables of the report page, and the sentence that summarises a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from gristmill.pipelines.report.measures import CHANGE, Measure
from gristmill.pipelines.report.report import Report


def shown(report: Report, name: str) -> str:
    """Return the display name of a system, a test set or a curve."""
    return report.labels.get(name) or name.replace("_", " ")


def label_of(report: Report, measure: Measure) -> str:
    """Return a measure's label, with the baseline's name filled in."""
    return measure.label.replace("{baseline}", shown(report, report.baseline))


def change(value: float | None) -> str:
    """Return a relative change as a signed percentage."""
    return _CHANGE.show(value)


_CHANGE = Measure("change", "Change", CHANGE, 1)


def count(value: Any) -> str:
    """Return a number for a table, escaped."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else escape(str(value))
    if isinstance(value, int) or (abs(value) >= 1000 and math.isfinite(value)):
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", text: Sequence[int] = ()) -> str:
    """Lay out cells of markup; the first of a row is its header, and a row of one cell heads a group."""

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
    hint = f'<p class="hint">{caption}</p>' if caption else ""
    region = f'role="region" aria-label="{caption or head[0] or head[1]}"'
    return (
        f'{hint}<div class="scroll" tabindex="0" {region}><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def systems(report: Report) -> list[str]:
    """Return the systems of the metrics, in order."""
    return list(dict.fromkeys(row.system for row in report.metrics))


def test_sets(report: Report) -> list[str]:
    """Return the test sets of the metrics, in order."""
    return list(dict.fromkeys(row.test_set for row in report.metrics))


def colour_of(report: Report, system: str) -> int:
    """Return the number of a system's colour variable."""
    names = systems(report) or list(dict.fromkeys(point.system for point in report.curves))
    return (names.index(system) if system in names else 0) % 8


def dot(colour: int) -> str:
    """Return the coloured dot that precedes a name."""
    return f'<i class="key" style="background:var(--s{colour})"></i>'


def summary(report: Report) -> str:
    """Return the report's own sentence, or one generated from the headline comparison."""
    measure = report.main
    if report.summary or report.headline is None or measure is None:
        return report.summary
    system, test_set = report.headline
    mine, base = (report.find(name, test_set, measure.name) for name in (system, report.baseline))
    if mine is None or base is None:
        return ""
    where, mine_name, base_name = (shown(report, name) for name in (test_set, system, report.baseline))
    sentence = (
        f"On {' '.join(filter(None, (where, report.tested)))}, the {label_of(report, measure)} of {mine_name} "
        f"is {measure.show(mine.value)} against {measure.show(base.value)} for {base_name}"
    )
    moved = report.find(system, test_set, measure.relative().name)
    if moved is None or moved.value is None or moved.low is None or moved.high is None:
        return sentence + "."
    if moved.low <= 0 <= moved.high:
        return f"{sentence}; the change is not significant (95% interval {change(moved.low)} to {change(moved.high)})."
    word = "less" if moved.value < 0 else "more"
    if measure.counts:
        word = f"{'fewer' if moved.value < 0 else 'more'} {measure.counts}"
    least, most = sorted((abs(moved.low), abs(moved.high)))
    size, least_, most_ = (change(value).lstrip("+") for value in (abs(moved.value), least, most))
    return f"{sentence}: {size} {word} (95% interval {least_} to {most_})."
