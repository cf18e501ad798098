"""Measures of a report: of any unit and direction, from the user's recipe too."""

import json
import re
from dataclasses import replace

from gristmill.pipelines.report.document import to_json
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.measures import (
    BLEU,
    MAPSSWE,
    MILLISECONDS,
    PERCENT,
    WER,
    Measure,
    Unit,
)
from gristmill.pipelines.report.report import (
    Axis,
    Cell,
    Grid,
    MetricRow,
    Report,
)
from tests.pipelines.report.pages import parse


def rows(system, test_set, **values):
    return [MetricRow(system, test_set, name, *given, 100, None) for name, given in values.items()]


def test_a_metric_that_is_not_a_rate_and_better_when_higher():
    bleu = replace(BLEU, interval=True)
    report = Report(
        title="A translator",
        recipe={},
        measures=[bleu, bleu.relative()],
        baseline="base",
        headline=("big", "news"),
        metrics=[
            *rows("base", "news", bleu=(31.25, 30, 32.5)),
            *rows("big", "news", bleu=(35.5, 34.25, 36.75), bleu_relative=(0.136, 0.11, 0.16)),
        ],
        grids=[Grid("Width", bleu, Axis("depth"), Axis("width"), [Cell("deep", w, 30.0 + w) for w in (2, 1)])],
    )
    page = to_html(report)
    parser = parse(page)
    assert "35.5 (34.2 to 36.8)" in parser.cells
    assert "MAPSSWE" not in page
    assert '<span class="better">+13.6%</span>' in page
    text = "".join(parser.text)
    assert (
        "News: big, BLEU 35.5, is ahead of every baseline beyond chance; the nearest is base, 31.2 (+13.6%, 95%" in text
    )
    assert "Best: width = 2, depth = deep with 32.0 (full ring)." in text


def test_measures_of_a_users_recipe_are_all_columns():
    measures = [
        Measure("win_loss", "Win/loss ratio", digits=2, better="higher", interval=True),
        Measure("precision_at_1", "Precision @ 1", PERCENT, 1, better="higher"),
        Measure("recall", "Recall <10>", PERCENT, 1, better="higher"),
        Measure("latency", "Latency", MILLISECONDS, 0, better="lower"),
        Measure("share", "Share", Unit("fraction", " of all", 100.0), better=None),
        Measure("kept_aside", "Aside", column=False),
        Measure("nobody_has_it", "Absent"),
    ]
    held = {"recall": (0.5, None, None), "share": (0.1, None, None), "kept_aside": (7.0, None, None)}
    report = Report(
        title="A retriever",
        recipe={"name": "retrieve"},
        measures=measures,
        labels={"old": "Old index", "new": "New index"},
        metrics=[
            *rows("old", "web", win_loss=(-0.25, -0.5, 0.1), precision_at_1=(0.75, None, None), **held),
            *rows("old", "web", latency=(1250.4, None, None)),
            *rows("new", "web", win_loss=(1.5, 1.25, 1.75), precision_at_1=(0.5, None, None), **held),
            *rows("new", "web", latency=(80.0, None, None)),
            *rows("new", "news", precision_at_1=(0.25, None, None)),
        ],
    )
    page = to_html(report)
    cells = parse(page).cells
    heads = ["System", "Win/loss ratio (95% interval)", "Precision @ 1", "Recall <10>", "Latency", "Share"]
    assert cells[: len(heads)] == heads
    assert cells[6:13] == ["web", "Old index", "−0.25 (−0.50 to 0.10)", "75.0%", "50.0%", "1,250 ms", "10.000 of all"]
    assert cells[13:19] == ["New index", "1.50 (1.25 to 1.75)", "50.0%", "50.0%", "80 ms", "10.000 of all"]
    assert cells[19:26] == ["news", "New index", "–", "25.0%", "–", "–", "–"]
    assert [re.sub("<.*?>", "", best) for best in re.findall('<b class="best">.*?</b>', page)] == [
        "75.0%",
        "1.50",
        "80 ms",
    ]
    assert "more is better" in page
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert "Absent" not in page
    aside = [row for row in json.loads(to_json(report))["metrics"] if row["metric"] == "kept_aside"]
    assert [row["value"] for row in aside] == [7.0, 7.0]


def test_values_are_shown_in_their_unit():
    change = WER.relative()
    assert [change.show(value) for value in (0.1234, -0.1234, 0.0004, -0.0004, None)] == [
        "+12.3%",
        "−12.3%",
        "0.0%",
        "0.0%",
        "–",
    ]
    assert (MAPSSWE.show(0.0002), MAPSSWE.show(0.0312)) == ("< 0.001", "0.031")
    assert (WER.tick(0.125), WER.tick(0.3)) == ("12.5%", "30%")
    assert WER.verdict(-0.2, -0.1) == BLEU.verdict(0.1, 0.2) == "better"
    assert WER.verdict(0.1, 0.2) == "worse"
    assert WER.verdict(-0.1, 0.2) == WER.verdict(None, 0.2) == ""
