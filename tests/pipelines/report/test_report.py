import base64
import json
import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pytest

from gristmill.actors.audio import decode
from gristmill.models.measures.calibration import Bin
from gristmill.models.measures.wer import WerResult, score
from gristmill.pipelines.evaluation import describe_test_set, evaluate
from gristmill.pipelines.report.document import to_json
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.measures import (
    DELETIONS,
    INSERTIONS,
    MAPSSWE,
    PER,
    SUBSTITUTIONS,
    WER,
)
from gristmill.pipelines.report.report import (
    Axis,
    Cell,
    Clip,
    Curve,
    CurvePoint,
    Diagram,
    ExampleTexts,
    FilterFlow,
    Grid,
    LineageNode,
    NumberTable,
    RecordFlow,
    Reliability,
    Report,
    Spectrogram,
)
from gristmill.pipelines.report.write import write_report
from gristmill.shards.errors import UserError
from tests.pipelines.report.pages import parse

ROW_KEYS = ("system", "test_set", "metric", "value", "low", "high", "n", "seed")


def scored(rate, seed, utterances=80, speakers=12):
    shared = np.random.default_rng(0)
    words = shared.integers(3, 8, utterances)
    who = shared.integers(speakers, size=utterances)
    rng = np.random.default_rng(seed)
    letters = tuple("".join(rng.choice(list("CSD"), p=[1 - rate, rate / 2, rate / 2], size=w)) for w in words)

    def count(letter):
        return np.array([text.count(letter) for text in letters])

    return WerResult(count("S"), count("D"), count("I"), words, tuple(f"speaker {w}" for w in who), letters)


@pytest.fixture(scope="module")
def results():
    rates = {"teacher": 0.4, "multicondition": 0.3, "student": 0.15}
    return {
        system: {name: {k: scored(rate, 10 * i + k) for k in (0, 1)} for name in ("clean", "noisy")}
        for i, (system, rate) in enumerate(rates.items())
    }


@pytest.fixture
def report(results):
    return Report(
        title="Digits <in> noise",
        recipe={"name": "distill-digits", "k": 20},
        measures=[WER, SUBSTITUTIONS, DELETIONS, INSERTIONS, WER.relative(), MAPSSWE],
        baseline="teacher",
        tested="speech",
        labels={"teacher": "Clean teacher", "wer": "WER"},
        metrics=evaluate(results, baseline="teacher", also_against=["multicondition"], replicates=200),
        headline=("student", "noisy"),
        baselines=["teacher", "multicondition"],
        test_sets={"noisy": describe_test_set(results["teacher"]["noisy"][0])},
        curves=[
            CurvePoint(s, 0, step, {"loss": 1 / (step + 1), "valid_wer": 0.5}, phase if s == "student" else "")
            for s in ("teacher", "student")
            for step, phase in ((n, "all speech" if n < 400 else "gold text") for n in range(500))
        ],
        explained={"valid_wer": "Of held-out <speech>."},
        measured=[
            NumberTable("Segments", [{"Set": "raw", "hours kept": 1.5}, {"Set": "test", "rejected": "short: 2"}]),
            NumberTable(
                "Learning",
                [{"by": by, "added": n, "F1": 0.8 + 0.01 * n} for by in ("<top>", "any") for n in (9, 0, 3)],
                "",
                (Curve("added", "F1", "by"),),
            ),
        ],
        spectrograms=[Spectrogram("Clean", np.random.default_rng(0).standard_normal((50, 16)), 0.01)],
        grids=[
            Grid(
                "k x temperature",
                WER,
                Axis("temperature", symbol="T"),
                Axis("k", "k kept"),
                [Cell(t, k, 0.2 + 0.01 * t / k) for k in (1, 5, 20) for t in (1.0, 2.0)],
                chosen=(2.0, 20),
            )
        ],
        filters=[FilterFlow("short texts", 9, 1, [{"id": "a", "text": "kept one"}], [{"id": "b", "reason": "long"}])],
        records=[
            RecordFlow("speech", "d", 1200, 1180, 15, 5, 3, {"silent & short": 11, "<script>": 4}),
            RecordFlow("whole", "e", 77, 77, 0, 0, 1),
        ],
        lineage=[
            LineageNode("speech", "sha256:" + "ab" * 32, (), "source", 1180, 2048, 3.0),
            LineageNode("teacher", "cd" * 32, ["speech"], "artifact", None, 5 << 20),
            LineageNode("labels", "ef" * 32, ["speech", "teacher"], "step", 1181, 4096, 75.0),
        ],
        digests={"speech": "ab" * 32},
        plan={
            "estimate": {"labels": {"rows": 1180, "seconds": 20.0}, "cost": 0.25},
            "actual": {"labels": {"rows": 1180, "seconds": 25.0}, "cost": 0.30},
        },
        versions={"ray": "2.60.0"},
        examples=[
            ExampleTexts("a/1", name, "one two", {"student": "one too two"}, Clip(np.zeros(800), 8000))
            for name in ("clean", "noisy")
        ],
    )


