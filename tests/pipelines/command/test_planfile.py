"""The plan that a run keeps while it works, and what the status tells by it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command import planfile
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.command.leasing import leased
from gristmill.pipelines.command.plan import make_plan
from gristmill.pipelines.command.planfile import PlanKeeper, estimate, read_plan, write_plan
from gristmill.pipelines.command.status import StatusReader
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.shards import checked
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import later
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, twice, upper


class Stop(Exception):
    pass


class Seeded(Settings):
    seed: int = 0


def walked(settings, context, *, data):
    return {"files": {"n.txt": str(settings.seed).encode()}}


def declare(run: Run, fail: bool) -> None:
    """Two steps and two trainings, with an artifact between them that may stop the run."""
    listed = run.table("texts", texts(6))
    loud = run.step(Step("upper", (upper(),), listed))

    def count(url: str) -> dict[str, bytes]:
        if fail:
            raise Stop
        return {"n.txt": str(loud.records).encode()}

    counted = run.artifact("count", count, {}, [loud])
    copies = run.step(Step("copies", (twice(),), loud))
    for seed in (0, 1):
        run.train(TrainJob("model", walked, Seeded(seed=seed), {"data": copies}))
    assert counted.files


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    with pytest.raises(Stop), leased(run, lambda: None, PlanKeeper(run, "settings")):
        declare(run, fail=True)
    return tmp_path / "out"


def nodes(out: Path) -> list[dict[str, Any]]:
    return (read_plan(str(out)) or {})["run"]["nodes"]


def test_a_stopped_run_has_left_its_plan(stopped: Path) -> None:
    assert [(one["name"], one["state"], one["inputs"]) for one in nodes(stopped)] == [
        ("texts", "done", []),
        ("upper", "done", [0]),
        ("count", "under way", [1]),
        ("copies", "to do", [1]),
        ("model", "to do", [3]),
        ("model", "to do", [3]),
    ]
    assert [one.get("rows") for one in nodes(stopped)[:3]] == [6, 6, None]
    assert all(one["seconds"] > 0 for one in nodes(stopped)[:2])
    assert nodes(stopped)[1]["stages"] == ["upper"]
    assert read_plan(str(stopped))["run"]["over"] is False
    assert StatusReader(str(stopped)).read().whole.line().startswith("whole run: 2 of 6 done (more may come), ")


def test_all_that_is_declared_is_in_it_before_it_is_made(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    seen: list[list[tuple[str, str]]] = []

    def look(url: str) -> dict[str, bytes]:
        until = time.monotonic() + 20
        while time.monotonic() < until:  # it is written by a thread
            plan = (read_plan(run.out) or {}).get("run", {"nodes": []})
            if any(one["state"] == "under way" for one in plan["nodes"]):
                seen.append([(one["name"], one["state"]) for one in plan["nodes"]])
                break
            time.sleep(0.05)
        return {"n.txt": b"1"}

    with leased(run, lambda: None):
        listed = run.table("texts", texts(6))
        count = run.artifact("count", look, {}, [listed])
        for seed in (0, 1):
            run.train(TrainJob("model", walked, Seeded(seed=seed), {"data": listed}))
        assert count.files
    assert seen == [[("texts", "done"), ("count", "under way"), ("model", "to do"), ("model", "to do")]]
    assert threading.active_count() == len([one for one in threading.enumerate() if one.name != "plan"])


def test_a_fault_of_what_is_told_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    run = Run(str(tmp_path / "out"), InProcessRunner())
    monkeypatch.setattr(run.progress, "say", said.append)
    monkeypatch.setattr(planfile.Outline, "nodes", lambda *_: 1 / 0)
    with leased(run, lambda: None):
        declare(run, fail=False)
        run.finish()
    assert len(run.trace) == 6
    assert said == [
        "plan.json: how far the run is cannot be kept (ZeroDivisionError: division by zero); the run goes on"
    ]


def test_equal_results_are_told_once(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    with leased(run, lambda: None):
        listed = run.table("texts", texts(6))
        first, second = (run.step(Step("upper", (upper(),), listed)) for _ in range(2))
        assert second.records == first.records  # the one declared last is made first
        run.finish()
    told = [(one["kept"], one["seconds"] > 0) for one in nodes(tmp_path / "out")]
    assert told == [(False, True), (False, True), (True, False)]


def test_what_comes_later_is_in_it(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    listed = run.table("texts", texts(6))
    loud = run.step(Step("upper", later(lambda listed: (upper(listed.records),), listed), listed))
    again = run.step(Step("again", (later(lambda loud: upper(loud.records), loud),), listed))
    run.train(TrainJob("model", walked, later(lambda one: Seeded(seed=one.records), again), {"data": loud}))
    found = planfile.Outline(run.plan, run.out, {}).nodes({}, {})
    assert [one["inputs"] for one in found] == [[], [0], [0, 1], [1, 2]]
    assert [one["of"] for one in found] == [[], [[0]], [[0]], [[1]]]
    assert [one["stages"] for one in found] == [[]] * 4


def test_the_share_is_told_to_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, float]] = []
    monkeypatch.setattr(planfile, "tell_progress", lambda run, share: heard.append((run, share)))
    run = Run(str(tmp_path / "out"), InProcessRunner())
    with leased(run, lambda: None):
        declare(run, fail=False)
        run.finish()
    assert heard[-1] == ("out", 1.0)
    assert all(0 <= share <= 1 for _, share in heard)
    assert run.progress.agenda.left == 0.0


def test_seconds_of_earlier_calls_are_kept(stopped: Path) -> None:
    before = {one["name"]: one["seconds"] for one in nodes(stopped) if one["state"] == "done"}
    run = Run(str(stopped), InProcessRunner())
    with leased(run, lambda: None, PlanKeeper(run, "settings")):
        declare(run, fail=False)
        run.finish()
    after = nodes(stopped)
    assert [one["state"] for one in after] == ["done"] * 6
    assert [one["kept"] for one in after] == [True, True, False, False, False, False]
    assert {one["name"]: one["seconds"] for one in after[:2]} == before
    assert after[4]["of"] == [[3]]
    assert read_plan(str(stopped))["run"]["over"] is True


def test_a_run_with_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        run = Run(str(tmp_path / "out"), InProcessRunner())
        with leased(run, lambda: None):
            run.table("texts", texts(6))
            run.finish()
        written = (tmp_path / "out" / "plan.json").stat().st_mtime_ns
    assert (tmp_path / "out" / "plan.json").stat().st_mtime_ns == written
    assert read_plan(str(tmp_path / "out"))["run"]["nodes"][0]["kept"] is False


def test_a_mistake_before_any_result_leaves_nothing(tmp_path: Path) -> None:
    def refuse():
        raise UserError("texts: not there")
        yield pa.table({})

    run = Run(str(tmp_path / "out"), InProcessRunner())
    run.source("texts", refuse, {})
    with pytest.raises(UserError), leased(run, lambda: None):
        run.finish()
    assert not (tmp_path / "out").exists()


def test_estimate_and_run_are_kept_beside_each_other(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_plan(load(str(recipe)))
    first = estimate(str(out))
    carry_out(load(str(recipe)), RunProgress())
    assert estimate(str(out)) == first
    write_plan(str(out), {"estimate": {"seconds": 1.0}})
    assert estimate(str(out)) == {"seconds": 1.0}
    assert [one["name"] for one in nodes(out)] == ["texts", "upper", "copies", "count"]


def test_a_plan_of_another_shape_is_damaged(stopped: Path) -> None:
    plan = read_plan(str(stopped))
    plan["run"]["nodes"][0]["inputs"] = "texts"
    (stopped / "plan.json").write_bytes(checked.encode("estimate", plan))
    with pytest.raises(Damaged, match=r"run\.nodes\.0\.inputs"):
        read_plan(str(stopped))


def told(out: Path, **changes: Any) -> str:
    """The line of the whole run, with some of the plan that was kept changed."""
    plan = read_plan(str(out))
    (out / "plan.json").write_bytes(checked.encode("estimate", {**plan, **changes}))
    return StatusReader(str(out)).read().whole.line()


def test_the_status_tells_the_share_without_an_estimate(stopped: Path) -> None:
    """Of two like trainings one is done; the clock has shown 110 s so far."""
    run = Run(str(stopped), InProcessRunner())
    with leased(run, lambda: None, PlanKeeper(run, "settings")):
        declare(run, fail=False)
        run.finish()
    plan = read_plan(str(stopped))["run"]
    took = {"texts": 5.0, "upper": 10.0, "count": 5.0, "copies": 20.0, "model": 70.0}
    for one in plan["nodes"]:
        one |= {"seconds": took[one["name"]], "kept": False}
    lost = plan["nodes"][5]
    for path in (stopped / lost["path"]).rglob("artifact.json"):
        path.unlink()
    ended = {"begun": time.time() - 110, "at": time.time(), "over": False}
    line = told(stopped, run={**plan, **ended})
    assert line == "whole run: 5 of 6 done (more may come), 61%, about 1 min 15 s to go by what was made so far"
    model = {"name": "model", "kind": "training", "seconds": 60.0, "workers": 1, "inputs": []}
    line = told(stopped, run={**plan, **ended, "settings": "s"}, settings="s", results=[model] * 3, rest=20.0)
    assert line.startswith("whole run: 5 of 7 done, ")
