import json
import math

import numpy as np
import pytest

from gristmill.models.nlu.rerankers import (
    Categorical,
    Column,
    DomainReranker,
    HypothesisError,
    Lists,
    Numeric,
    Reranker,
)
from gristmill.shards.errors import UserError

DOMAINS = ("alarm", "music", "video")
DEVICE = Categorical("device", ("speaker", "tv"))
HOUR = Numeric("hour", 12.0, 4.0)
VIDEO = DomainReranker("video", "R3", (1.0, 0.5, 0.25, -1.0, 2.0, 0.5), 0.3, (DEVICE, HOUR), {"data": "d"})
MUSIC = DomainReranker("music", "R3", (0.9, 0.1, 0.7), -0.2)
ALARM = DomainReranker("alarm", "R3", (1.1, 0.2, 0.3, 0.7), 0.1, (HOUR,))


def random_lists(utterances, seed):
    """Lists of 0 to 5 hypotheses, and the same as records."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, utterances)
    n = counts.sum()
    logs = np.log(rng.random((3, n))).astype(np.float32)
    domain = rng.integers(0, 3, n)
    device = [None if d == 3 else ("speaker", "tv", "phone")[d] for d in rng.integers(0, 4, utterances)]
    hour = [None if h == 24 else float(h) for h in rng.integers(0, 25, utterances)]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    lists = Lists(
        offsets,
        DOMAINS,
        domain,
        logs.astype(np.float64),
        {"device": Column.of(device), "hour": Column.of(hour)},
    )
    keys = ("domain_logprob", "intent_logprob", "slots_logprob")
    records = [
        [
            {"domain": DOMAINS[domain[i]], **{k: float(v) for k, v in zip(keys, logs[:, i], strict=True)}}
            for i in range(offsets[u], offsets[u + 1])
        ]
        for u in range(utterances)
    ]
    return lists, records, [{"device": d, "hour": h} for d, h in zip(device, hour, strict=True)]


def record(domain, *logs):
    return {"domain": domain, "domain_logprob": logs[0], "intent_logprob": logs[1], "slots_logprob": logs[2]}


def test_confidence_by_hand():
    lists = [record("music", -1.0, -2.0, -0.5), record("video", -2.0, -1.0, -4.0)]
    got = Reranker([MUSIC, VIDEO]).rank(lists, {"device": "tv", "hour": 20})
    music = -0.2 - 0.9 * 1 - 0.1 * 2 - 0.7 * 0.5
    video = 0.3 - 2 - 0.5 - 1 + 2.0 + 0.5 * (20 - 12) / 4
    assert [one.place for one in got] == [1, 0]
    assert [one.confidence for one in got] == pytest.approx([1 / (1 + math.exp(-s)) for s in (video, music)])
    # A device not seen in training, and no hour at all: neither contributes.
    got = Reranker([MUSIC, VIDEO]).rank(lists, {"device": "watch", "hour": None})
    assert got[0].confidence == pytest.approx(1 / (1 + math.exp(-music)))


def test_unweighted_confidence_is_the_product():
    got = Reranker.unweighted(["music"]).rank([record("music", *np.log([0.5, 0.4, 0.3]))])
    assert got == [(0, pytest.approx(0.06))]


def test_a_batch_is_its_lists_one_by_one_bit_for_bit():
    lists, records, context = random_lists(400, 1)
    reranker = Reranker([ALARM, MUSIC, VIDEO])
    batch = reranker.score(lists)
    for u, (hypotheses, around) in enumerate(zip(records, context, strict=True)):
        one = reranker.rank(hypotheses, around)
        held = batch.confidence[lists.offsets[u] : lists.offsets[u + 1]]
        np.testing.assert_array_equal(np.array([r.confidence for r in sorted(one)], np.float32), held)
        assert batch.best[u] == (one[0].place if one else -1)


def test_exchanging_one_domain_leaves_the_others_scores_alone():
    lists, _, _ = random_lists(200, 2)
    first = Reranker([ALARM, MUSIC, VIDEO])
    other = DomainReranker("music", "R2", (2.0, 2.0, 2.0, 1.0, 1.0), 1.0, (DEVICE,))
    second = first.replaced(other)
    a, b = first.score(lists), second.score(lists)
    music = lists.domain == 1
    assert (a.confidence[music] != b.confidence[music]).all()
    np.testing.assert_array_equal(a.confidence[~music], b.confidence[~music])
    assert first.domains["music"] is MUSIC


def test_the_first_of_equals_is_best_and_saturated_scores_stay_distinct():
    reranker = Reranker([DomainReranker("music", "R2", (1.0, 1.0, 1.0), 60.0)])
    got = reranker.rank([record("music", -2, 0, 0), record("music", -1, 0, 0), record("music", 0, -1, 0)])
    assert [one.place for one in got] == [1, 2, 0]
    assert {one.confidence for one in got} == {1.0}


def test_a_probability_of_zero_has_the_least_score():
    got = Reranker([MUSIC]).rank([record("music", -math.inf, -1, -1), record("music", -2, -1, -1)])
    assert [one.place for one in got] == [1, 0]
    assert 0 < got[1].confidence < 1e-30


def test_file_comes_back_and_keeps_its_bytes():
    for made in (VIDEO, MUSIC, ALARM, DomainReranker.unweighted("x")):
        data = made.to_bytes()
        back = DomainReranker.from_bytes(data, "file")
        assert back == made
        assert back.to_bytes() == data
    assert json.loads(VIDEO.to_bytes())["features"] == [
        "log_domain",
        "log_intent",
        "log_slots",
        "device=speaker",
        "device=tv",
        "hour",
    ]


def changed(**values):
    return json.dumps({**json.loads(VIDEO.to_bytes()), **values}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no json", "video.json: not a re-ranker's file"),
        (b"[]", "not a re-ranker's file"),
        (changed(format=2), "video.json: .* of format 2, this version reads format 1"),
        (changed(features=["log_domain", "log_asr"]), "features log_domain, log_asr; this version computes log_domain"),
        (changed(weights=[1.0]), "1 weights for the features"),
        (changed(context=[{"kind": "spline", "name": "x"}]), "damaged .*spline"),
        (changed(bias="x"), "damaged"),
        (changed(bias=math.inf), "a weight not a number"),
        (changed(loss="R9"), "loss R9"),
    ],
)
def test_files_that_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        Reranker.load({"video.json": data})


def test_two_files_of_one_domain_and_none_at_all():
    with pytest.raises(UserError, match=r"b: has the weights of 'music', as a does"):
        Reranker.load({"a": MUSIC.to_bytes(), "b": MUSIC.to_bytes()})
    with pytest.raises(UserError, match="no weights file"):
        Reranker.load({})


def test_lists_that_are_refused():
    reranker = Reranker([MUSIC, VIDEO])
    with pytest.raises(HypothesisError, match=r"of domain 'shop', which has no re-ranker; there are: music, video"):
        reranker.rank([record("shop", -1, -1, -1)], {"device": "tv", "hour": 1})
    with pytest.raises(HypothesisError, match="no number"):
        reranker.rank([record("music", -1, math.nan, -1)])
    with pytest.raises(UserError, match="'video' needs the context column 'device'"):
        reranker.rank([record("video", -1, -1, -1)], {"hour": 1})
    with pytest.raises(UserError, match=r"'hour' has texts; .* trained on numbers"):
        reranker.rank([record("video", -1, -1, -1)], {"device": "tv", "hour": "noon"})
    with pytest.raises(UserError, match=r"'device' has numbers; .* trained on texts"):
        reranker.rank([record("video", -1, -1, -1)], {"device": 3, "hour": 1})


def test_no_lists_at_all():
    empty = Lists(np.array([0]), (), np.zeros(0, np.int64), np.zeros((3, 0)))
    got = Reranker([MUSIC]).score(empty)
    assert len(got.confidence) == len(got.best) == 0
    assert Reranker([MUSIC]).rank([]) == []
