from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from pydantic import BaseModel

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command import sampling
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.command.plan import make_plan, show_plan
from gristmill.pipelines.command.sampling import SampledRun
from gristmill.pipelines.command.trial import Spread, _seconds_a_step
from gristmill.pipelines.config import Common, Loaded, load
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import Alarm, GristmillError, UserError
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainContext, TrainJob
from gristmill.shards.plan import later
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step
from tests.pipelines import tiny


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


class Halves(BaseModel):
    """The settings of a recipe that parts a source in two, and goes on with the first part."""

    records: int = 200
    fail: str = ""
    least: int = 0


def run_halves(config: Halves, run: Run) -> Report:
    """Run that recipe."""
    listed = run.source("texts", lambda: iter([tiny.texts(config.records)]), {"records": config.records})
    shaped = run.step(Step("upper", (tiny.upper(),), listed, cut=Cut(rows=50)))

    def part(first: int) -> Iterator[pa.Table]:
        for table in shaped.tables():
            yield table.take([row for row in range(table.num_rows) if (row % 4 < 3) == bool(first)])

    names = {"split_most": 1, "split_rest": 0}
    parts = {
        name: run.source(name, partial(part, first), {"of": shaped, "first": first}, of=shaped)
        for name, first in names.items()
    }
    if config.fail == "UserError" or parts["split_rest"].records < config.least:
        raise UserError(f"split: {parts['split_rest'].records} records; expected {config.least}")
    if config.fail:
        raise {"KeyError": KeyError, "Alarm": Alarm}[config.fail]("not right")
    run.step(Step("copies", (tiny.twice(),), parts["split_most"]))
    return Report(title="Halves", recipe={"name": "halves"})


def halves(tmp_path: Path, **settings: Any) -> Loaded:
    module: Any = ModuleType("halves")
    module.Config, module.run = Halves, run_halves
    common = Common(recipe="halves", out=str(tmp_path / "out"), runner="inprocess")
    return Loaded("halves", module, common, Halves(**settings))


def test_what_is_made_of_a_sampled_set_is_scaled_with_it(tmp_path: Path) -> None:
    found = {line.name: line for line in make_plan(halves(tmp_path, records=400), 40).lines}
    assert found["split_most"].rows == pytest.approx(300)
    assert found["split_rest"].rows == pytest.approx(100)
    assert found["split_most"].total == found["upper"].total == 8
    assert found["copies"].rows == pytest.approx(600)


def test_a_sample_that_is_too_small_is_made_larger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(halves(tmp_path, records=400, least=50), 40)
    assert plan.sample == 320
    assert plan.lines[-1].name == "copies"
    assert "up to 40 records" in (said := capsys.readouterr().err)
    assert "up to 320 records" in said


@pytest.mark.parametrize(
    ("fail", "kind", "said"),
    [
        ("UserError", UserError, "split: 77 records"),
        ("Alarm", GristmillError, "not right"),
        ("KeyError", GristmillError, r"KeyError: .not right. \(.*test_plan.py, line \d+\): "),
    ],
)
def test_a_recipe_that_fails_has_no_plan(tmp_path: Path, fail: str, kind: type[GristmillError], said: str) -> None:
    with pytest.raises(GristmillError) as caught:
        make_plan(halves(tmp_path, records=400, fail=fail), 40)
    assert type(caught.value) is kind
    assert re.match(said, caught.value.args[0])
    assert "tried on up to 320 records of each source, after split_rest" in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(GristmillError, match="tried on all records"):  # all there are: no more are tried
        make_plan(halves(tmp_path, records=400, fail=fail), 1000)


def test_evaluations_count_once_an_epoch() -> None:
    # Steps of 1 s; after each second one an evaluation of 3 s, and one at the end of the trial.
    at = [(1.0, False), (5.0, True), (6.0, False), (10.0, True), (11.0, False), (15.0, True)]
    assert _seconds_a_step(at) == pytest.approx(1 + 3 / 2)
    # An epoch that is longer than the trial: only its own end has one.
    assert _seconds_a_step([(1.0, False), (2.0, False), (3.0, False), (7.0, True)]) == pytest.approx(1)
    assert _seconds_a_step([(1.0, False)]) == 0.0


