import math

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import softmax

from gristmill.models.nlu.reranker_fit import FitSettings, Objective, context_specs, fit, gate, joined, sample
from gristmill.models.nlu.rerankers import Categorical, Column, DomainReranker, Lists, Numeric, Reranker
from gristmill.shards.errors import SettingsError, UserError

DOMAINS = ("music", "video")


def labelled(utterances=300, seed=0, device=True):
    """Lists in which video's scores are overconfident, and requests to a television are for video."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, utterances)
    n = counts.sum()
    utterance = np.repeat(np.arange(utterances), counts)
    tv = rng.random(utterances) < 0.5
    domain = rng.integers(0, 2, n)
    logs = np.log(rng.random((3, n)))
    s = logs.sum(0) * np.where(domain == 1, 0.4, 1.2) + np.where(tv[utterance] == (domain == 1), 3.0, -2.0)
    correct = rng.random(n) < 1 / (1 + np.exp(-s))
    semer = np.where(correct, 0.0, rng.integers(1, 4, n) / 3)
    names = [("tv" if t else "speaker") for t in tv]
    context = {"device": Column.of(names)} if device else {}
    return Lists(np.concatenate([[0], np.cumsum(counts)]), DOMAINS, domain, logs, context, semer, correct)


def ones(lists):
    return np.ones(len(lists.offsets) - 1)


def test_expected_semer_by_hand():
    logs = np.log([[0.5, 0.4, 0.3], [0.8, 0.9, 1.0], [1.0, 1.0, 0.5]])
    lists = Lists(
        np.array([0, 3]), DOMAINS, np.array([0, 1, 0]), logs, {}, np.array([0, 1, 1 / 3]), np.array([1, 0, 0], bool)
    )
    given = sample(lists, "music", np.ones(1))
    point = np.array([2.0, 1.0, 0.5, 0.3])
    s = [point[:3] @ logs[:, 0] + 0.3, logs[:, 1].sum(), point[:3] @ logs[:, 2] + 0.3]
    expected = softmax(s) @ [0, 1, 1 / 3]
    assert Objective(given, (), "R1", FitSettings(l2=0))(point)[0] == pytest.approx(expected)
    own = np.array([s[0], s[2]])
    entropy = math.log1p(math.exp(-own[0])) + math.log1p(math.exp(own[1]))
    assert Objective(given, (), "R2", FitSettings(l2=0))(point)[0] == pytest.approx(entropy)
    pulled = Objective(given, (), "R3", FitSettings(l2=2))(point)[0]
    assert pulled == pytest.approx(expected + entropy + (1 + 0 + 0.25))
    quarter = FitSettings(l2=0, semer_weight=0.25)
    assert Objective(given, (), "R3", quarter)(point)[0] == pytest.approx(0.25 * expected + entropy)


@pytest.mark.parametrize("loss", ["R1", "R2", "R3"])
def test_gradient_against_differences(loss):
    lists = labelled(60)
    weight = np.random.default_rng(3).integers(0, 3, 60).astype(float)
    given = sample(lists, "video", weight)
    objective = Objective(given, context_specs(given.context), loss, FitSettings(l2=0.7))
    for seed in range(3):
        point = np.random.default_rng(seed).normal(size=len(objective.start))
        assert check_grad(lambda x: objective(x)[0], lambda x: objective(x)[1], point) < 1e-6


def test_cross_entropy_is_logistic_regression():
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    lists = labelled(800, device=False)
    weight = np.where(np.arange(800) % 3, 1.0, 2.5)
    made = fit("video", sample(lists, "video", weight), "R2", FitSettings(l2=0)).reranker
    own = lists.domain == 1
    peer = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10000)
    peer.fit(lists.logs[:, own].T, lists.correct[own], weight[lists.utterance[own]])
    np.testing.assert_allclose(made.weights, peer.coef_[0], atol=1e-4)
    assert made.bias == pytest.approx(peer.intercept_[0], abs=1e-4)


def test_few_data_stay_near_the_unweighted_scheme():
    given = sample(labelled(30), "music", np.ones(30))
    weights = [fit("music", given, "R3", FitSettings(l2=l2)).reranker.weights for l2 in (1.0, 10.0, 1e8)]
    away = [np.linalg.norm(np.subtract(w, (1, 1, 1, 0, 0))) for w in weights]
    assert away[0] > away[1] > away[2]
    np.testing.assert_allclose(weights[2], (1, 1, 1, 0, 0), atol=1e-5)


@pytest.mark.parametrize("loss", ["R1", "R2", "R3"])
def test_fit_repeats_to_the_byte_and_gets_better(loss):
    lists = labelled()
    given = sample(lists, "video", ones(lists))
    made = fit("video", given, loss)
    assert made.reranker.to_bytes() == fit("video", given, loss).reranker.to_bytes()
    objective = Objective(given, made.reranker.context, loss, FitSettings())
    assert made.value < objective(objective.start)[0]
    assert np.abs(objective(np.array([*made.reranker.weights, made.reranker.bias]))[1]).max() < 1e-5


def test_shards_joined_are_the_whole():
    lists = labelled(100)
    weight = np.arange(100) % 2 + 1.0
    whole = sample(lists, "video", weight)
    parts = []
    for chosen in (np.arange(100) < 40, np.arange(100) >= 40):
        parts.append(sample(lists, "video", weight * chosen))
    both = joined(parts)
    for name in ("logs", "semer", "correct", "starts", "weight", "other", "other_semer"):
        np.testing.assert_array_equal(getattr(both, name), getattr(whole, name))
    assert both.total == whole.total
    assert fit("video", both, "R3").reranker == fit("video", whole, "R3").reranker


def test_another_domains_hypotheses_count_in_r1_and_not_in_r2():
    lists = labelled()
    rest = np.where(lists.domain == 0, 0.0, 1.0)
    other = Lists(
        lists.offsets,
        DOMAINS,
        lists.domain,
        lists.logs * np.where(rest, 1.0, 2.0),
        lists.context,
        lists.semer,
        lists.correct,
    )
    first, second = (sample(given, "video", ones(lists)) for given in (lists, other))
    assert fit("video", first, "R2").reranker == fit("video", second, "R2").reranker
    assert fit("video", first, "R1").reranker != fit("video", second, "R1").reranker


def test_rivals_compete_with_the_weights_they_are_given():
    lists = labelled()
    rival = DomainReranker("music", "R2", (2.0, 2.0, 2.0), -1.5)
    changed = np.where(lists.domain == 0, 2.0 * lists.logs, lists.logs)
    by_hand = Lists(lists.offsets, DOMAINS, lists.domain, changed, lists.context, lists.semer, lists.correct)
    given, wanted = sample(lists, "video", ones(lists), {"music": rival}), sample(by_hand, "video", ones(lists))
    there = np.isfinite(wanted.other)
    np.testing.assert_allclose(given.other[there], wanted.other[there] - 1.5, rtol=1e-12)
    np.testing.assert_allclose(given.other_semer, wanted.other_semer, rtol=1e-9, atol=1e-12)
    bare = sample(lists, "video", ones(lists))
    assert fit("video", given, "R2").reranker == fit("video", bare, "R2").reranker
    assert fit("video", given, "R3").reranker != fit("video", bare, "R3").reranker


def test_context_is_learned():
    train, test = labelled(2000, 1), labelled(2000, 2)
    scores = {}
    for name, columns in {"with": train.context, "without": {}}.items():
        given = Lists(
            train.offsets, DOMAINS, train.domain, train.logs, columns, semer=train.semer, correct=train.correct
        )
        fitted = Reranker(fit(d, sample(given, d, ones(given)), "R3").reranker for d in DOMAINS)
        best = test.offsets[:-1] + fitted.score(test).best
        scores[name] = test.semer[best].mean()
    assert scores["with"] < 0.85 * scores["without"]


def test_context_columns_become_features():
    columns = {
        "hour": Column.of([1, None, 3.0]),
        "device": Column.of(["tv", None, "box"]),
        "on": Column.of([True, None]),
    }
    assert context_specs(columns) == (
        Categorical("device", ("box", "tv")),
        Numeric("hour", 2.0, 1.0),
        Categorical("on", ("true",)),
    )
    assert context_specs({"flat": Column.of([4.0, 4.0])}) == (Numeric("flat", 4.0, 1.0),)
    with pytest.raises(UserError, match=r"'id' has 300 values; .* at most 256"):
        context_specs({"id": Column.of([f"r{i}" for i in range(300)])})


def test_gate():
    train, held = labelled(500, 1), labelled(500, 2)
    good = fit("video", sample(train, "video", ones(train)), "R2").reranker
    bad = DomainReranker("video", "R2", (1.0, 1.0, 1.0), 3.0)
    found = gate(bad, good, held)
    assert found.new < found.old
    assert found.n == (held.domain == 1).sum()
    assert gate(good, good, held).old == found.new  # equal is good enough
    with pytest.raises(UserError, match=r"of the new weights is [\d.]+, of those in use [\d.]+ .* are rejected"):
        gate(good, bad, held)
    with pytest.raises(UserError, match="expected 'music'"):
        gate(DomainReranker.unweighted("music"), good, held)
    with pytest.raises(UserError, match="no held-out hypothesis is of domain 'shop'"):
        gate(DomainReranker.unweighted("shop"), DomainReranker.unweighted("shop"), held)


def test_refusals():
    lists = labelled(20)
    with pytest.raises(UserError, match="no hypothesis of this domain"):
        fit("shop", sample(lists, "shop", ones(lists)), "R2")
    for name in ("l2", "semer_weight"):
        with pytest.raises(SettingsError, match=name):
            FitSettings(**{name: -1.0})
