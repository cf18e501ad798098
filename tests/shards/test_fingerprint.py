"""Changes that alter a step's fingerprint (law 5), and those that must not."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from gristmill.shards.dataset import seal_tables
from gristmill.shards.index import Cut
from gristmill.shards.stage import ArtifactRef, BatchLimits, Resources
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, upper


@pytest.fixture
def step(tmp_path) -> Step:
    stage = replace(upper(), artifacts={"model": ArtifactRef("/somewhere", "digest")})
    return Step("s", (stage,), seal_tables(str(tmp_path / "in"), "in", [texts(4)]), cut=Cut(rows=2))


def staged(step: Step, **changes: object) -> Step:
    return replace(step, stages=(replace(step.stages[0], **changes),))  # type: ignore[arg-type]


CHANGES = {
    "version": {"version": 2},
    "parameter": {"params": {"width": 2}},
    "artifact": {"artifacts": {"model": ArtifactRef("/somewhere", "other")}},
    "batch": {"batch": BatchLimits(rows=4)},
    "column": {"adds": (pa.field("upper", pa.large_string()),)},
    "metadata": {"metadata": {"key": "value"}},
}
SAME = {
    "workers": {"resources": Resources(cpus=2.0, max_workers=7)},
    "place of the artifact": {"artifacts": {"model": ArtifactRef("/elsewhere", "digest")}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_setting_of_the_result_changes_it(step: Step, change: dict[str, object]) -> None:
    assert staged(step, **change).fingerprint(0) != step.fingerprint(0)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_place_and_workers_do_not_change_it(step: Step, change: dict[str, object]) -> None:
    assert staged(step, **change).fingerprint(0) == step.fingerprint(0)


def test_the_input_and_the_cut_change_it(step: Step, tmp_path) -> None:
    other = seal_tables(str(tmp_path / "other"), "in", [texts(4, {0: "x"})])
    same = seal_tables(str(tmp_path / "copy"), "in", [texts(4)])
    assert replace(step, input=other).fingerprint(0) != step.fingerprint(0)
    assert replace(step, input=same).fingerprint(0) == step.fingerprint(0)
    assert replace(step, cut=Cut(rows=3)).fingerprint(0) != step.fingerprint(0)


def test_the_seed_counts_only_for_random_stages(step: Step) -> None:
    assert step.fingerprint(0) == step.fingerprint(1)
    drawn = staged(step, seeded=True)
    assert drawn.fingerprint(0) != drawn.fingerprint(1)
