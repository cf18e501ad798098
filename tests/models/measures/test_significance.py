import math
import random

import numpy as np
import pytest

from gristmill.models.measures import significance
from gristmill.models.measures.wer import WerResult, score
from gristmill.shards.errors import UserError


def result(errors, words, speakers):
    """A system whose errors are all substitutions."""
    errors, words = np.asarray(errors), np.asarray(words)
    zeros = np.zeros_like(errors)
    letters = tuple("S" * e + "C" * (w - e) for e, w in zip(errors, words, strict=True))
    return WerResult(errors, zeros, zeros, words, tuple(map(str, speakers)), letters)


def corpus(n, speakers, seed, spread=0.0, rate=0.2):
    rng = np.random.default_rng(seed)
    who = rng.integers(speakers, size=n)
    rates = np.clip(rate + spread * rng.standard_normal(speakers), 0.01, 0.9)
    words = rng.integers(3, 12, size=n)
    return result(rng.binomial(words, rates[who]), words, who)


def test_interval_of_independent_utterances_is_the_binomial_one():
    one = corpus(4000, speakers=4000, seed=1)
    interval = significance.wer_interval({0: one})
    expected = 1.96 * math.sqrt(one.wer * (1 - one.wer) / one.words.sum())
    assert interval.value == pytest.approx(one.wer)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.1)


def test_interval_is_wider_where_speakers_differ():
    alike = significance.wer_interval({0: corpus(2000, 40, seed=2)})
    unlike = significance.wer_interval({0: corpus(2000, 40, seed=2, spread=0.08)})
    assert alike.blocks == unlike.blocks == "speakers"
    assert unlike.high - unlike.low > 2 * (alike.high - alike.low)


def test_coverage_by_speaker():
    hit = 0
    for seed in range(100):
        interval = significance.wer_interval({0: corpus(600, 40, seed, spread=0.05)}, replicates=300)
        hit += interval.low <= 0.2 <= interval.high
    assert hit >= 85


def test_few_speakers_are_kept_and_their_utterances_resampled():
    rng = np.random.default_rng(3)
    # Two speakers far apart, each constant: within a speaker there is nothing to vary.
    who = rng.integers(2, size=200)
    one = result(np.where(who == 0, 1, 4), np.full(200, 5), who)
    interval = significance.wer_interval({0: one})
    assert interval.blocks == "utterances within speakers"
    assert interval.low == interval.high == pytest.approx(one.wer)


def test_same_seed_same_interval_and_seeds_add_width():
    words, who = np.full(500, 6), np.arange(500)
    rng = np.random.default_rng(5)
    runs = {s: result(rng.binomial(words, r), words, who) for s, r in enumerate((0.15, 0.2, 0.25))}
    pooled = significance.wer_interval(runs)
    assert pooled == significance.wer_interval(runs)
    assert pooled.value == pytest.approx(np.mean([r.wer for r in runs.values()]))
    one = significance.wer_interval({1: runs[1]})
    assert pooled.high - pooled.low > 1.5 * (one.high - one.low)


def test_relative_change_is_paired():
    base = corpus(800, 50, seed=6, spread=0.1)
    fixed = np.maximum(base.errors - 1, 0)
    better = result(fixed, base.words, base.speakers)
    change = significance.relative_interval({0: better}, {0: base})
    assert change.value == pytest.approx(fixed.sum() / base.errors.sum() - 1)
    assert change.low < change.value < change.high < 0
    # Unpaired, the two intervals are far wider than the paired change times the rate.
    apart = significance.wer_interval({0: base})
    assert change.high - change.low < (apart.high - apart.low) / apart.value
    same = significance.relative_interval({0: base, 1: base}, {0: base, 1: base})
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_refusals():
    with pytest.raises(UserError, match="same utterances"):
        significance.relative_interval({0: corpus(10, 3, 1)}, {0: corpus(11, 3, 1)})
    clean = result([0, 0], [4, 4], "ab")
    with pytest.raises(UserError, match="no error"):
        significance.relative_interval({0: clean}, {0: clean})


def test_segments_by_hand():
    # reference  w0 w1 w2 w3 w4 w5 w6 w7 w8 w9
    # system a    S  C  C  C  C  D  C  S  C  C     errors 1 | 2
    # system b    C  C  C  C  C  S  C  C  C  C(I)  errors 0 | 1, then 1 added at the end
    assert significance.segments("SCCCCDCSCC", "CCCCCSCCCCI") == [(1, 0), (2, 1), (0, 1)]
    # One good word between two errors does not cut; an insertion breaks a run of good words.
    assert significance.segments("SCSCC", "CCCCC") == [(2, 0)]
    assert significance.segments("SCICC", "CCCC") == [(2, 0)]
    assert significance.segments("CCC", "CCC") == []
    assert significance.segments("SCSCC", "CCCCC", min_good=1) == [(1, 0), (1, 0)]


