"""The verdict on a report's page: a card and a sentence for each test set, and the table of comparisons."""

from __future__ import annotations

from html import escape

from gristmill.pipelines.report.report import Report
from gristmill.pipelines.report.standing import Comparison, SetVerdict
from gristmill.pipelines.report.tables import change, colour_of, dot, label_of, listed, shown, table
from gristmill.pipelines.report.verdict import LEVEL, Verdict

_MOST_NAMED = 2  # systems of a card
_CARDS = {"won": "better", "lost": "worse"}
_OUTCOMES = {"ahead": "ahead", "behind": "behind", "open": "may be chance"}


def facts(report: Report, verdict: Verdict | None) -> str:
    """Show which system is best on every test set, as a row of cards, and a sentence on each."""
    if verdict is None or report.main is None:
        return ""
    cards, label = [], escape(label_of(report, report.main))
    for one in verdict.sets:
        row = report.find(one.best, one.test_set, report.main.name)
        cards.append(
            f"<div><dt>{escape(shown(report, one.test_set))}, best {label}</dt>"
            f'<dd class="{_CARDS.get(one.kind, "")}">{escape(report.main.show(row.value if row else None))}'
            f"<small>{escape(_best(report, one))}</small></dd></div>"
        )
    lines = "".join(f"<li>{escape(one.sentence)}</li>" for one in verdict.sets)
    return f'<dl class="facts">{"".join(cards)}</dl><ul class="verdict">{lines}</ul>'


def _best(report: Report, one: SetVerdict) -> str:
    """Return the system with the best figure, or those that share it."""
    if len(one.equal) > _MOST_NAMED:
        return f"{len(one.equal)} systems, equal"
    names = [shown(report, name) + (" (baseline)" if name in report.compared else "") for name in one.equal]
    return listed(names) + (", equal" if len(names) > 1 else "")


def use(report: Report) -> str:
    """Show where the model of the best usable system is, the commands that use it, and what there is to work on."""
    left = "".join(
        f'<p class="use">{escape(one.what[:1].upper() + one.what[1:])}: <code>{escape(one.file)}</code>, beside this '
        "page.</p>"
        for one in report.to_do
    )
    return _next(report) + left


def _next(report: Report) -> str:
    if report.use is None:
        return ""
    given = report.use
    model = f": <code>{escape(given.model)}</code>, beside this page" if given.model else ""
    why = f", {escape(given.why)}" if given.why else ""
    return (
        f'<p class="use">To use: {escape(shown(report, given.system))}{why}{model}. Next: <code>{escape(given.command)}'
        "</code>, where OUT is the folder of this page.</p>"
    )


def comparisons_section(report: Report, verdict: Verdict | None) -> str:
    """Show each proposal against each baseline: changes with intervals, and p-values corrected for their number."""
    if verdict is None or report.main is None or not verdict.comparisons:
        return ""
    made = verdict.comparisons
    with_mapsswe = any(one.mapsswe_p is not None for one in made)
    rows: list[list[str]] = []
    for test_set in dict.fromkeys(one.test_set for one in made):
        rows.append([escape(shown(report, test_set))])
        rows += [_row(report, one, with_mapsswe) for one in made if one.test_set == test_set]
    head = ["System", "Against", f"{label_of(report, report.main)}, relative (95% interval)", "p", "p, Holm"]
    head += ["MAPSSWE p, Holm"] if with_mapsswe else []
    family = sum(one.p is not None for one in made)
    caption = (
        f"Each proposed system against each baseline on the same records. A difference is beyond chance if its p by "
        f"paired bootstrap is below {LEVEL:g} after Holm's correction for all {family} comparisons; the intervals "
        "are of single comparisons."
    )
    if with_mapsswe:
        caption += (
            " MAPSSWE is the matched-pairs test, the largest p of the seeds, corrected in the same way: it takes no "
            "account of speakers."
        )
    return table([*map(escape, head), ""], rows, escape(caption), text=(1,))


def _row(report: Report, one: Comparison, with_mapsswe: bool) -> list[str]:
    names = [dot(colour_of(report, name)) + escape(shown(report, name)) for name in (one.system, one.baseline)]
    css = {"ahead": "better", "behind": "worse"}.get(one.outcome, "")
    moved = change(one.change)
    if one.low is not None and one.high is not None:
        moved += f' <span class="range">({change(one.low)} to {change(one.high)})</span>'
    chances = [one.p, one.p_holm] + ([one.mapsswe_p_holm] if with_mapsswe else [])
    told = "equal" if one.outcome == "open" and one.change == 0 else _OUTCOMES[one.outcome]
    outcome = f'<span class="{css}">{told}</span>'
    return [*names, moved, *map(_chance, chances), outcome]


def _chance(p: float | None) -> str:
    return "–" if p is None else "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