def test_evaluate_makes_the_long_table(results):
    rows = evaluate(results, baseline="teacher", also_against=["multicondition"], replicates=100)
    assert all(tuple(row.to_json()) == ROW_KEYS for row in rows)
    keys = [(r.system, r.test_set, r.metric, r.seed) for r in rows]
    assert len(set(keys)) == len(keys)
    by_key = dict(zip(keys, rows, strict=True))
    runs = results["student"]["noisy"]
    assert by_key["student", "noisy", "wer", 1].value == pytest.approx(runs[1].wer)
    pooled = by_key["student", "noisy", "wer", None]
    assert pooled.value == pytest.approx((runs[0].wer + runs[1].wer) / 2)
    assert pooled.low < pooled.value < pooled.high
    assert pooled.n == runs[0].words.sum()
    parts = [by_key["student", "noisy", m, 0].value for m in ("substitutions", "deletions", "insertions")]
    assert sum(parts) == pytest.approx(runs[0].wer)
    assert by_key["student", "noisy", "wer_relative", None].high < 0
    assert by_key["student", "noisy", "wer_relative:multicondition", 0].value < 0
    assert by_key["student", "noisy", "wer_difference", None].value == pytest.approx(
        pooled.value - by_key["teacher", "noisy", "wer", None].value
    )
    assert by_key["student", "noisy", "wer_p:multicondition", None].value <= 2 / 100
    per_seed = [by_key["student", "noisy", "mapsswe_p", s].value for s in (0, 1)]
    assert by_key["student", "noisy", "mapsswe_p", None].value == max(per_seed) < 0.05
    assert by_key["student", "noisy", "mapsswe_z", None].value < 0
    assert ("teacher", "noisy", "wer_relative", None) not in by_key


def test_character_errors_are_beside_word_errors():
    texts = ["打开客厅的灯", "关灯", "打开窗户"] * 10
    runs = {
        "teacher": {"noisy": {0: score(texts, ["打开卧室的灯"] * 30)}},
        "student": {"noisy": {0: score(texts, texts)}},
    }
    rows = {(row.system, row.metric): row for row in evaluate(runs, baseline="teacher") if row.seed is None}
    assert rows["teacher", "cer"].value == pytest.approx((2 + 5 + 4) / 12)
    assert rows["teacher", "cer"].low <= rows["teacher", "cer"].value <= rows["teacher", "cer"].high
    assert (rows["teacher", "cer"].n, rows["teacher", "wer"].n) == (120, 30)
    assert rows["student", "cer"].value == 0
    phones = evaluate(
        {"teacher": {"noisy": {0: score(texts, texts, normalise="phones")}}}, measure=PER, baseline="teacher"
    )
    assert "cer" not in {row.metric for row in phones}, "phones are no characters"


def test_evaluate_with_one_teacher_for_all_seeds_and_under_another_name(results):
    one = {"teacher": {"noisy": {0: results["teacher"]["noisy"][0]}}, "student": results["student"]}
    rows = evaluate(one, measure=PER, baseline="teacher", replicates=50)
    metrics = {(r.metric, r.seed) for r in rows if r.system == "student" and r.test_set == "noisy"}
    assert {("per", None), ("per_relative", None), ("per_relative", 1), ("mapsswe_p", 1)} <= metrics
    with pytest.raises(UserError, match=r"'oracle'.*student"):
        evaluate(results, baseline="oracle")


def test_json_holds_every_section_in_a_fixed_order(report):
    data = to_json(report)
    assert data == to_json(report)
    document = json.loads(data)
    heads = "format title summary verdict use recipe metric baseline baselines proposals metrics"
    assert " ".join(document).startswith(heads)
    for key in ("digests", "plan", "versions"):
        assert document[key] == getattr(report, key)
    assert document["records"][0]["reasons"] == {"silent & short": 11, "<script>": 4}
    assert document["grids"][0]["chosen"] == {"temperature": 2.0, "k": 20}
    cell = document["grids"][0]["cells"][0]
    assert cell == {"temperature": 1.0, "k": 1, "value": 0.2 + 0.01, "low": None, "high": None}
    assert document["curves"][0] == {"system": "teacher", "seed": 0, "step": 0, "loss": 1.0, "valid_wer": 0.5}
    assert document["curves"][-1]["phase"] == "gold text"
    assert document["examples"][1]["audio"] == {"seconds": 0.1}
    assert document["measured"][0]["rows"][0] == {"Set": "raw", "hours kept": 1.5}
    assert document["measured"][1]["curves"] == [{"x": "added", "y": "F1", "by": "by"}]
    assert document["test_sets"]["noisy"]["resampled"] == "speakers"
    report.metrics[0] = replace(report.metrics[0], value=float("nan"))
    assert json.loads(to_json(report))["metrics"][0]["value"] is None


