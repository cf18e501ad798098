"""Workers on Ray compute with the run's instruction set, or are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards import processor
from gristmill.shards.engine import run_step
from gristmill.shards.errors import UserError
from tests.fault.law_actors import corpus, law_step

pytestmark = pytest.mark.usefixtures("ray_session")


def pinned() -> dict[str, str | None]:
    import numpy  # noqa: F401

    processor.check()
    return {name: os.environ.get(name) for name in processor.variables(processor.DEFAULT)}


def test_workers_inherit_the_pin_before_they_load_anything() -> None:
    import ray

    assert ray.get(ray.remote(pinned).remote()) == processor.variables(processor.level())


def test_a_worker_that_cannot_keep_the_level_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(str(tmp_path / "in"), 1)
    monkeypatch.setattr(processor, "_level", "x86-64-v4")
    with pytest.raises(UserError, match="x86-64-v4 was expected"):
        run_step(law_step(source), str(tmp_path), RayRunner(1), 1)
    assert not list(tmp_path.rglob("seal.json"))[1:]  # but that of the source
