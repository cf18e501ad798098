"""A choice of requests in two rounds on Ray: the same sets and artifacts as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.models.requests.diversity import DiversitySettings
from gristmill.pipelines.requests.diversity import choose
from gristmill.pipelines.run import Run
from gristmill.pipelines.scheduler import Cluster
from gristmill.shards.dataset import seal_tables
from tests.actors.requests.test_diversity import table

pytestmark = pytest.mark.usefixtures("ray_session")


def made(out: Path, cluster: Cluster) -> dict[str, str]:
    run, pool = Run(str(out), cluster), table(300)
    candidates = seal_tables(str(out / "pool"), "pool", [pool.slice(at, 60) for at in range(0, 300, 60)])
    seeds = run.table("seeds", table(7, seed=3).select(["id", "tokens", "embedding"]))
    for selector in ("unsure_facility", "coverage", "k_centre", "least_sure"):
        how = DiversitySettings(selector=selector, count=20, round_rows=80, ground_rows=100)
        choose(run, selector, candidates, how, None if selector == "least_sure" else seeds)
    run.finish()
    return {trace.name: trace.digest for trace in run.trace}


@pytest.mark.slow
def test_a_choice_is_the_same_on_ray(tmp_path: Path) -> None:
    here = made(tmp_path / "here", InProcessRunner())
    assert made(tmp_path / "ray", RayRunner(2)) == here
    assert len(here) == 17
