"""Texts scored by an n-gram model: how they are written, and in which languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.pipelines.text.score import TextScorer
from gristmill.shards.errors import UserError

pytest.importorskip("kenlm")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lm") / "lm.arpa"
    texts = [["दस", "बजे"], ["turn", "on"]]
    file.write_bytes(estimate(texts, NgramSettings(order=2), ["दस", "बजे", "turn", "on"]).to_bytes())
    return file


def test_a_text_is_one_text_in_the_form_of_the_training(model: Path) -> None:
    scorer = TextScorer(model, lang="hi")
    (one,) = scorer.score("Turn ON!")
    assert (one.text, one.words, one.oov) == ("turn on", 3, 0)
    found = list(scorer.score(["दस बजे", None], "१० बजे"))
    assert [None if each is None else each.oov for each in found] == [0, None, 1], "numbers are not spelled out"


def test_a_language_that_there_is_not_is_refused(model: Path, gristmill) -> None:
    made = gristmill("score", model, "nowhere.txt", "--lang", "xx")
    assert (made.exit_code, made.stdout) == (2, "")
    assert "lang=xx: there is no such language" in made.stderr
    with pytest.raises(UserError, match=r"missing\.arpa: no such file"):
        TextScorer(model.parent / "missing.arpa")
