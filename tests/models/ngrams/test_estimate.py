from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.counts import Vocabulary, count, merge
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.shards.errors import SettingsError, UserError
from tests.models.ngrams.kneser_ney import logprob, mass, reference, sample, table

TEXT = sample(3)
WORDS = sorted({word for sentence in TEXT for word in sentence})
SETTINGS = [
    (2, (0,), 0),
    (3, (0,), 0),
    (4, (0,), 0),
    (4, (0, 0, 1), 0),
    (5, (0, 1, 1, 2), 4),
    (3, (0,), 7),
    (6, (0,), 2),
]


@pytest.mark.parametrize(("order", "prune", "unknown"), SETTINGS)
def test_estimates_match_the_paper(order: int, prune: tuple[int, ...], unknown: int) -> None:
    """``unknown`` words of the text are outside the vocabulary, and two of the vocabulary are not in the text."""
    vocabulary = [*WORDS[unknown:], "never", "seen"]
    settings = NgramSettings(order=order, prune=prune)
    expected = reference(TEXT, order, vocabulary, settings.thresholds)
    model = estimate(TEXT, settings, vocabulary)
    found = table(model)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[g] for g in expected], list(expected.values()), atol=2e-6)
    assert len(model.orders[0]) == len(vocabulary) + 3
    assert found["never",][0] == found["<unk>",][0]
    assert min(len(grams) for grams in model.orders) > 0


@pytest.mark.parametrize(("order", "prune", "unknown"), SETTINGS)
def test_every_context_sums_to_one(order: int, prune: tuple[int, ...], unknown: int) -> None:
    vocabulary = [*WORDS[unknown:], "never"]
    model = table(estimate(TEXT, NgramSettings(order=order, prune=prune), vocabulary))
    contexts = [(), *(gram for gram in model if len(gram) < order and gram[-1] not in ("<unk>", "</s>"))]
    for context in contexts[:: max(1, len(contexts) // 60)]:
        assert mass(model, context, vocabulary) == pytest.approx(1.0, abs=1e-5), context


def test_open_vocabulary_is_that_of_the_text() -> None:
    assert estimate(TEXT).to_bytes() == estimate(TEXT, vocabulary=WORDS).to_bytes()


def test_literal_marks_are_white_space() -> None:
    marked = [["<s>", *sentence, "<unk>", "</s>"] for sentence in TEXT]
    assert estimate(marked).to_bytes() == estimate(TEXT).to_bytes()


def test_empty_sentence_counts() -> None:
    model = table(estimate([["a"], [], []], NgramSettings(order=2)))
    assert logprob(model, ("<s>", "</s>")) > logprob(model, ("<s>", "a"))


def test_tiny_text_has_fallback_discounts() -> None:
    model = table(estimate([["turn", "on", "light"]], NgramSettings(order=3), ["turn", "on", "light", "off"]))
    # Four unigrams of count 1, discounted by 0.5 each, and half the mass over the 6 predictable words.
    assert 10 ** model["turn",][0] == pytest.approx(0.5 / 4 + 0.5 / 6, rel=1e-5)
    assert 10 ** model["off",][0] == pytest.approx(0.5 / 6, rel=1e-5)


def test_order_of_sentences_does_not_matter() -> None:
    assert estimate(TEXT[::-1]).to_bytes() == estimate(TEXT).to_bytes()


def test_merged_counts_are_those_of_all_text() -> None:
    words = Vocabulary(WORDS[3:])
    whole = count(*words.encode_sentences(TEXT), 4)
    parts = [count(*words.encode_sentences(TEXT[at : at + 77]), 4) for at in range(0, len(TEXT), 77)]
    merged = merge(parts, 4)
    np.testing.assert_array_equal(merged.grams, whole.grams)
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert whole.counts.sum() == sum(len(sentence) + 1 for sentence in TEXT)


@pytest.mark.parametrize(
    ("order", "prune", "message"),
    [
        (1, (0,), "greater than or equal to 2"),
        (7, (0,), "less than or equal to 6"),
        (3, (1, 1), "the first 0"),
        (3, (0, 2, 1), "do not decrease"),
        (2, (0, 0, 1), "at most 2"),
    ],
)
def test_wrong_settings_are_refused(order: int, prune: tuple[int, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        NgramSettings(order=order, prune=prune)


@pytest.mark.parametrize(("vocabulary", "message"), [([], "vocabulary is empty"), (["two words"], "'two words'")])
def test_wrong_vocabularies_are_refused(vocabulary: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        estimate(TEXT, vocabulary=vocabulary)


def test_no_text_is_refused() -> None:
    with pytest.raises(UserError, match="text is empty"):
        estimate([], vocabulary=["a"])


def test_arpa_is_read_as_written() -> None:
    model = estimate(TEXT, vocabulary=WORDS[2:])
    data = model.to_bytes()
    again = Arpa.from_bytes(data)
    assert again.to_bytes() == data
    assert list(again.words) == list(model.words)
    assert data.startswith(b"\\data\\\nngram 1=")
    assert data.endswith(b"\n\\end\\\n")


def test_arpa_of_other_tools_is_read() -> None:
    """SRILM's: missing back-offs, more white space."""
    given = (
        b"\n\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1.5\t<unk>\n-99\t<s>\t-0.3\n-0.4\t</s>\n-0.6\ta\t-0.1 \n"
        b"\n\\2-grams:\n-0.2\t<s> a\n\n\\end\\\n"
    )
    model = table(Arpa.from_bytes(given))
    assert model["a",] == pytest.approx((-0.6, -0.1))
    assert model["<s>", "a"] == pytest.approx((-0.2, 0.0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an ARPA file"),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1 a\n\n\\end\\\n", "tab-separated"),
        (b"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\ta\n\n\\end\\\n", "says 2"),
        (
            b"\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\n-1\ta\n\n\\2-grams:\n-1\ta b\n\n\\end\\\n",
            "not among the uni",
        ),
        (b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1\t\xff\n\n\\end\\\n", "cannot be read"),
    ],
)
def test_malformed_arpa_is_rejected(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        Arpa.from_bytes(data, "given.arpa")
    assert str(refused.value).startswith("given.arpa:")
