from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.pipelines.command.plan import make_plan
from gristmill.pipelines.command.sampling import Spread
from gristmill.pipelines.config import load


def lines(recipe: Path, *overrides: str, sample: int = 10) -> dict:
    plan = make_plan(load(str(recipe), overrides), sample)
    return {line.name: line for line in plan.lines}


def test_amounts_are_scaled_by_true_counts(recipe: Path) -> None:
    found = lines(recipe, "records=400", sample=300)
    assert found["texts"].rows == 400
    assert found["texts"].total == 40
    # Of the 300 sampled one is dropped and one breaks.
    kept = 400 * 298 / 300
    assert found["upper"].rows == pytest.approx(kept)
    assert (found["upper"].done, found["upper"].total) == (0, 100)
    assert found["copies"].rows == pytest.approx(2 * kept)
    assert found["copies"].hours * 3600 == pytest.approx(4 * kept)
    assert found["copies"].bytes > 0
    assert found["upper"].cpu > 0


def test_nothing_is_done_but_the_estimate_kept(recipe: Path, tmp_path: Path) -> None:
    lines(recipe)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["plan.json"]


def test_finished_steps_need_no_time(gristmill, recipe: Path, tmp_path: Path) -> None:
    gristmill("run", recipe)
    done = lines(recipe)
    assert all(line.left == 0 for line in done.values())
    assert done["upper"].rows == 18
    shown = gristmill("plan", recipe).stdout
    assert "nothing to do" in shown
    changed = lines(recipe, "shape.width=2")
    assert (changed["texts"].left, changed["upper"].left, changed["copies"].left) == (0, 1, 1)


def test_shards_of_a_run_under_way_are_counted(gristmill, recipe: Path, tmp_path: Path) -> None:
    gristmill("run", recipe)
    folder = next((tmp_path / "out" / "upper").iterdir())
    (folder / "seal.json").unlink()
    (folder / "receipts" / "000003.json").unlink()
    found = lines(recipe)["upper"]
    assert (found.done, found.total) == (4, 5)


def test_the_cost_is_hours_times_prices(recipe: Path) -> None:
    plan = make_plan(load(str(recipe), ["price.cpu_hour=3600"]), 10)
    assert plan.cost == pytest.approx(sum(line.cpu for line in plan.lines))
    assert plan.priced
    assert make_plan(load(str(recipe)), 10).cost == 0


def test_the_report_compares_the_plan_with_measurements(gristmill, recipe: Path, tmp_path: Path) -> None:
    shown = gristmill("plan", recipe, "--sample", 10, "--cpu-hour", "2").stdout
    assert "in total about" in shown
    assert "cost 0.00" in shown
    gristmill("run", recipe)
    plan = json.loads((tmp_path / "out" / "report.json").read_bytes())["plan"]
    assert plan["estimate"]["upper"]["seconds"] > 0
    assert plan["actual"]["upper"]["seconds"] > 0
    assert "Plan and actual" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("rows", "wanted", "parts"), [(1000, 48, 7), (30, 48, 1), (48, 48, 3), (97, 48, 97), (0, 48, 1)]
)
def test_a_sample_is_spread_over_all_there_is(rows: int, wanted: int, parts: int) -> None:
    spread = Spread(wanted)
    for part in np.array_split(np.arange(rows), parts):
        spread.add(pa.table({"id": pa.array(part, pa.int64())}))
    kept = pa.concat_tables(spread.kept())["id"].to_pylist()
    assert (spread.rows, spread.tables) == (rows, parts)
    assert len(kept) == min(rows, wanted)
    assert kept == sorted(set(kept))
    if rows > wanted:
        assert max(np.diff([0, *kept, rows])) <= 4 * rows / wanted
