"""The results on a report's page: figures and tables of its measures, and grids of settings."""

from __future__ import annotations

from html import escape

from gristmill.pipelines.report import figures
from gristmill.pipelines.report.measures import Measure
from gristmill.pipelines.report.report import Grid, MetricRow, Report
from gristmill.pipelines.report.tables import (
    change,
    colour_of,
    count,
    dot,
    label_of,
    shown,
    systems,
    table,
    test_sets,
)


def results_section(report: Report) -> str:
    """Show the main measure as a figure, the results table, and the long table."""
    if not report.metrics:
        return ""
    drawn = "" if report.main is None else _figures(report, report.main)
    return f"{drawn}{_result_table(report)}{_all_metrics(report)}"


def _figures(report: Report, measure: Measure) -> str:
    """Draw the main measure with its intervals, one panel per test set."""
    panels = []
    name = label_of(report, measure)
    for test_set in test_sets(report):
        lines, drawn_systems = [], []
        for system in systems(report):
            row = report.find(system, test_set, measure.name)
            if row is None or row.value is None:
                continue
            wanted = (system, test_set, measure.name)
            rows = [r for r in report.metrics if (r.system, r.test_set, r.metric) == wanted and r.seed is not None]
            each = [r.value for r in rows if r.value is not None]
            each = each if len(each) > 1 else []
            label, colour = shown(report, system), colour_of(report, system)
            lines.append(figures.Point(label, colour, row.value, row.low, row.high, each))
            drawn_systems.append(system)
        if not lines:
            continue
        base = drawn_systems.index(report.baseline) if report.baseline in drawn_systems else None
        title = shown(report, test_set)
        given = report.test_sets.get(test_set)
        size = " · ".join(f"{count(v)} {escape(k)}" for k, v in given.sizes.items()) if given else ""
        drawn = figures.points(lines, measure.show, measure.tick, f"{name} on {title}", base)
        panels.append(f"<figure><h3>{escape(title)}</h3>{drawn}<figcaption>{size}</figcaption></figure>")
    ways = {size.resampled for size in report.test_sets.values() if size.resampled}
    how = f" by bootstrap, resampling {' or '.join(sorted(ways))}" if ways else ""
    hint = f"{name} with its 95% interval{how}; small dots are seeds."
    if report.baseline in systems(report):
        hint += f" The dashed rule is the {shown(report, report.baseline)}."
    hint += " Each panel has its own scale"
    if measure.better:
        hint += f"; {'less' if measure.better == 'lower' else 'more'} is better"
    return f'<p class="hint">{escape(hint)}.</p><div class="grid">{"".join(panels)}</div>' if panels else ""


def _result_table(report: Report) -> str:
    """Lay out one row per system and test set; measures without any value are left out."""
    present = {row.metric for row in report.metrics if row.seed is None}
    columns = [measure for measure in report.measures if measure.column and measure.name in present]
    if not columns:
        return ""
    rows: list[list[str]] = []
    marked = False
    for test_set in test_sets(report):
        found = {
            system: [report.find(system, test_set, measure.name) for measure in columns] for system in systems(report)
        }
        found = {system: cells for system, cells in found.items() if any(cells)}
        if not found:
            continue
        rows.append([escape(shown(report, test_set))])
        best = [_best(measure, [cells[i] for cells in found.values()]) for i, measure in enumerate(columns)]
        marked |= any(value is not None for value in best)
        for system, cells in found.items():
            made = [_cell(m, row, top) for m, row, top in zip(columns, cells, best, strict=True)]
            rows.append([dot(colour_of(report, system)) + escape(shown(report, system)), *made])
    heads = [label_of(report, m) + (" (95% interval)" if m.interval and not m.unit.signed else "") for m in columns]
    notes = ["Mean over seeds."]
    notes += ["The best value of a column is in bold."] if marked else []
    base = shown(report, report.baseline)
    notes += [measure.note.replace("{baseline}", base) for measure in columns if measure.note]
    return table(["System", *map(escape, heads)], rows, escape(" ".join(notes)))


def _best(measure: Measure, rows: list[MetricRow | None]) -> float | None:
    """Return the best of a column's values; ``None`` for changes, equal values, or if neither direction is better."""
    values = {row.value for row in rows if row is not None and row.value is not None}
    if measure.better is None or measure.unit.signed or len({measure.show(value) for value in values}) < 2:
        return None
    return min(values) if measure.better == "lower" else max(values)


def _cell(measure: Measure, row: MetricRow | None, best: float | None) -> str:
    if row is None:
        return "–"
    value = escape(measure.show(row.value))
    if best is not None and row.value is not None and value == escape(measure.show(best)):
        value = f'<b class="best">{value}</b>'
    css = measure.verdict(row.low, row.high) if measure.unit.signed else ""
    if css:
        value = f'<span class="{css}">{value}</span>'
    if not measure.interval or row.low is None or row.high is None:
        return value
    return f'{value} <span class="range">({escape(measure.show(row.low))} to {escape(measure.show(row.high))})</span>'


def _all_metrics(report: Report) -> str:
    def show(value: float | int | str) -> str:
        return f"{value:.6g}" if isinstance(value, float) else escape(str(value))

    rows = []
    for row in report.metrics:
        values = row.to_json()
        seed = values.pop("seed")
        cells = ["" if value is None else show(value) for value in values.values()]
        rows.append([*cells, "all" if seed is None else show(seed)])
    names = list(report.metrics[0].to_json())
    inner = table([name.replace("_", " ") for name in names], rows, text=(1, 2))
    return f"<details><summary>All {len(rows)} rows of the metrics table</summary>{inner}</details>"


def grids_section(report: Report) -> str:
    """Show each grid of settings as a heat map, with its best cell and the recipe's own."""
    drawn = [_grid(report, grid) for grid in report.grids]
    return f'<div class="grid">{"".join(drawn)}</div>' if len([one for one in drawn if one]) > 1 else "".join(drawn)


def _grid(report: Report, grid: Grid) -> str:
    cells = {(cell.row, cell.column): cell.value for cell in grid.cells if cell.value is not None}
    if not cells:
        return ""
    # Numbers are sorted; names stay in the order of the cells.
    rows, columns = (_ordered([cell[axis] for cell in cells]) for axis in (0, 1))
    measure = grid.measure
    across, down = (axis.symbol or axis.name for axis in (grid.columns, grid.rows))
    best = (max if measure.better == "higher" else min)(cells, key=lambda cell: cells[cell])
    label = f"{label_of(report, measure)} by {grid.columns.name} and {grid.rows.name}"
    names = (down, grid.columns.label or grid.columns.name)
    drawn = figures.heat_map(cells, rows, columns, measure.show, names, label, best, grid.chosen)

    def place(cell: tuple[float | str, float | str]) -> str:
        return (
            f"{across} = {figures.named(cell[1])}, {down} = {figures.named(cell[0])} with {measure.show(cells[cell])}"
        )

    caption = f"Best: {place(best)} (full ring)."
    if grid.chosen == best:
        caption += " It is the recipe's own setting."
    elif grid.chosen is not None and grid.chosen in cells:
        caption += f" The recipe's {place(grid.chosen)} (dotted)"
        caption += f", {change(cells[grid.chosen] / cells[best] - 1)} from the best." if cells[best] else "."
    return f"<figure><h3>{escape(grid.title)}</h3>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def _ordered(places: list[float | str]) -> list[float | str]:
    seen = dict.fromkeys(places)
    return list(seen) if any(isinstance(place, str) for place in seen) else sorted(seen)
