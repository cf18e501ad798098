import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.text import scores
from gristmill.pipelines.text.scores import Scored, Translations
from gristmill.shards.dataset import seal_tables

pytest.importorskip("sacrebleu")


def scored(part: str = "test", shift: float = 0.0) -> dict:
    """Two texts, the first of three words (one outside the vocabulary), the second of one."""
    return {
        "id": ["a", "b"],
        "text": ["x y z", "x"],
        "part": [part, part],
        "nbest": [
            [{"text": "x y", "logprob": -1.0}, {"text": "x y z", "logprob": -1.5}],
            [{"text": "x", "logprob": -0.5}, {"text": "q", "logprob": -0.4}],
        ],
        "s_logprob": [-8.0 + shift, -2.0],
        "s_oov_logprob": [-5.0, 0.0],
        "s_words": [4, 2],
        "s_oov": [1, 0],
        "s_unseen": [2, 0],
        "s_logprobs": [[-9.0, -8.0], [-2.0, -9.0]],
    }


def rows_of(metrics: list[MetricRow]) -> dict:
    return {(row.system, row.metric, row.seed): row for row in metrics}


def test_perplexity_with_and_without_unknown_words_and_unseen_words(tmp_path) -> None:
    base = {key.replace("s_", "b_", 1) if key.startswith("s_") else key: value for key, value in scored().items()}
    tables = []
    for part in ("dev", "test"):
        both = {**base, **{key: value for key, value in scored(shift=2.0).items() if key.startswith("s_")}}
        tables.append(pa.table({**both, "id": [f"{part}{n}" for n in "ab"], "part": [part, part]}))
    made = seal_tables(str(tmp_path), "judged", iter([pa.concat_tables(tables)]))
    metrics, errors, losses = scores.text_metrics({0: made}, ["b", "s"], "1/1", ["b"])
    found = rows_of(metrics)
    assert found["b", "perplexity", None].value == pytest.approx(math.exp(10 / 6))
    assert found["b", "perplexity_known", 0].value == pytest.approx(math.exp(5 / 5))
    assert found["b", "oov", None].value == pytest.approx(2 / 4)
    assert found["s", "perplexity_relative", None].value == pytest.approx(math.exp(-2 / 6) - 1)
    assert found["s", "perplexity_p", 0].value == found["s", "perplexity_p", None].value <= 1
    assert ("b", "perplexity_relative", None) not in found
    assert losses["s"][0].ids == ("testa", "testb")
    assert errors["b"][0].errors.tolist() == [0, 0]  # the language model corrects the channel


def test_lists_are_rescored_by_a_weight_tuned_on_other_lists() -> None:
    lists = Scored(
        ["x y z"], ("a",), {}, np.array([0, 2]), ["x y", "x y z"], np.array([-1.0, -1.5]), {"s": np.array([-9.0, -8.8])}
    )
    assert scores.rescored(lists, "s", 0.25, 0.0).errors.tolist() == [1]
    assert scores.rescored(lists, "s", 3.0, 0.0).errors.tolist() == [0]
    weight, bonus = scores.tuned(lists, "s")
    assert scores.rescored(lists, "s", weight, bonus).errors.sum() == 0


def test_texts_may_have_different_numbers_of_references() -> None:
    made = Translations(["turn the lamp on now", "stop it"], [["turn the lamp on now", "put it on"], ["halt"]])
    rows, signatures = scores.translation_metrics("s", "1/1", {0: made, 1: made})
    found = rows_of(rows)
    assert 0 < found["s", "bleu", None].value < 100
    assert found["s", "chrf", 0].value == found["s", "chrf", None].value
    assert found["s", "chrf", None].n == 4
    assert "nrefs:var" in signatures["bleu"]
    perfect = Translations(["turn the lamp on"], [["turn the lamp on"]])
    rows, _ = scores.translation_metrics("s", "1/1", {0: perfect})
    assert {round(row.value, 6) for row in rows} == {100.0}


def test_a_missing_translation_counts_as_empty(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    asked = pa.table({"id": names, "references": [["put it on"], ["stop it right here", "halt"], ["go"]]})
    made = pa.table({"id": ["b"], "target": ["stop it right here"]})
    given, wanted = (
        seal_tables(str(tmp_path / name), name, [table]) for name, table in (("made", made), ("asked", asked))
    )
    found = scores.read_translations(given, scores.read_references(wanted))
    assert found == Translations(
        ["", "stop it right here", ""], [["put it on"], ["stop it right here", "halt"], ["go"]]
    )
    rows, _ = scores.translation_metrics("s", "1/1", {0: found})
    assert [(row.n, 0 < row.value < 100) for row in rows if row.seed is None] == [(3, True), (3, True)]
    rows, _ = scores.translation_metrics("s", "1/1", {0: Translations([""] * 3, found.references)})
    assert {(row.value, row.low, row.high) for row in rows} == {(0, 0, 0)}
