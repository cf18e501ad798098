"""Names, numbers and tables of the report page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from gristmill.pipelines.report.measures import CHANGE, Measure
from gristmill.pipelines.report.report import Report

COLOURS = 8  # of the page's variables --s0 to --s7


def shown(report: Report, name: str) -> str:
    """Return the display name of a system, a test set or a curve."""
    return report.labels.get(name) or name.replace("_", " ")


def label_of(report: Report, measure: Measure) -> str:
    """Return a measure's label, with the baseline's name filled in."""
    return measure.label.replace("{baseline}", shown(report, report.baseline))


def listed(names: Sequence[str]) -> str:
    """Return names in words.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else ""]))


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
    return (names.index(system) if system in names else 0) % COLOURS


def dot(colour: int) -> str:
    """Return the coloured dot that precedes a name."""
    return f'<i class="key" style="background:var(--s{colour})"></i>'
