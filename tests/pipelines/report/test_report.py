import json
import re
import struct
import zlib
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from gristmill.models.measures.wer import WerResult
from gristmill.pipelines.report import figures
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.report import (
    ROW_KEYS,
    Report,
    Spectrogram,
    describe_test_set,
    evaluate,
    find,
    record_row,
    to_json,
    write_report,
)
from gristmill.shards.errors import UserError

VOID = {"meta", "link", "br", "img"}


class Strict(HTMLParser):
    """Checks that elements close in order, and gathers text, attributes and table cells."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.attributes, self.cells = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag in {"td", "th"}:
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def parse(page):
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


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
        metrics=evaluate(results, also_against=["multicondition"], replicates=200),
        headline=("student", "noisy"),
        test_sets={"noisy": describe_test_set(results["teacher"]["noisy"][0])},
        curves=[
            {"system": s, "seed": 0, "step": step, "loss": 1 / (step + 1), "valid_wer": 0.5}
            for s in ("teacher", "student")
            for step in range(500)
        ],
        spectrograms=[Spectrogram("Clean", np.random.default_rng(0).standard_normal((50, 16)), 0.01)],
        sweep=[
            {"k": k, "temperature": t, "value": 0.2 + 0.01 * t / k} for k in (1, 5, 20) for t in (1.0, 2.0)
        ],
        sweep_chosen=(20, 2.0),
        records=[
            {"name": "speech", "digest": "d", "records_in": 1200, "records_out": 1180, "rejected": 15,
             "quarantined": 5, "shards": 3, "reasons": {"silent & short": 11, "<script>": 4}}
        ],
        lineage=[
            {"name": "speech", "digest": "sha256:" + "ab" * 32, "inputs": []},
            {"name": "teacher", "digest": "cd" * 32, "inputs": ["speech"], "kind": "artifact"},
            {"name": "labels", "digest": "ef" * 32, "inputs": ["speech", "teacher"]},
        ],
        digests={"speech": "ab" * 32},
        plan={
            "estimate": {"labels": {"rows": 1180, "seconds": 20.0}, "cost": 0.25},
            "actual": {"labels": {"rows": 1180, "seconds": 25.0}, "cost": 0.30},
        },
        versions={"ray": "2.60.0"},
        examples=[
            {"id": "a/1", "test_set": "noisy", "reference": "one two", "hypotheses": {"student": "one too two"}}
        ],
    )  # fmt: skip


def test_evaluate_makes_the_long_table(results):
    rows = evaluate(results, also_against=["multicondition"], replicates=100)
    assert all(tuple(row) == ROW_KEYS for row in rows)
    keys = [(r["system"], r["test_set"], r["metric"], r["seed"]) for r in rows]
    assert len(set(keys)) == len(keys)
    by_key = dict(zip(keys, rows, strict=True))
    runs = results["student"]["noisy"]
    assert by_key["student", "noisy", "wer", 1]["value"] == pytest.approx(runs[1].wer)
    pooled = by_key["student", "noisy", "wer", None]
    assert pooled["value"] == pytest.approx((runs[0].wer + runs[1].wer) / 2)
    assert pooled["low"] < pooled["value"] < pooled["high"]
    assert pooled["n"] == runs[0].words.sum()
    parts = [by_key["student", "noisy", m, 0]["value"] for m in ("substitutions", "deletions", "insertions")]
    assert sum(parts) == pytest.approx(runs[0].wer)
    assert by_key["student", "noisy", "wer_relative", None]["high"] < 0
    assert by_key["student", "noisy", "wer_relative:multicondition", 0]["value"] < 0
    per_seed = [by_key["student", "noisy", "mapsswe_p", s]["value"] for s in (0, 1)]
    assert by_key["student", "noisy", "mapsswe_p", None]["value"] == max(per_seed) < 0.05
    assert by_key["student", "noisy", "mapsswe_z", None]["value"] < 0
    assert ("teacher", "noisy", "wer_relative", None) not in by_key


def test_evaluate_with_one_teacher_for_all_seeds_and_under_another_name(results):
    one = {"teacher": {"noisy": {0: results["teacher"]["noisy"][0]}}, "student": results["student"]}
    rows = evaluate(one, metric="per", replicates=50)
    metrics = {(r["metric"], r["seed"]) for r in rows if r["system"] == "student" and r["test_set"] == "noisy"}
    assert {("per", None), ("per_relative", None), ("per_relative", 1), ("mapsswe_p", 1)} <= metrics
    with pytest.raises(UserError, match=r"'oracle'.*student"):
        evaluate(results, baseline="oracle")


def test_json_holds_every_section_in_a_fixed_order(report):
    data = to_json(report)
    assert data == to_json(report)
    document = json.loads(data)
    assert list(document)[:6] == ["title", "summary", "recipe", "metric", "baseline", "metrics"]
    for key in ("digests", "records", "plan", "versions"):
        assert document[key] == getattr(report, key)
    report.metrics[0]["value"] = float("nan")
    assert json.loads(to_json(report))["metrics"][0]["value"] is None


def test_page_is_whole_escaped_and_fetches_nothing(report):
    page = to_html(report)
    parser = parse(page)
    for name, value in parser.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"https?://|@import|url\(|<script", page)
    text = "".join(parser.text)
    assert "Digits <in> noise" in text
    assert "silent & short: 11" in text
    ids = [value for name, value in parser.attributes if name == "id"]
    assert {v[1:] for n, v in parser.attributes if n == "href"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_page_shows_every_value(report):
    document = json.loads(to_json(report))
    parser = parse(to_html(report))
    cells = set(parser.cells)
    for row in document["metrics"]:
        for key in ("value", "low", "high"):
            if row[key] is not None:
                assert f"{row[key]:.6g}" in cells
    for system in ("teacher", "multicondition", "student"):
        row = find(report, system, "noisy")
        told = f"{100 * row['value']:.1f}% ({100 * row['low']:.1f}% to {100 * row['high']:.1f}%)"
        assert told in cells
    for step in document["records"]:
        for key in ("records_in", "records_out", "rejected", "quarantined"):
            assert f"{step[key]:,}" in cells
    text = unescape("".join(parser.text))
    for cell in document["sweep"]:
        assert f"{100 * cell['value']:.1f}".removesuffix(".0") + "%" in text
    for value in ("1,180", "20", "25", "1.25", "0.25", "0.3", "2.60.0", "ab" * 32):
        assert value in cells
    assert "abababababab" in text


def test_summary_says_what_is_sure(report):
    page = "".join(parse(to_html(report)).text)
    assert re.search(r"On noisy speech, student has a WER of [\d.]+% against [\d.]+% for clean teacher", page)
    assert "fewer errors (95% interval" in page
    row = find(report, "student", "noisy", "wer_relative")
    row["high"] = 0.1
    assert "not certain" in to_html(report)


def test_a_metric_that_is_no_rate_and_better_when_higher():
    def row(system, metric, value, low, high):
        return dict(zip(ROW_KEYS, (system, "news", metric, value, low, high, 100, None), strict=True))

    report = Report(
        title="A translator",
        recipe={},
        metric="bleu",
        baseline="base",
        percent=False,
        lower_is_better=False,
        headline=("big", "news"),
        labels={"bleu": "BLEU"},
        metrics=[
            row("base", "bleu", 31.25, 30, 32.5),
            row("big", "bleu", 35.5, 34.25, 36.75),
            row("big", "bleu_relative", 0.136, 0.11, 0.16),
        ],
        sweep=[{"k": k, "temperature": 1.0, "value": 30.0 + k} for k in (1, 2)],
    )
    page = to_html(report)
    parser = parse(page)
    assert "35.5 (34.25 to 36.75)" in parser.cells
    assert "MAPSSWE" not in page
    assert '<span class="better">+13.6%</span>' in page
    text = "".join(parser.text)
    assert "BLEU of 35.5 against 31.25 for base: 13.6% more (95% interval 11.0% to 16.0%)" in text
    assert "Best: k = 2" in text


def test_records_come_from_a_seal_or_from_audit():
    counts = {"records_in": 9, "records_out": 7, "rejected": 1, "quarantined": 1}
    seal = {"name": "speech", "digest": "d", "shards": [{}, {}], "reasons": {"silent": 1}, "schema": "", **counts}
    row = record_row(seal)
    assert row == {"name": "speech", "digest": "d", **counts, "shards": 2, "reasons": {"silent": 1}}
    assert record_row(row) == row


def test_empty_sections_are_left_out():
    page = to_html(Report(title="A language model", recipe={}))
    parser = parse(page)
    assert "<section" not in page
    assert "A language model" in "".join(parser.text)


def test_written_once_and_again_only_when_it_says_something_else(report, tmp_path):
    out = str(tmp_path / "out")
    assert write_report(out, report)
    stamps = [(tmp_path / "out" / name).stat().st_mtime_ns for name in ("report.json", "report.html")]
    report.plan["actual"]["cost"] = 9.0  # the clock of a run that found all work done
    report.versions["ray"] = "3.0"
    assert not write_report(out, report)
    assert stamps == [(tmp_path / "out" / name).stat().st_mtime_ns for name in ("report.json", "report.html")]
    report.digests["speech"] = "00" * 32
    assert write_report(out, report)
    (tmp_path / "out" / "report.html").unlink()
    assert write_report(out, report)
    (tmp_path / "out" / "report.json").write_text("not json")
    assert write_report(out, report)


def test_png_decodes_to_its_levels():
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    data = figures.png(levels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (4, 3)
    assert len(chunks[b"PLTE"]) == 768
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, 5)
    np.testing.assert_array_equal(rows[:, 1:], levels)
    assert not rows[:, 0].any()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.037), (0, 812.0), (0.2, 0.2), (-3, 7)])
def test_ticks_are_round_and_cover(low, high):
    marks = figures.ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8


def test_a_lineage_of_very_many_models_is_drawn_by_their_names():
    models = [{"name": f"model {i:06x}", "digest": "a" * 64, "inputs": ["set"], "kind": "training"} for i in range(200)]
    nodes = [
        {"name": "set", "digest": "b" * 64, "inputs": []},
        *models,
        {"name": "read", "digest": "c" * 64, "inputs": [m["name"] for m in models]},
    ]
    page = to_html(Report(title="T", recipe={}, lineage=nodes))
    assert "model (200)" in page
    assert page.count("<text") < 20
    few = to_html(Report(title="T", recipe={}, lineage=[nodes[0], *models[:3]]))
    assert "model 000002" in few


def test_reliability_is_drawn_for_all_domains_and_for_each():
    bins = [{"low": 0.0, "high": 1.0, "n": 9, "score": 0.4, "accuracy": 0.5, "accuracy_low": 0.2, "accuracy_high": 0.8}]
    rows = [{"system": system, "domain": domain, "bins": bins} for system in ("R0", "R3") for domain in (None, "music")]
    page = to_html(Report(title="T", recipe={}, baseline="R0", reliability=rows))
    parsed = parse(page)
    assert "Calibration" in parsed.text
    assert page.count("9 hypotheses, score 0.400, right 0.500") == 3  # two of all, and the baseline's domain
