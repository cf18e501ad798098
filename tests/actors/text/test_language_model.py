from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.actors.text.language_model import (
    LanguageModel,
    ListScoreSettings,
    ScoreLists,
    ScoreText,
    TextScoreSettings,
)
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.shards.artifact import Artifact, put_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.schema import TRANSLATIONS_FIELD
from gristmill.shards.work import StageWorker, Work
from tests.models.ngrams.kneser_ney import logprob, sample, table

pytest.importorskip("kenlm")
TEXT = sample(5)
WORDS = sorted({word for sentence in TEXT for word in sentence})
MODEL = estimate(TEXT, NgramSettings(order=3), WORDS[2:])


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return put_artifact(str(tmp_path_factory.mktemp("lm")), {"lm.arpa": MODEL.to_bytes()}, {})


def test_kenlm_reads_our_models(lm: Artifact) -> None:
    model, own = LanguageModel(lm.url), table(MODEL)
    for sentence in TEXT[:50]:
        words = ["<s>", *sentence, "</s>"]
        expected = sum(logprob(own, tuple(words[max(0, end - 2) : end + 1])) for end in range(1, len(words)))
        found, oov = model.score(sentence)
        assert found == pytest.approx(expected * math.log(10), abs=1e-4)
        assert oov == sum(word in WORDS[:2] for word in sentence)
    assert model.score(["<s>", WORDS[5], "</s>"]) == model.score([WORDS[5]])


def test_plain_folder_and_plain_file(lm: Artifact, tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_bytes(MODEL.to_bytes())
    expected = LanguageModel(lm.url).score(TEXT[3])
    assert LanguageModel(str(tmp_path)).score(TEXT[3]) == expected
    assert LanguageModel(str(tmp_path / "lm.arpa")).score(TEXT[3]) == expected


def test_remote_model_comes_through_a_file(lm: Artifact) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/models/lm.arpa", MODEL.to_bytes())
    assert LanguageModel("memory://models").score(TEXT[3]) == LanguageModel(lm.url).score(TEXT[3])
    with pytest.raises(UserError, match=r"lm\.arpa: no such file"):
        LanguageModel("memory://nothing")


def test_other_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lm\.arpa: no such file"):
        LanguageModel(str(tmp_path))
    (tmp_path / "lm.arpa").write_text("this is no model\n")
    with pytest.raises(UserError, match="KenLM cannot read"):
        LanguageModel(str(tmp_path))
    other = put_artifact(str(tmp_path / "other"), {"weights.json": b"{}"}, {})
    with pytest.raises(UserError, match=r"holds no lm\.arpa"):
        LanguageModel(other.url)


def test_stage_scores_texts(lm: Artifact) -> None:
    texts = [" ".join(TEXT[0]), None, "", f"  {WORDS[0]} {WORDS[3]} nothing "]
    given = pa.table({"id": ["a", "b", "c", "d"], "text": texts})
    out = StageWorker(ScoreText.stage(TextScoreSettings(prefix="own"), model=lm.ref), 0)(Work("s", given, 4)).table
    model = LanguageModel(lm.url)
    rows = out.to_pylist()
    assert rows[0]["own_logprob"] == pytest.approx(model.score(TEXT[0])[0], rel=1e-6)
    assert rows[1]["own_logprob"] is None
    assert (rows[2]["own_words"], rows[2]["own_oov"]) == (1, 0)
    assert (rows[3]["own_words"], rows[3]["own_oov"]) == (4, 2)
    assert rows[3]["own_logprob"] < rows[3]["own_oov_logprob"] < 0


def test_stage_scores_translations(lm: Artifact) -> None:
    lists = [[{"text": " ".join(s), "logprob": -1.0, "units": 3} for s in TEXT[:3]], [], None]
    given = pa.table([pa.array(["a", "b", "c"]), pa.array(lists, TRANSLATIONS_FIELD.type)], ["id", "translations"])
    out = (
        StageWorker(ScoreLists.stage(ListScoreSettings(), model=lm.ref), 0)(Work("s", given, 3))
        .table["lm_logprobs"]
        .to_pylist()
    )
    model = LanguageModel(lm.url)
    assert out[0] == pytest.approx([model.score(s)[0] for s in TEXT[:3]], rel=1e-6)
    assert out[1:] == [[], None]


def test_missing_column_is_refused(lm: Artifact) -> None:
    given = pa.table({"id": ["a"], "words": ["x"]})
    with pytest.raises(UserError, match="no column 'text'"):
        StageWorker(ScoreText.stage(TextScoreSettings(), model=lm.ref), 0)(Work("s", given, 1))