def test_what_ray_takes_beside_the_work_is_in_the_plan(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_WARM", 50.0)
    found = lines(recipe, "runner=ray", "workers=1", sample=2)
    assert found["upper"].wall > found["upper"].cpu + 49.0
    assert found["copies"].wall > 49.0


def test_the_graph_tells_what_is_made_of_what(gristmill, recipe: Path, tmp_path: Path) -> None:
    def table() -> dict[str, list[str]]:
        shown = gristmill("plan", recipe, "--sample", 10).stdout.splitlines()
        lines = (re.split(r"\s{2,}", line) for line in shown[: shown.index(next(x for x in shown if "in total" in x))])
        return {name: [*rest] for name, *rest in lines}

    found = table()
    assert [(name, *row[:2], row[-1]) for name, row in found.items() if name in ("upper", "copies", "count")] == [
        ("upper", "step", "to do", "texts"),
        ("copies", "step", "to do", "upper"),
        ("count", "artifact", "to do", "copies"),
    ]
    gristmill("run", recipe)
    folder = next((tmp_path / "out" / "upper").iterdir())
    (folder / "seal.json").unlink()
    (folder / "receipts" / "000003.json").unlink()
    assert {name: row[1] for name, row in table().items()} == {
        "result": "state",
        "texts": "done",
        "upper": "under way",
        "copies": "to do",
        "count": "to do",
    }


def test_what_depends_on_what_is_read_is_unknown_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe reads how many records a part has, and goes on by that."""
    loaded = halves(tmp_path, records=400, least=1)
    plan = make_plan(loaded, 40)
    states = {node.name: node.state for node in plan.nodes}
    assert states == dict.fromkeys(("texts", "upper", "split_most", "split_rest"), "to do") | {"copies": "unknown yet"}
    show_plan(plan)
    assert "unknown yet: what else there is, and how much, is known when split_rest is made" in capsys.readouterr().out
    carry_out(loaded, RunProgress())
    plan = make_plan(loaded, 40)
    assert {node.state for node in plan.nodes} == {"done"}
    assert plan.awaited == []


@pytest.mark.parametrize(("name", "begins"), [("plan.svg", "<svg xmlns="), ("plan.mmd", "flowchart TD\n")])
def test_the_graph_is_drawn(gristmill, recipe: Path, tmp_path: Path, name: str, begins: str) -> None:
    made = gristmill("plan", recipe, "--sample", 10, "--graph", tmp_path / name)
    assert f"graph: {tmp_path / name}" in made.stdout
    drawn = (tmp_path / name).read_text()
    assert drawn.startswith(begins)
    assert all(one in drawn for one in ("texts", "upper", "copies", "count"))


def test_another_picture_is_refused_before_any_work(gristmill, recipe: Path, tmp_path: Path) -> None:
    made = gristmill("plan", recipe, "--graph", tmp_path / "plan.png")
    assert made.exit_code == 2
    assert "plan.png: expected a name that ends with .svg or .mmd" in made.stderr


def model(settings: Settings, context: TrainContext, *, data: str, start: str) -> dict[str, Any]:
    """Train as loops with optimiser steps do in a trial."""
    for _ in range(context.trial_steps or 0):
        context.report({"phase": 0, "phase_steps": 100.0})
    return {"files": {}, "steps": context.trial_steps}


def fit(settings: Settings, context: TrainContext, *, data: str, models: Sequence[str] = ()) -> dict[str, Any]:
    """Fit in one go."""
    return {"files": {}, "steps": context.trial_steps}


def test_a_fit_knows_whether_a_model_before_it_stopped_early(tmp_path: Path) -> None:
    """Otherwise what fails in it would fail in the whole run, too."""
    run = SampledRun(str(tmp_path / "out"), InProcessRunner(), real=str(tmp_path / "real"))
    given = {"data": run.table("texts", tiny.texts(4))}
    before = run.train(TrainJob("before", loop=fit, inputs=given, stepwise=False))
    started = given | {"start": before}
    models = [run.train(TrainJob("model", loop=model, inputs=started, version=version)) for version in (1, 2)]
    after = run.train(TrainJob("after", loop=fit, inputs=given | {"models": models}, stepwise=False))
    run.finish()
    steps = [json.loads(made.read("training.json"))["steps"] for made in (before, *models, after)]
    assert steps == [None, 6, 1, 6]


class Share(NamedTuple):
    of: SealedSet
    share: float


class Sized(Settings):
    rows: int = 0


def test_what_depends_on_a_result_is_found_whatever_the_sample(tmp_path: Path) -> None:
    """A stage, settings and an identity with the number of rows of a set, of which the sample has fewer."""

    def declare(run: Run) -> None:
        listed = run.table("texts", tiny.texts(9))
        size = later(lambda made: Sized(rows=made.records), listed)
        loud = run.step(Step("upper", (later(lambda made: tiny.upper(made.records), listed),), listed))
        run.train(TrainJob("before", fit, size, {"data": loud}, stepwise=False))
        identity = {"rows": later(lambda made: made.records, listed), "part": Share(listed, 0.5)}
        run.artifact("count", lambda url: {"n.txt": b"1"}, identity, [loud])
        run.finish()

    declare(Run(str(tmp_path / "real"), InProcessRunner()))
    plan = SampledRun(str(tmp_path / "out"), InProcessRunner(), real=str(tmp_path / "real"), sample=4)
    declare(plan)
    assert {line.name: line.left for line in plan.lines.values()} == dict.fromkeys(
        ("texts", "upper", "before", "count"), 0.0
    )


def replayed(settings: Settings, context: TrainContext, *, data: Any, more: Any = None) -> dict[str, Any]:
    """Train as loops with optimiser steps do in a trial."""
    for step in range(context.trial_steps or 0):
        time.sleep(0.02 * (step > 0))
        context.report({"phase": 0, "phase_steps": 100.0})
    return {"files": {}}


def test_a_training_grows_as_what_it_passes_over(tmp_path: Path) -> None:
    """Of 4,000 general texts, half as many are replayed as there are texts of the domain."""
    run = SampledRun(str(tmp_path / "out"), InProcessRunner(), real=str(tmp_path / "real"), sample=40)
    own, general = (
        run.source(name, partial(lambda number: iter([tiny.texts(number)]), number), {"number": number})
        for name, number in (("own", 80), ("general", 4000))
    )
    data = later(lambda few, many: [(few, 1.0), (many, min(1.0, 0.5 * few.records / many.records))], own, general)
    run.train(TrainJob("tuned", replayed, inputs={"data": data}))
    run.train(TrainJob("both", replayed, inputs={"data": [own, general]}))
    run.train(TrainJob("beside", replayed, inputs={"data": [], "more": {"text": general, "audio": general}}))
    run.finish()
    found = {line.name: line.wall for line in run.lines.values()}
    for name in ("both", "beside"):
        found[name] /= run.tried[name]
    assert found["both"] == pytest.approx((80 + 4000) / (40 + 40)), "not as the set that grows most"
    assert found["beside"] == pytest.approx(4000 / 40), "columns of one"
    assert 4.0 <= found["tuned"] < 8.0, "100 steps of 20 ms, twice as many for 80 and 40 texts as for 40 and 20"
