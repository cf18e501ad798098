"""Folds: equal texts share a fold, shares are kept, and only the seed and the text matter."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from gristmill.actors.nlu.folds import TEST, Folds, FoldSettings, normalised
from gristmill.shards.errors import SettingsError


def drawn(texts: list[str], seed: int = 0, parts: list[str | None] | None = None, **settings: object) -> list[int]:
    columns = {"id": [str(n) for n in range(len(texts))], "text": texts}
    batch = pa.table(columns | ({"part": pa.array(parts, pa.string())} if parts else {}))
    out = Folds.stage(FoldSettings(**settings)).build(seed)(batch)
    assert out.schema.field("fold").type == pa.int32()
    return out["fold"].to_pylist()


def test_shares_are_kept_and_folds_are_even() -> None:
    counts = Counter(drawn([f"text {n}" for n in range(6000)], folds=3, test_share=0.25))
    assert set(counts) == {TEST, 0, 1, 2}
    assert counts[TEST] == pytest.approx(1500, abs=150)
    for fold in range(3):
        assert counts[fold] == pytest.approx(1500, abs=150)


def test_equal_texts_share_a_fold() -> None:
    texts = [f"{way} the light {n}" for n in range(50) for way in ("dim", "Dim", " dim,", "d'im")]
    found = drawn(texts)
    assert all(len({*found[place : place + 4]}) == 1 for place in range(0, 200, 4))
    assert drawn(texts[::-1]) == found[::-1]


def test_another_seed_is_another_cut_and_another_share_moves_no_fold() -> None:
    texts = [f"text {n}" for n in range(500)]
    assert drawn(texts, seed=1) == drawn(texts, seed=1) != drawn(texts, seed=2)
    whole = drawn(texts, test_share=0.0)
    assert TEST not in whole
    assert all(some in (TEST, fold) for some, fold in zip(drawn(texts, test_share=0.5), whole, strict=True))


def test_a_part_that_is_for_test_decides() -> None:
    found = drawn(["a", "b", "c"], test_share=0.0, parts=["test", None, "train"])
    assert found[0] == TEST
    assert TEST not in found[1:]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's  the TIME?", "whats the time"),
        ("wake-me at 9:30 a.m.", "wake me at 9 30 a m"),
        ("बत्ती  जलाओ।", "बत्ती जलाओ"),
        ("ｆｕｌｌ ﬁne", "full fine"),
        ("?!", ""),
    ],
)
def test_texts_are_compared_as_words(text: str, expected: str) -> None:
    assert normalised(text) == expected == normalised(expected)


def test_folds_that_cannot_be_are_refused() -> None:
    for settings in ({"folds": 1}, {"test_share": 1.0}, {"test_share": -0.1}):
        with pytest.raises(SettingsError, match=r"folds|test_share"):
            FoldSettings(**settings)
