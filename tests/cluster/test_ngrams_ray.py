"""Distributed estimation of n-gram models on Ray: the bytes of one process, whatever the workers and their deaths."""

from __future__ import annotations

from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import LanguageModelSettings, ngram_job
from gristmill.pipelines.text.ngrams_distributed import build_vocabulary, train_ngrams_distributed
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.receipt import Receipt
from tests.models.ngrams.kneser_ney import sample

pytestmark = pytest.mark.usefixtures("ray_session")
SETTINGS = LanguageModelSettings(order=3, prune=(0, 0, 1), memory=1 << 24)
PARTS = 5


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[SealedSet, str]]:
    rows = [{"id": f"{n:05d}", "text": " ".join(words)} for n, words in enumerate(sample(7, 2000))]
    shards = [pa.Table.from_pylist(rows[n : n + 100]) for n in range(0, len(rows), 100)]
    return [(seal_tables(str(tmp_path_factory.mktemp("texts")), "texts", shards), "text")]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[SealedSet, str]]) -> Artifact:
    return build_vocabulary(Run(str(tmp_path_factory.mktemp("words")), InProcessRunner()), "vocabulary", texts, 60)


class Killer(RunProgress):
    """Kills all workers once the first part of a step is committed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.killed = name, 0
        self.current = ""

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        self.current = name
        super().begin(name, shards, done, records)

    def advance(self, receipt: Receipt) -> None:
        super().advance(receipt)
        if self.current == self.name and not self.killed:
            workers = [
                p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::WarmStageActor")
            ]
            for worker in workers:
                worker.kill()
            self.killed = len(workers)


@pytest.mark.parametrize(
    ("workers", "killed"),
    [
        pytest.param(1, None, marks=pytest.mark.slow),
        (2, "lm_merged"),
        pytest.param(4, "lm_contexts", marks=pytest.mark.slow),
    ],
)
def test_one_model_whatever_the_workers(
    tmp_path: Path, texts: list[tuple[SealedSet, str]], vocabulary: Artifact, workers: int, killed: str | None
) -> None:
    alone = Run(str(tmp_path / "alone"), InProcessRunner()).train(ngram_job("lm", texts, vocabulary, SETTINGS))
    killer = Killer(killed or "none")
    run = Run(str(tmp_path / "out"), RayRunner(workers), progress=killer)
    spread = train_ngrams_distributed(run, "lm", texts, vocabulary, SETTINGS, parts=PARTS)
    assert spread.read("lm.arpa") == alone.read("lm.arpa")
    assert bool(killer.killed) == bool(killed)
