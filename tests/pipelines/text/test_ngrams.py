from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.actors.text import language_model
from gristmill.actors.text.language_model import LanguageModel, ScoreText, TextScoreSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import mix_job, ngram_job
from gristmill.pipelines.text.ngrams_distributed import build_vocabulary
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.errors import UserError
from gristmill.shards.step import Step
from tests.models.ngrams.kneser_ney import sample

pytest.importorskip("kenlm")
TEXTS = {"own": sample(1), "other": sample(3, 700), "dev": sample(1, 60)[20:]}


def seal(url: Path, text: list[list[str]], shard: int = 150) -> SealedSet:
    rows = [{"id": f"{n:05d}", "text": " ".join(words), "chosen": n % 3 > 0} for n, words in enumerate(text)]
    return seal_tables(
        str(url), "texts", [pa.Table.from_pylist(rows[n : n + shard]) for n in range(0, len(rows), shard)]
    )


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, SealedSet]:
    return {name: seal(tmp_path / name, text) for name, text in TEXTS.items()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "out"), InProcessRunner())


def test_models_of_sets(run: Run, sets: dict[str, SealedSet]) -> None:
    both = [(sets["own"], "text"), (sets["other"], "text")]
    vocabulary = build_vocabulary(run, "vocabulary", both, words=["zero"])
    listed = vocabulary.read("vocabulary.txt").decode().split("\n")[:-1]
    everything = TEXTS["own"] + TEXTS["other"]
    assert listed == sorted({"zero", *(word for sentence in everything for word in sentence)})
    settings = NgramSettings(order=3, prune=(0, 0, 1))
    made = [run.train(ngram_job("lm", some, vocabulary, settings)) for some in (both, both[:1])]
    assert made[0].read("lm.arpa") == estimate(everything, settings, listed).to_bytes()
    assert made[1].read("lm.arpa") == estimate(TEXTS["own"], settings, listed).to_bytes()
    again = Run(run.out, InProcessRunner())
    again.train(ngram_job("lm", both, build_vocabulary(again, "vocabulary", both, words=["zero"]), settings))
    again.finish()
    assert all(trace.kept for trace in again.trace)


def test_rows_are_chosen_by_a_column(run: Run, sets: dict[str, SealedSet]) -> None:
    own = [(sets["own"], "text")]
    chosen = [sentence for n, sentence in enumerate(TEXTS["own"]) if n % 3 > 0]
    vocabulary = build_vocabulary(run, "vocabulary", own, 2)
    made = run.train(ngram_job("lm", own, vocabulary, only="chosen"))
    words = vocabulary.read("vocabulary.txt").decode().split()
    assert made.read("lm.arpa") == estimate(chosen, vocabulary=words).to_bytes()


def scored(run: Run, name: str, lm: Artifact, texts: SealedSet) -> dict[str, float]:
    """Return the sums of the columns that a model adds, and the perplexity of known words."""
    made = run.step(Step(name, (ScoreText.stage(TextScoreSettings(), name=name, model=lm.ref),), texts))
    columns = [field.name for field in language_model.fields("lm")]
    table = pa.concat_tables(made.tables(columns)).drop_null()
    found = {column.removeprefix("lm_"): math.fsum(table[column].to_pylist()) for column in columns}
    return found | {"known": math.exp((found["oov_logprob"] - found["logprob"]) / (found["words"] - found["oov"]))}


def test_mixture_is_better_than_each(run: Run, sets: dict[str, SealedSet]) -> None:
    both = [(sets["own"], "text"), (sets["other"], "text")]
    vocabulary = build_vocabulary(run, "vocabulary", both)
    models = [run.train(ngram_job("lm", [one], vocabulary, NgramSettings(order=3))) for one in both]
    dev = (sets["dev"], "text")
    mixed = run.train(mix_job("mixed", models, dev))
    mixture = json.loads(mixed.read("weights.json"))
    assert sum(mixture["weights"]) == pytest.approx(1.0)
    assert mixture["weights"][0] > 0.5
    found = {}
    for name, lm in {"own": models[0], "other": models[1], "mixed": mixed}.items():
        found[name] = scored(run, f"scored_{name}", lm, sets["dev"])["known"]
    assert found["mixed"] <= min(found["own"], found["other"]) * 1.001
    assert found["mixed"] == pytest.approx(mixture["perplexity"], rel=0.02)
    assert [found["own"], found["other"]] == pytest.approx(mixture["perplexities"], rel=1e-3)
    given = run.train(mix_job("given", models, None, weights=mixture["weights"]))
    assert given.read("lm.arpa") == mixed.read("lm.arpa")


def test_unknown_words_are_counted_separately(run: Run, sets: dict[str, SealedSet]) -> None:
    own = [(sets["own"], "text")]
    vocabulary = build_vocabulary(run, "vocabulary", own, 40)
    lm = run.train(ngram_job("lm", own, vocabulary, NgramSettings(order=3)))
    found = scored(run, "scored", lm, sets["dev"])
    model = LanguageModel(lm.url)
    details = [model.detail(sentence) for sentence in TEXTS["dev"]]
    assert found["oov"] == sum(one.oov for one in details) > 0
    assert found["words"] == sum(len(sentence) + 1 for sentence in TEXTS["dev"])
    assert found["logprob"] == pytest.approx(sum(one.logprob for one in details), rel=1e-5)
    assert found["oov_logprob"] == pytest.approx(sum(one.oov_logprob for one in details), rel=1e-5)


def test_wrong_input_is_refused(run: Run, sets: dict[str, SealedSet]) -> None:
    own = [(sets["own"], "text")]
    with pytest.raises(UserError, match="no column 'words'"):
        build_vocabulary(run, "v", [(sets["own"], "words")])
    with pytest.raises(UserError, match="is of type bool; expected text"):
        build_vocabulary(run, "v", [(sets["own"], "chosen")])
    with pytest.raises(UserError, match="none of the sets has the column 'better'"):
        build_vocabulary(run, "v", own, only="better")
    with pytest.raises(UserError, match="at least one sealed set"):
        build_vocabulary(run, "v", [])
    with pytest.raises(UserError, match="at least 10000 times"):
        _ = build_vocabulary(run, "v", own, 10_000).digest
    vocabulary = build_vocabulary(run, "v", own)
    with pytest.raises(UserError, match="either a development text or weights"):
        mix_job("m", [vocabulary], None)
