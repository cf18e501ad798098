"""A compact store scores text as KenLM does, which stays the oracle: to the last bit, and word by word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.ngram_files import build_store, open_store
from gristmill.actors.text import lm_engine
from gristmill.actors.text.language_model import LanguageModel, ScoreText, TextScoreSettings
from gristmill.models.ngrams.build import StoreSettings
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.text.ngram_mix import mix
from gristmill.shards.errors import UserError
from tests.models.ngrams.kneser_ney import sample

kenlm = pytest.importorskip("kenlm")
TEXT = sample(5, 600, 50)
WORDS = sorted({word for sentence in TEXT for word in sentence})


@pytest.fixture(scope="module", params=["pruned", "order 6", "mixture"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model as an ARPA file and as a store."""
    made = tmp_path_factory.mktemp("lm")
    if request.param == "pruned":
        model = estimate(TEXT, NgramSettings(order=4, prune=(0, 0, 1)), WORDS[2:])
    elif request.param == "order 6":
        model = estimate(TEXT[:200], NgramSettings(order=6), WORDS)
    else:
        sides = [estimate(some, NgramSettings(order=3), WORDS) for some in (TEXT[:300], TEXT[300:])]
        model = mix(sides, [0.25, 0.75])
    (made / "lm.arpa").write_bytes(model.to_bytes())
    build_store(str(made), str(made / "lm.store"), StoreSettings())
    return made


def texts() -> list[list[str]]:
    draw = np.random.default_rng(3)
    other = [
        [WORDS[n] if n < len(WORDS) else f"new{n}" for n in draw.integers(0, 60, draw.integers(0, 9))] for _ in TEXT
    ]
    odd = [["<s>", WORDS[3], "</s>"], ["<unk>"], [], ["a\u00a0b", WORDS[4]], ["\u2028"], [f"{WORDS[2]}\t{WORDS[3]}"]]
    return [*TEXT[:200], *other, *odd]


def test_scores_are_those_of_kenlm(folder: Path) -> None:
    own, theirs = LanguageModel(str(folder / "lm.store")), LanguageModel(str(folder / "lm.arpa"))
    assert [type(one._engine).__name__ for one in (own, theirs)] == ["StoredLm", "Kenlm"]
    for words in texts():
        assert list(own.tokens(words)) == list(theirs.tokens(words)), words
        assert own.detail(words) == theirs.detail(words)
    assert list(own.details(texts())) == list(theirs.details(texts()))


def test_a_stage_gives_the_same_table(folder: Path) -> None:
    given = [None if n % 7 == 0 else " ".join(words) for n, words in enumerate(texts())]
    table = pa.table({"text": pa.array(given, pa.string())})
    one, other = (ScoreText(TextScoreSettings(), str(folder / name))(table) for name in ("lm.store", "lm.arpa"))
    assert one.equals(other)


def test_states_go_on_as_those_of_kenlm(folder: Path) -> None:
    store, model = open_store(str(folder / "lm.store")), kenlm.Model(str(folder / "lm.arpa"))
    draw = np.random.default_rng(0)
    words = store.look_up(WORDS)
    for begin in (True, False):
        theirs, after = kenlm.State(), kenlm.State()
        (model.BeginSentenceWrite if begin else model.NullContextWrite)(theirs)
        state = store.begin if begin else store.empty
        for place in draw.integers(0, len(WORDS), 3000):
            scores, states = store.score([state], [words[place]])
            assert scores[0] == np.float32(model.BaseScore(theirs, WORDS[place], after))
            theirs, after, state = after, theirs, states[0]


def test_without_kenlm_an_arpa_file_is_scored_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = [LanguageModel(str(folder)).detail(words) for words in texts()]
    monkeypatch.setattr(lm_engine, "kenlm_installed", lambda: False)
    model = LanguageModel(str(folder))
    assert isinstance(model._engine, lm_engine.StoredLm)
    assert list(model.details(texts())) == theirs
    with LanguageModel.of(estimate(TEXT, NgramSettings(order=2), WORDS)) as other:
        assert isinstance(other._engine, lm_engine.StoredLm)
    binary = folder / "lm.binary"
    binary.touch()
    with pytest.raises(UserError, match=r"lm\.binary: KenLM is not installed"):
        LanguageModel(str(binary))


def test_a_store_at_a_url_is_mapped_from_a_copy(folder: Path) -> None:
    build_store(str(folder), "memory://models/lm.store", StoreSettings(quantise=8))
    store = open_store("memory://models/lm.store")
    assert store.facts["settings"]["quantise"] == 8
    assert store.sentence(TEXT[1]).shape == (len(TEXT[1]) + 1,)
    with pytest.raises(UserError, match=r"memory://models/none\.store: no such file"):
        open_store("memory://models/none.store")


def test_what_is_no_place_for_a_store_is_refused_and_kept(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine.store"
    other.write_text("my notes\n")
    with pytest.raises(UserError, match=r"mine\.store: there is something that is no store"):
        build_store(str(folder), str(other), StoreSettings())
    assert other.read_text() == "my notes\n"
    with pytest.raises(UserError, match=r"mine\.bin: not the name of a store"):
        build_store(str(folder), str(tmp_path / "mine.bin"), StoreSettings())
    with pytest.raises(UserError, match=r"lm\.store: not an ARPA file"):
        build_store(str(folder / "lm.store"), str(tmp_path / "new.store"), StoreSettings())
    (tmp_path / "lm.arpa").write_bytes((folder / "lm.arpa").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"lm\.arpa: not an ARPA file"):
        build_store(str(tmp_path), str(tmp_path / "new.store"), StoreSettings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lm.arpa", "mine.store"]
