from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from actors.language_model import LanguageModel
from cluster.inprocess import InProcessRunner
from models.ngram import estimate
from pipelines.ngrams import NgramSettings, mix_job, ngram_job, perplexity, score_texts
from pipelines.ngrams_distributed import build_vocabulary
from pipelines.run import Run
from shards.dataset import SealedSet, seal_tables
from shards.errors import UserError
from tests.models.kneser_ney import sample

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
    made = run.train([ngram_job("lm", both, vocabulary, settings), ngram_job("lm", both[:1], vocabulary, settings)])
    assert made[0].read("lm.arpa") == estimate(everything, 3, listed, (0, 0, 1)).to_bytes()
    assert made[1].read("lm.arpa") == estimate(TEXTS["own"], 3, listed, (0, 0, 1)).to_bytes()
    again = Run(run.out, InProcessRunner())
    again.train([ngram_job("lm", both, build_vocabulary(again, "vocabulary", both, words=["zero"]), settings)])
    assert all(trace.kept for trace in again.trace)


def test_rows_are_chosen_by_a_column(run: Run, sets: dict[str, SealedSet]) -> None:
    own = [(sets["own"], "text")]
    chosen = [sentence for n, sentence in enumerate(TEXTS["own"]) if n % 3 > 0]
    vocabulary = build_vocabulary(run, "vocabulary", own, 2)
    made = run.train([ngram_job("lm", own, vocabulary, only="chosen")])[0]
    words = vocabulary.read("vocabulary.txt").decode().split()
    assert made.read("lm.arpa") == estimate(chosen, 4, words).to_bytes()


def test_mixture_is_better_than_each(run: Run, sets: dict[str, SealedSet]) -> None:
    both = [(sets["own"], "text"), (sets["other"], "text")]
    vocabulary = build_vocabulary(run, "vocabulary", both)
    models = run.train([ngram_job("lm", [one], vocabulary, NgramSettings(order=3)) for one in both])
    dev = (sets["dev"], "text")
    mixed = run.train([mix_job("mixed", models, dev)])[0]
    told = json.loads(mixed.read("weights.json"))
    assert sum(told["weights"]) == pytest.approx(1.0)
    assert told["weights"][0] > 0.5
    found = {}
    for name, lm in {"own": models[0], "other": models[1], "mixed": mixed}.items():
        found[name] = perplexity(score_texts(run, f"scored_{name}", lm, dev))
    assert found["mixed"].known <= min(found["own"].known, found["other"].known) * 1.001
    assert found["mixed"].known == pytest.approx(told["perplexity"], rel=0.02)
    assert [found["own"].known, found["other"].known] == pytest.approx(told["perplexities"], rel=1e-3)
    given = run.train([mix_job("given", models, None, weights=told["weights"])])[0]
    assert given.read("lm.arpa") == mixed.read("lm.arpa")


def test_perplexity_with_and_without_unknown_words(run: Run, sets: dict[str, SealedSet]) -> None:
    own = [(sets["own"], "text")]
    vocabulary = build_vocabulary(run, "vocabulary", own, 40)
    lm = run.train([ngram_job("lm", own, vocabulary, NgramSettings(order=3))])[0]
    found = perplexity(score_texts(run, "scored", lm, (sets["dev"], "text")))
    model = LanguageModel(lm.url)
    details = [model.detail(sentence) for sentence in TEXTS["dev"]]
    oov = sum(one.oov for one in details)
    assert oov > 0
    assert found.oov == pytest.approx(oov / sum(map(len, TEXTS["dev"])))
    assert found.tokens == sum(len(sentence) + 1 for sentence in TEXTS["dev"])
    assert found.all == pytest.approx(math.exp(-sum(one.logprob for one in details) / found.tokens), rel=1e-5)
    assert found.known == pytest.approx(
        math.exp(-sum(one.logprob - one.oov_logprob for one in details) / (found.tokens - oov)), rel=1e-5
    )


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
        build_vocabulary(run, "v", own, 10_000)
    vocabulary = build_vocabulary(run, "v", own)
    with pytest.raises(UserError, match="do not fall"):
        ngram_job("lm", own, vocabulary, NgramSettings(prune=(0, 2, 1)))
    with pytest.raises(UserError, match="either a development text or weights"):
        mix_job("m", [vocabulary], None)
    model = run.train([ngram_job("lm", own, vocabulary)])[0]
    nothing = seal_tables(f"{run.out}/none", "none", [pa.table({"id": ["a"], "text": ["unheard"]})])
    empty = seal_tables(f"{run.out}/empty", "empty", [pa.table({"id": ["a"], "text": pa.nulls(1, pa.string())})])
    scored = score_texts(run, "scored", model, (empty, "text"))
    with pytest.raises(UserError, match="perplexity of no text"):
        perplexity(scored)
    assert perplexity(score_texts(run, "scored", model, (nothing, "text"))).oov == 1.0
