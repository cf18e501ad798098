"""Parts and samples are drawn by ids, columns are those that a selector reads, and what was not chosen is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.requests.choice_scores import ChoiceScore, KeepScored
from gristmill.actors.requests.diversity import (
    CHOSEN,
    GROUND,
    NOT_CHOSEN,
    ChoosePart,
    Chosen,
    DiversityRound,
    Scatter,
    columns_of,
    rows_of,
    sample_ground,
)
from gristmill.models.requests.diversity import DiversitySettings, choose_rows
from gristmill.shards import canonical
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import UserError
from gristmill.shards.stage import GROUP
from tests.models.requests.diverse_rows import DIM, requests


def table(number: int, seed: int = 0) -> pa.Table:
    rows = requests(number, seed)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.embeddings.ravel()), DIM)
    columns = {"id": rows.ids, "tokens": pa.array(rows.tokens, pa.list_(pa.string())), "embedding": vectors}
    return pa.table(columns | {"confidence": rows.confidence, "distance": rows.distance})


def wanted(selector: str, rows: int, **given: Any) -> DiversityRound:
    return DiversityRound(**{"selector": selector, "count": 10, "records": rows, **given})


@pytest.mark.parametrize(
    ("selector", "given", "names", "expected"),
    [
        ("random", {}, ["id"], ()),
        ("top", {}, ["id", "distance"], ("distance",)),
        ("least_sure", {}, ["id", "confidence"], ("confidence",)),
        ("coverage", {}, ["id", "text", "tokens", "embedding"], ("tokens",)),
        ("facility_location", {}, ["id", "text", "embedding"], ("embedding",)),
        ("facility_location", {"features": "ngrams"}, ["id", "text", "embedding"], ("text",)),
        ("k_centre", {}, ["id", "text"], ("text",)),
        ("unsure_facility", {}, ["id", "text", "confidence"], ("text", "confidence")),
    ],
)
def test_the_columns_that_a_selector_reads(
    selector: str, given: dict[str, Any], names: list[str], expected: tuple[str, ...]
) -> None:
    assert columns_of(DiversitySettings(selector=selector, count=1, **given), names, "pool") == expected


@pytest.mark.parametrize(
    ("selector", "names", "missing"),
    [
        ("top", ["id", "text"], "top needs distance, and the columns are id, text"),
        ("unsure_coverage", ["id", "text"], "unsure_coverage needs confidence"),
        ("unsure_coverage", ["id"], "unsure_coverage needs tokens or text and confidence"),
        ("coverage", ["id", "embedding"], "coverage needs tokens or text"),
    ],
)
def test_a_column_that_is_missing_is_told(selector: str, names: list[str], missing: str) -> None:
    with pytest.raises(UserError, match=f"^pool: {missing}.*; expected requests with that, or another selector"):
        columns_of(DiversitySettings(selector=selector, count=1), names, "pool")


def test_seeds_need_no_confidence_and_pairs_read_what_there_is() -> None:
    unsure = DiversitySettings(selector="unsure_coverage", count=1)
    assert columns_of(unsure, ["id", "text"], "seeds", seeds=True) == ("text",)
    worst = DiversitySettings(selector="worst_paraphrase", count=1)
    assert columns_of(worst, ["id", "tokens", "embedding"], "pool", pairs=True) == ("tokens", "embedding")
    with pytest.raises(UserError, match="needs tokens or text"):
        columns_of(worst, ["id"], "pool", pairs=True)


def test_what_is_missing_in_a_row_is_not_a_number() -> None:
    given = pa.table(
        {
            "id": ["a", "b", "c"],
            "embedding": pa.array([[1.0, 0.0], None, [0.0, 1.0]], pa.list_(pa.float16(), 2)),
            "confidence": pa.array([0.5, None, 0.25], pa.float32()),
        }
    ).slice(1)
    rows = rows_of(given)
    assert np.isnan(rows.embeddings[0]).all()
    assert rows.embeddings[1].tolist() == [0.0, 1.0]
    assert np.isnan(rows.confidence[0])
    assert rows.tokens is None
    with pytest.raises(UserError, match=r"embedding: its type is list<.*; expected a fixed_size_list of float16"):
        rows_of(pa.table({"id": ["a"], "embedding": [[1.0]]}))


def test_parts_are_drawn_by_seed_and_id() -> None:
    given = table(3000)
    scatter = Scatter(wanted("coverage", 3000, round_rows=800))
    parts = scatter(given)["to"].to_numpy()
    assert np.bincount(parts, minlength=4) == pytest.approx([750] * 4, abs=100)
    order = np.random.default_rng(0).permutation(3000)
    assert (scatter(given.take(order))["to"].to_numpy() == parts[order]).all()
    other = Scatter(wanted("coverage", 3000, round_rows=800, seed=1))(given)["to"].to_numpy()
    assert (other == parts).mean() < 0.35
    assert set(Scatter(wanted("coverage", 3000))(given)["to"].to_pylist()) == {0}


def test_a_ground_sample_is_of_ids(tmp_path: Path) -> None:
    given = table(500)
    how = wanted("facility_location", 500, columns=("embedding",), ground_rows=40)
    order = np.random.default_rng(0).permutation(500)
    found = []
    for name, rows, shard in (("one", given, 500), ("two", given.take(order), 60)):
        url = str(tmp_path / name)
        seal_tables(url, name, [rows.slice(at, shard) for at in range(0, 500, shard)])
        found.append(sample_ground(how, None, data=url))
    assert found[0] == found[1]
    held = pa.ipc.open_file(found[0]["files"][GROUND]).read_all()
    assert (held.num_rows, held.column_names) == (40, ["id", "embedding"])


def test_a_part_chooses_its_share_and_passes_on_what_is_no_more() -> None:
    given = table(60)
    how = wanted("coverage", 30, columns=("tokens",), round_rows=10, oversample=1.2)
    assert (how.parts, how.wanted, how.wanted_of_part) == (3, 10, 4)
    assert how.but(round_rows=15).wanted_of_part == 7, "what two parts choose fits into a round"
    assert how.but(oversample=9).wanted_of_part == 10
    dealt = given.select(["id", "tokens"]).append_column(GROUP.name, pa.array(["0"] * 40 + ["2"] * 3 + ["3"] * 17))
    out = ChoosePart(how)(dealt)
    assert [out["parent_id"].to_pylist().count(part) for part in "023"] == [4, 3, 4]
    first = choose_rows(rows_of(given.slice(0, 40)), 4, how)
    assert out["id"].to_pylist()[:4] == [f"r{place:04d}" for place in first.places.tolist()]
    assert out["gain"].to_pylist()[:4] == first.gains.tolist()
    assert out["place"].to_pylist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]
    assert out["id"].to_pylist()[4:7] == ["r0040", "r0041", "r0042"]


def test_a_part_without_any_that_can_be_chosen_is_rejected() -> None:
    how = wanted("unsure_coverage", 3, columns=("tokens", "confidence"))
    given = table(3).select(["id", "tokens"]).append_column("confidence", pa.nulls(3, pa.float32()))
    out = ChoosePart(how)(given.append_column(GROUP.name, pa.array(["0"] * 3)))
    assert out.select(["id", "parent_id", "reject_reason"]).to_pylist() == [
        {"id": "0", "parent_id": "0", "reject_reason": "no request can be chosen"}
    ]


def test_what_was_not_chosen_is_rejected(tmp_path: Path) -> None:
    url = str(tmp_path / "chosen")
    put_artifact(url, {CHOSEN: canonical.dumps({"ids": ["r0003", "r0001"], "gains": [2.0, 1.0]})}, {})
    out = Chosen(DiversitySettings(selector="top", count=1), url)(table(5))
    assert out["reject_reason"].to_pylist() == [NOT_CHOSEN, None, NOT_CHOSEN, None, NOT_CHOSEN]


@pytest.mark.parametrize("selector", ["random", "top", "least_sure"])
def test_scores_leave_the_distance_of_the_filter(selector: str, tmp_path: Path) -> None:
    how, given = DiversitySettings(selector=selector, count=5, seed=3), table(30)
    score = ChoiceScore(how)(given)["distance"].to_numpy()
    last = np.argsort(score, kind="stable")[4]
    url = str(tmp_path / "threshold")
    limit = {"distance": float(score[last]), "last_id": given["id"][int(last)].as_py(), "kept": 5}
    put_artifact(url, {"threshold.json": canonical.dumps(limit)}, {})
    out = KeepScored(how, url)(given)
    kept = np.flatnonzero(out["reject_reason"].is_null().to_numpy())
    assert kept.tolist() == sorted(np.argsort(score, kind="stable")[:5].tolist())
    assert out["distance"].equals(given["distance"])
    if selector == "least_sure":
        assert score.tolist() == given["confidence"].to_pylist()