def test_page_is_whole_escaped_and_fetches_nothing(report):
    page = to_html(report)
    parser = parse(page)
    for name, value in parser.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
            assert value.startswith(("#", "data:image/png;base64,", "data:audio/ogg;base64,"))
    assert not re.search(r"https?://|@import|url\(|<script", page)
    text = "".join(parser.text)
    assert "Digits <in> noise" in text
    assert "silent & short: 11" in text
    ids = [value for name, value in parser.attributes if name == "id"]
    assert {v[1:] for n, v in parser.attributes if n == "href"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_page_shows_every_value(report):
    document = json.loads(to_json(report))
    page = to_html(report)
    parser = parse(page)
    cells = set(parser.cells)
    for row in document["metrics"]:
        for key in ("value", "low", "high"):
            if row[key] is not None:
                assert f"{row[key]:.6g}" in cells
    assert [one["outcome"] for one in document["verdict"]["comparisons"]] == ["ahead"] * 4
    for system in ("teacher", "multicondition", "student"):
        row = report.find(system, "noisy", "wer")
        shown = f"{100 * row.value:.1f}% ({100 * row.low:.1f}% to {100 * row.high:.1f}%)"
        assert shown in cells
    for step in document["records"]:
        for key in ("records_in", "records_out", "rejected", "quarantined"):
            assert f"{step[key]:,}" in cells
    text = unescape("".join(parser.text))
    for cell in document["grids"][0]["cells"]:
        assert f"{100 * cell['value']:.1f}%" in text
    assert "Best: k = 20, T = 1 with 20.1% (full ring). The recipe's k = 20, T = 2 with 20.1% (dotted)" in text
    assert "kept one" in text
    assert text.count("gold text") == 2, "marked in the panels of the student's loss and of what both systems have"
    assert "Of held-out <speech>." in text
    assert "1 of 2 sets kept every record." in text
    ends = [re.findall(r"([\d.]+),([\d.]+)", drawn) for drawn in re.findall(r'polyline points="([^"]*)"', page)]
    line = next(one for one in ends if len(one) == 3)
    assert [float(x) for x, _ in line] == sorted(float(x) for x, _ in line), "over what was added, in order"
    assert [float(y) for _, y in line] == sorted((float(y) for _, y in line), reverse=True), "F1 grows with it"
    assert page.count('<div class="bar">') == 1, "a set that kept all has no bar"
    assert {"hours kept", "1.5", "short: 2"} <= cells
    clips = [value for name, value in parser.attributes if name == "src" and value.startswith("data:audio")]
    said = re.search(r"2 clips, (\d+) kB of this page", text)
    assert int(said[1]) == pytest.approx(sum(map(len, clips)) / 1000, abs=1)
    for clip in clips:
        samples, rate = decode(base64.b64decode(clip.partition(",")[2]))
        assert len(samples) / rate == pytest.approx(0.1, abs=0.02)
    for value in ("1,180", "20 s", "25 s", "1.25", "0.25", "0.3", "2.60.0", "ab" * 32):
        assert value in cells
    assert "abababababab" in text


def test_records_come_from_a_seal_or_its_summary():
    counts = {"records_in": 9, "records_out": 7, "rejected": 1, "quarantined": 1}
    seal = {"name": "speech", "digest": "d", "shards": [{}, {}], "reasons": {"silent": 1}, "schema": "", **counts}
    flow = RecordFlow.of_seal(seal)
    assert flow == RecordFlow("speech", "d", 9, 7, 1, 1, 2, {"silent": 1})
    assert RecordFlow.of_seal({**seal, "shards": 2}) == flow


def test_empty_sections_are_left_out():
    page = to_html(Report(title="A language model", recipe={}))
    parser = parse(page)
    assert "<section" not in page
    assert "A language model" in "".join(parser.text)


def test_the_settings_of_the_run_are_on_the_page():
    page = parse(to_html(Report(title="T", recipe={}, run={"seed": 7, "seeds": [1, 2], "runner": "ray"})))
    assert {"7", "1, 2", "ray"} <= set(page.cells)


def test_rewritten_only_when_results_change(report, tmp_path):
    out = str(tmp_path / "out")
    assert write_report(out, report)
    stamps = [(tmp_path / "out" / name).stat().st_mtime_ns for name in ("report.json", "report.html")]
    report.plan["actual"]["cost"] = 9.0  # the time of a run without work
    report.versions["ray"] = "3.0"
    assert not write_report(out, report)
    assert stamps == [(tmp_path / "out" / name).stat().st_mtime_ns for name in ("report.json", "report.html")]
    report.lineage[0] = replace(report.lineage[0], bytes=1, seconds=9.0)
    assert not write_report(out, report, lambda: pytest.fail("it was measured in vain"))
    report.digests["speech"] = "00" * 32
    asked = []
    assert write_report(out, report, lambda: asked.append(1))
    assert asked == [1]
    (tmp_path / "out" / "report.html").unlink()
    assert write_report(out, report)
    (tmp_path / "out" / "report.json").write_text("not json")
    assert write_report(out, report)


def test_a_large_lineage_is_merged_by_name():
    models = [LineageNode(f"model {i:06x}", "a" * 64, ["set"], "training") for i in range(200)]
    nodes = [
        LineageNode("set", "b" * 64),
        *models,
        LineageNode("read", "c" * 64, [m.name for m in models]),
    ]
    page = to_html(Report(title="T", recipe={}, lineage=nodes))
    assert "model × 200" in page
    assert page.count("<text") < 20
    few = to_html(Report(title="T", recipe={}, lineage=[nodes[0], *models[:3]]))
    assert "model 000002" in few


def test_the_lineage_is_a_picture_whose_boxes_say_what_they_weigh(report):
    page = to_html(report)
    drawn = re.search(r'<svg class="graph".*?</svg>', page, re.DOTALL)[0]
    texts = [one.text for one in ElementTree.fromstring(drawn).iter("text")]
    assert texts == [
        *("speech", "1,180 rows · 2.0 KiB", "source · 3.0 s"),
        *("teacher", "5.0 MiB", "artifact"),
        *("labels", "1,181 rows · 4.0 KiB", "step · 1 min 15 s"),
    ]
    assert {"speech, teacher", "4.0 KiB", "1 min 15 s", "ef" * 32} <= set(parse(page).cells)
    backwards = replace(report, lineage=report.lineage[::-1])
    assert '<svg class="graph"' in to_html(backwards), "in any order"


def test_reliability_is_drawn_for_all_parts_and_for_each():
    bins = [Bin(0.0, 1.0, 9, 0.4, 0.5, 0.2, 0.8)]
    diagrams = [Diagram(system, bins, part) for system in ("R0", "R3") for part in (None, "music")]
    given = Reliability(diagrams, "hypotheses", "domain")
    page = to_html(Report(title="T", recipe={}, baseline="R0", reliability=given))
    assert [set(entry) for entry in given.to_json()] == [{"system", "domain", "bins"}] * 4
    assert "Each domain by itself" in page
    parsed = parse(page)
    assert "Calibration" in parsed.text
    assert page.count("9 hypotheses, score 0.400, right 0.500") == 3  # two of all, and the baseline's domain


def test_unknown_speakers_are_no_speakers():
    texts = ["one two"] * 4
    assert describe_test_set(score(texts, texts)).to_json() == {
        "utterances": 4,
        "words": 8,
        "resampled": "utterances (their speakers are unknown)",
    }
    some = describe_test_set(score(texts, texts, ["ann", "ann", None, ""]))
    assert some.sizes == {"utterances": 4, "words": 8, "speakers": 1, "utterances of unknown speakers": 2}
    assert some.resampled == "utterances within speakers"


def test_the_plan_has_a_line_a_result_in_the_order_of_the_run():
    estimate = {
        "alignment": {"seconds": 0.002},
        "seconds": 100.0,
        "teacher": {"seconds": 75.0},
        "unmade": {"seconds": 2},
    }
    actual = {"seconds": 150.0, "texts": {"seconds": 3.0}, "teacher": {"seconds": 150.0}, "alignment": {"seconds": 0.1}}
    report = Report(title="t", recipe={}, plan={"estimate": estimate, "actual": actual})
    section = to_html(report).partition('id="plan"')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", section)]
    assert rows == [
        ["Result", "Estimate", "Actual", "Actual / estimate"],
        ["whole run", "1 min 40 s", "2 min 30 s", "1.50"],
        ["texts", "–", "3.0 s", "–"],
        ["teacher", "1 min 15 s", "2 min 30 s", "2.00"],
        ["alignment", "0.0 s", "0.1 s", "–"],
        ["unmade", "2.0 s", "–", "–"],
    ]
