"""A long recording cut by several workers: the same utterances, byte for byte, as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from gristmill.actors.speech.ingest import Load, LoadSettings
from gristmill.actors.speech.quality import Quality
from gristmill.actors.speech.segment import Segment, SegmentSettings, plan_ranges
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.scheduler import Cluster
from gristmill.shards.audit import audit_below
from gristmill.shards.index import Cut
from gristmill.shards.step import Step
from tests.actors.speech.test_segment import RATE, probed, spoken, told

pytestmark = pytest.mark.usefixtures("ray_session")


def made(out: Path, cluster: Cluster, place: Path) -> str:
    run = Run(str(out), cluster)
    ranges = run.source("ranges", lambda: iter([plan_ranges(probed(place))]), {"v": 1})
    stages = Segment.stage(SegmentSettings(method="energy")), Load.stage(LoadSettings(annotated=False)), Quality.stage()
    utterances = run.step(Step("utterances", stages, ranges, cut=Cut(seconds=600, bytes=1 << 62)))
    assert len(utterances.shards) == 4
    assert utterances.records > 100
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    return utterances.digest


@pytest.mark.slow
def test_a_recording_of_four_ranges_is_the_same_on_ray(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    block = spoken(told(580.0), 590.0)
    with soundfile.SoundFile(tmp_path / "raw" / "a.flac", "w", RATE, 1) as sound:
        for _ in range(4):
            sound.write(block)
    wanted = made(tmp_path / "here", InProcessRunner(), tmp_path / "raw")
    assert [made(tmp_path / f"ray{n}", RayRunner(n), tmp_path / "raw") for n in (2, 4)] == [wanted, wanted]
