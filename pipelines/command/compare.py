"""``gristmill compare``: what changed between runs of a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gristmill.pipelines.record_scores import read_scores
from gristmill.pipelines.report.comparison import (
    LEVEL_OF,
    PAIRED,
    Change,
    Compared,
    Difference,
    Figure,
    Output,
    compare,
)
from gristmill.pipelines.report.measures import PERCENT
from gristmill.pipelines.report.read import read_report
from gristmill.pipelines.report.tables import change as signed
from gristmill.shards.errors import UserError
from gristmill.shards.processor import NOT_RECORDED
from gristmill.shards.safe_text import escaped

_MOST = 60  # characters of a setting's value


def compare_outputs(outs: Sequence[str]) -> tuple[Compared, list[Output]]:
    """Read the reports and scores of outputs and compare each with the first.

    Raises:
        UserError: fewer than two outputs, one without a report, or reports of different measures.
    """
    if len(set(outs)) < 2:
        raise UserError("compare: one output is given; expected two or more, OUT1 OUT2 ...")
    reports = {out: read_report(out) for out in outs}
    scores = {out: read_scores(out) if report.get("format") else None for out, report in reports.items()}
    outputs = [Output(out, reports[out], scores[out]) for out in outs]
    measures = [one.report["metric"] for one in outputs]
    for one, measure in zip(outputs, measures, strict=True):
        if measure != measures[0] or measure is None:
            raise UserError(
                f"{one.out}: its report is of {measure or 'no measure'} and that of {outs[0]} of {measures[0]}; "
                "expected outputs of one recipe"
            )
    return compare(outputs), outputs


def show_comparison(outs: Sequence[str], as_json: bool) -> None:
    """Print what changed, as text or as one JSON object."""
    made, outputs = compare_outputs(outs)
    if as_json:
        print(json.dumps(made.to_json(), ensure_ascii=False, allow_nan=False))
        return
    for line in _lines(made, outputs):
        print(escaped(line))


def _lines(made: Compared, outputs: Sequence[Output]) -> Iterator[str]:
    letters = [chr(ord("A") + place) if place < 26 else f"#{place + 1}" for place in range(len(outputs))]
    for letter, one in zip(letters, outputs, strict=True):
        verdict = one.report.get("verdict")
        yield f"{letter}  {one.out}"
        if verdict:
            yield f"   {verdict['sentence']}"
    yield ""
    yield from _differences("settings", [row for row in made.settings if not row.unknown], letters)
    if unknown := [row for row in made.settings if row.unknown]:
        yield "settings that not all have (– where a report has none: of an earlier version, or not given):"
        yield from _rows(unknown, letters)
    yield from _differences("versions", made.versions, letters)
    if not made.versions and NOT_RECORDED in outputs[0].report["versions"].get(LEVEL_OF, NOT_RECORDED):
        yield f"  but for the processor's level, which is {NOT_RECORDED}"
    yield from _data(made, letters)
    yield from _figures(made, outputs, letters)


def _differences(title: str, rows: Sequence[Difference], letters: Sequence[str]) -> Iterator[str]:
    if not rows:
        yield f"{title}: the same"
        return
    yield f"{title} (– where there is none):"
    yield from _rows(rows, letters)


def _rows(rows: Sequence[Difference], letters: Sequence[str]) -> Iterator[str]:
    table = [["", *letters], *([row.name, *map(_written, row.values)] for row in rows)]
    yield from _aligned(table, left=len(letters) + 1)


def _written(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


def _data(made: Compared, letters: Sequence[str]) -> Iterator[str]:
    own = [row for row in made.sets if not row.caused]
    made_of = len(made.sets) - len(own)
    if not made.sets:
        yield f"data: all {made.same_sets} sets are the same"
        return
    more = f"{made_of} that were made of sets or models that differ"
    if not own:
        yield f"data: {made.same_sets} sets are the same; those that differ are {more}"
        return
    yield f"data: {made.same_sets} sets are the same; {len(own)} differ" + (f", and {more}" if made_of else "") + ":"
    table = [["", *(f"{letter}, records" for letter in letters)]]
    for row in own:
        table.append([row.name, *("–" if one is None else f"{one[1]:,} ({one[0][:8]})" for one in row.values)])
    yield from _aligned(table)


def _figures(made: Compared, outputs: Sequence[Output], letters: Sequence[str]) -> Iterator[str]:
    measure = next(one for one in outputs[0].report["measures"] if one["name"] == made.metric)
    percent = measure["unit"] == PERCENT.name
    for test_set, reasons in made.pairing.items():
        how = [
            f"{letters[0]}-{letter} {'paired, ' if why == PAIRED else 'not paired, '}{why}"
            for letter, why in zip(letters[1:], reasons, strict=True)
        ]
        yield f"{measure['label']} on {test_set} ({'; '.join(how)}):"
        heads = [head for letter in letters[1:] for head in (letter, f"from {letters[0]}, 95% interval", "")]
        table = [["", letters[0], *heads]]
        for figure in made.figures:
            if figure.test_set == test_set:
                table.append([figure.system, *_cells(figure, percent, measure.get("better"))])
        yield from _aligned(table)
    family = sum(one is not None and one.p is not None for figure in made.figures for one in figure.changes)
    if family:
        yield f"beyond chance: p below 0.05 after Holm's correction for {family} changes; intervals are of single ones"


def _cells(figure: Figure, percent: bool, better: str | None) -> Iterator[str]:
    shown = ["–" if one is None or one[0] is None else _value(one[0], percent) for one in figure.values]
    yield shown[0]
    for value, change in zip(shown[1:], figure.changes, strict=True):
        yield from (value, _moved(change), _outcome(change, better))


def _value(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.4g}"


def _moved(change: Change | None) -> str:
    if change is None or change.change is None:
        return "–"
    if change.low is None:
        return f"{signed(change.change)} (no interval)"
    return f"{signed(change.change)} ({signed(change.low)} to {signed(change.high)})"


def _outcome(change: Change | None, better: str | None) -> str:
    if change is None or change.p is None:
        return ""
    if change.change == change.low == change.high == 0:
        return "the same"
    if not change.beyond_chance:
        return "may be chance"
    if better is None or not change.change:
        return "beyond chance"
    return f"{'better' if (change.change < 0) == (better == 'lower') else 'worse'} beyond chance"


def _aligned(table: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Yield the rows of a table indented, the first ``left`` columns to the left and the others to the right."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    for row in table:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()
