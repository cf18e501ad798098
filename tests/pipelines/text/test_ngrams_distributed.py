from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.actors.text.ngram_parts import MergeCounts, UnitCountSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import LanguageModelSettings, ngram_job
from gristmill.pipelines.text.ngrams_distributed import (
    PART_BYTES,
    build_vocabulary,
    train_ngrams,
    train_ngrams_distributed,
)
from gristmill.shards.artifact import Artifact
from gristmill.shards.audit import audit_set
from gristmill.shards.dataset import SealedSet, find_sealed, seal_tables
from gristmill.shards.errors import UserError
from tests.models.ngrams.kneser_ney import sample

SETTINGS = LanguageModelSettings(order=4, prune=(0, 0, 1), memory=1 << 24)
COLUMNS = ("text", "target")


def seal(url: Path, column: str, seed: int) -> SealedSet:
    rows = [
        {"id": f"{n:05d}", column: " ".join(words) if n % 50 else None, "chosen": n % 3 > 0}
        for n, words in enumerate(sample(seed, 600))
    ]
    return seal_tables(str(url), column, [pa.Table.from_pylist(rows[n : n + 90]) for n in range(0, len(rows), 90)])


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[SealedSet, str]]:
    folder = tmp_path_factory.mktemp("texts")
    return [(seal(folder / column, column, seed), column) for seed, column in enumerate(COLUMNS)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[SealedSet, str]]) -> Artifact:
    """Some words of the text are out of vocabulary, and one word of it is not in the text."""
    run = Run(str(tmp_path_factory.mktemp("vocabulary")), InProcessRunner())
    return build_vocabulary(run, "vocabulary", texts, 60, words=["never"])


@pytest.mark.parametrize("only", [None, "chosen"])
def test_the_vocabulary_of_much_text_is_the_same(
    tmp_path: Path, texts: list[tuple[SealedSet, str]], only: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.pipelines.text.ngrams_distributed.UNIT_BYTES", 1 << 13)
    run = Run(str(tmp_path), InProcessRunner())
    alone = build_vocabulary(run, "vocabulary", texts, 20, ["never"], only)
    monkeypatch.setattr("gristmill.pipelines.text.ngrams_distributed.PART_BYTES", 1 << 20)
    spread = build_vocabulary(run, "vocabulary", texts, 20, ["never"], only, LanguageModelSettings(memory=1 << 24))
    assert spread.read("vocabulary.txt") == alone.read("vocabulary.txt")
    counted = next(trace for trace in run.trace if trace.name == "vocabulary_words")
    assert counted.records > 5
    sealed = find_sealed(counted.url)
    assert sealed is not None
    assert not audit_set(sealed).gaps


@pytest.mark.parametrize(("order", "parts", "only"), [(4, 1, None), (4, 5, "chosen"), (3, 3, None), (2, 2, None)])
def test_bytes_of_one_process(
    tmp_path: Path,
    texts: list[tuple[SealedSet, str]],
    vocabulary: Artifact,
    order: int,
    parts: int,
    only: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "gristmill.pipelines.text.ngrams_distributed.UNIT_BYTES", 1 << 13
    )  # units of 2 kB: several, and cut shards
    settings = LanguageModelSettings(order=order, prune=SETTINGS.prune[:order], memory=SETTINGS.memory)
    run = Run(str(tmp_path), InProcessRunner())
    alone = run.train(ngram_job("alone", texts, vocabulary, settings, only))
    spread = train_ngrams_distributed(run, "lm", texts, vocabulary, settings, only, parts)
    assert spread.read("lm.arpa") == alone.read("lm.arpa")
    counts = next(trace for trace in run.trace if trace.name == "lm_counts")
    assert counts.records > 2
    for trace in run.trace:
        if trace.kind in ("source", "step"):
            sealed = find_sealed(trace.url)
            assert sealed is not None
            assert not audit_set(sealed).gaps
    again = Run(str(tmp_path), InProcessRunner())
    assert train_ngrams_distributed(again, "lm", texts, vocabulary, settings, only, parts).digest == spread.digest
    assert all(trace.kept for trace in again.trace)


def test_only_text_beyond_memory_is_distributed(
    tmp_path: Path, texts: list[tuple[SealedSet, str]], vocabulary: Artifact
) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    many = [texts, texts[:1]]
    sizes = [sum(shard.bytes for data, _ in some for shard in data.shards) * PART_BYTES for some in many]
    between = SETTINGS.model_copy(update={"memory": (sizes[0] + sizes[1]) // 2})
    made = train_ngrams(run, "lm", many, vocabulary, between)
    run.finish()
    assert [trace.name for trace in run.trace].count("lm_merged") == 1
    fits = train_ngrams(run, "lm", many, vocabulary, SETTINGS.model_copy(update={"memory": 1 << 30}))
    assert [one.read("lm.arpa") for one in made] == [one.read("lm.arpa") for one in fits]


def test_memory_decides_the_parts(tmp_path: Path, texts: list[tuple[SealedSet, str]], vocabulary: Artifact) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    found = {}
    for memory in (1 << 24, 1 << 19):
        settings = SETTINGS.model_copy(update={"memory": memory})
        found[memory] = train_ngrams_distributed(run, "lm", texts, vocabulary, settings).digest
    parts = [trace.summary["shards"] for trace in run.trace if trace.name == "lm_merged"]
    assert parts[0] < parts[1]
    assert len(set(found.values())) == 1


def test_a_failed_part_is_reported(
    tmp_path: Path, texts: list[tuple[SealedSet, str]], vocabulary: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step continues without one failed record; a model must not."""
    merge = MergeCounts.group

    def broken(self: MergeCounts, name: str, tables: Iterator[pa.Table]) -> Iterator[dict]:
        if name == "1":
            raise MemoryError("no more")
        return merge(self, name, tables)

    monkeypatch.setattr(MergeCounts, "group", broken)
    run = Run(str(tmp_path), InProcessRunner())
    with pytest.raises(UserError, match=r"lm_merged: 1 of its units or parts failed \(merged: MemoryError: no more\)"):
        _ = train_ngrams_distributed(run, "lm", texts, vocabulary, SETTINGS, parts=3).digest
    monkeypatch.undo()
    mended = train_ngrams_distributed(
        Run(str(tmp_path), InProcessRunner(), requeue=True), "lm", texts, vocabulary, SETTINGS, parts=3
    )
    whole = run.train(ngram_job("alone", texts, vocabulary, SETTINGS))
    assert mended.read("lm.arpa") == whole.read("lm.arpa")


def test_no_text_is_refused(tmp_path: Path, vocabulary: Artifact) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    empty = seal_tables(str(tmp_path / "none"), "none", [pa.table({"id": ["a"], "text": pa.nulls(1, pa.string())})])
    with pytest.raises(UserError, match="the text is empty"):
        _ = train_ngrams_distributed(run, "lm", [(empty, "text")], vocabulary, SETTINGS).digest


def test_memory_is_not_in_the_fingerprint() -> None:
    assert LanguageModelSettings(order=3, memory=1 << 24).identity() == {"order": 3}
    few, many = (UnitCountSettings(parts=2, columns=("text",), at_once=words) for words in (1, 1 << 20))
    assert few.identity() == many.identity() == {"parts": 2, "columns": ["text"]}
