from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.text.ngram_mix import em_weights, mix, mixture_logprobs
from gristmill.shards.errors import UserError
from tests.models.ngrams.kneser_ney import Table, logprob, mass, sample, table

TEXTS = [sample(1), sample(2, 150), sample(3, 900)]
DEV = [*sample(1, 40)[10:], *sample(3, 40)[20:]]
WORDS = sorted({word for text in TEXTS for sentence in text for word in sentence})


def models(orders: tuple[int, ...] = (3, 2, 4)) -> list[Arpa]:
    return [estimate(text, NgramSettings(order=order), WORDS) for text, order in zip(TEXTS, orders, strict=True)]


def logprobs(tables: list[Table], order: int = 4) -> np.ndarray:
    grams = []
    for sentence in DEV:
        words = ["<s>", *sentence, "</s>"]
        grams += [tuple(words[max(0, end - order + 1) : end + 1]) for end in range(1, len(words))]
    return np.log(10) * np.array([[logprob(model, gram) for gram in grams] for model in tables])


def test_weights_maximise_the_likelihood() -> None:
    given = logprobs([table(model) for model in models()])
    weights = em_weights(given)
    assert weights.sum() == pytest.approx(1.0)
    best = mixture_logprobs(given, weights).sum()
    for move in np.eye(3) - 1 / 3:
        for step in (0.02, -0.02):
            other = np.clip(weights + step * move, 0, 1)
            assert mixture_logprobs(given, other / other.sum()).sum() <= best + 1e-6


def test_useless_model_gets_no_weight() -> None:
    assert em_weights(np.log(np.array([[0.5] * 50, [0.001] * 50])))[1] < 1e-3


def test_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match="the models know none"):
        em_weights(np.zeros((2, 0)))


@pytest.mark.parametrize("orders", [(3, 2, 4), (4, 4, 4)])
def test_mixture_as_one_model(orders: tuple[int, ...]) -> None:
    given = models(orders)
    tables = [table(model) for model in given]
    sides = logprobs(tables)
    weights = em_weights(sides)
    one = mix(given, weights.tolist())
    found = table(one)
    assert found.keys() == set().union(*tables)
    for gram in list(found)[:: max(1, len(found) // 300)]:
        expected = sum(w * 10 ** logprob(model, gram) for w, model in zip(weights, tables, strict=True))
        assert 10 ** found[gram][0] == pytest.approx(expected, rel=1e-4)
    contexts = [(), *(gram for gram in found if len(gram) < one.order and gram[-1] not in ("<unk>", "</s>"))]
    for context in contexts[:: max(1, len(contexts) // 60)]:
        assert mass(found, context, WORDS) == pytest.approx(1.0, abs=1e-4), context
    static, dynamic = -logprobs([found])[0].mean(), -mixture_logprobs(sides, weights).mean()
    assert np.exp(static - dynamic) == pytest.approx(1.0, abs=0.02)
    assert np.exp(static) < np.exp(-sides.mean(axis=1)).min()


def test_a_mixture_of_one_model_is_that_model() -> None:
    model = models()[0]
    np.testing.assert_allclose(
        [value[0] for _, value in sorted(table(mix([model], [1.0])).items())],
        [value[0] for _, value in sorted(table(model).items())],
        atol=1e-6,
    )


def test_bytes_do_not_change() -> None:
    given = models()
    again = mix([Arpa.from_bytes(model.to_bytes()) for model in given], [0.2, 0.3, 0.5])
    assert again.to_bytes() == mix(given, [0.2, 0.3, 0.5]).to_bytes()


def test_incompatible_models_are_rejected() -> None:
    with pytest.raises(UserError, match="different vocabularies"):
        mix([estimate([["a"]]), estimate([["b"]])], [0.5, 0.5])
    with pytest.raises(UserError, match="2 shares that sum to 1"):
        mix([estimate([["a"]]), estimate([["a"]])], [0.5, 0.6])