def test_mapsswe_by_hand():
    a = score(["w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"] * 2, ["x w1 w2 w3 w4 w6 x w8 w9", "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"])
    b = score(
        ["w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"] * 2,
        ["w0 w1 w2 w3 w4 x w6 w7 w8 w9 y", "x y w2 w3 w4 w5 w6 w7 w8 w9"],
    )
    test = significance.mapsswe(a, b)
    # Pairs (1, 0), (2, 1), (0, 1), (0, 2): differences 1, 1, -1, -2; mean -1/4, variance 27/12.
    assert test.segments == 4
    assert test.mean == pytest.approx(-0.25)
    z = -0.25 / math.sqrt(2.25 / 4)
    assert test.z == pytest.approx(z)
    assert test.p == pytest.approx(0.7388826803635267)  # two tails of the normal at 1/3
    back = significance.mapsswe(b, a)
    assert (back.z, back.p) == (-test.z, test.p)


def test_mapsswe_against_sctk():
    """The expected numbers are printed by sclite and sc_stats of SCTK 2.4.10 for these very texts."""
    draw = random.Random(4)
    words = [f"w{i}" for i in range(40)]
    references = [draw.sample(words, draw.randint(4, 14)) for _ in range(120)]

    def recognised(reference, error):
        for word in reference:
            x = draw.random()
            if x < error:
                yield "x"
            elif x >= 1.4 * error:
                yield from (word, "y") if x < 1.7 * error else (word,)

    hypotheses = [[" ".join(recognised(r, error)) for r in references] for error in (0.08, 0.14)]
    a, b = (score([" ".join(r) for r in references], texts) for texts in hypotheses)
    sums = [(int(x.substitutions.sum()), int(x.deletions.sum()), int(x.insertions.sum())) for x in (a, b)]
    assert sums == [(93, 27, 22), (149, 54, 45)]
    test = significance.mapsswe(a, b)
    assert test.segments == 201
    assert (round(test.mean, 3), round(test.z, 3)) == (-0.527, -6.506)


def test_mapsswe_of_equal_and_of_uniform_systems():
    base = corpus(50, 5, seed=9)
    assert significance.mapsswe(base, base).p == 1.0
    wrong = result([1] * 8, [5] * 8, "abcdefgh")
    right = result([0] * 8, [5] * 8, "abcdefgh")
    assert significance.mapsswe(right, wrong).p == 2.0**-7
    assert significance.mapsswe(right, wrong).z < 0


def test_holm_by_hand():
    """The example of Holm's paper's kind: the smallest times 4, then 3, 2, 1, never falling, at most 1."""
    assert significance.holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def test_p_of_a_paired_change_goes_with_its_interval():
    words, who = np.full(300, 6), np.arange(300) % 30
    rng = np.random.default_rng(3)
    base = result(rng.binomial(words, 0.3), words, who)
    alike = significance.paired_change({0: base}, {0: base})
    assert (alike.p, alike.difference.value) == (1.0, 0.0)
    for fixed in (0.3, 0.02):
        errors = base.errors - rng.binomial(base.errors, fixed) + rng.binomial(words - base.errors, 0.02)
        found = significance.paired_change({0: result(errors, words, who)}, {0: base})
        assert (found.p < 0.05) == (not found.difference.low <= 0 <= found.difference.high)
        assert found.p == pytest.approx(
            significance.interval_p(found.difference.value, found.difference.low, found.difference.high), abs=0.03
        )
    clean = result(np.zeros(300, int), words, who)
    worse = significance.paired_change({0: base}, {0: clean})
    assert worse.relative is None
    assert worse.p == pytest.approx(2 / 2001)


def test_p_is_uniform_where_systems_are_alike():
    """Two systems of equal rates: about one p in five below 0.2."""
    below = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        words, who = np.full(200, 6), np.arange(200) % 20
        one, other = (result(rng.binomial(words, 0.2), words, who) for _ in range(2))
        below += significance.paired_change({0: one}, {0: other}, replicates=200).p < 0.2
    assert 15 <= below <= 48


def test_unknown_speakers_are_resampled_by_utterance():
    texts = ["turn on the lights"] * 6
    wrong = ["turn on lights", "turn on the lights"] * 3
    unknown = significance.wer_interval({0: score(texts, wrong)})
    assert unknown.blocks == "utterances"
    assert unknown.low < unknown.value < unknown.high, "they vary also where they are few"
    some = significance.wer_interval({0: score(texts, wrong, ["ann", "ann", None, None, "", ""])})
    assert some.blocks == "utterances within speakers"
    assert some.low < some.value < some.high
