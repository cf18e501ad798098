import math
import random

import numpy as np
import pytest

from gristmill.models.measures import semer
from gristmill.models.measures.semer import Interpretation as Read
from gristmill.models.measures.wer import align
from gristmill.shards.errors import UserError

PLAY = Read("music", "play", (("artist", "adele"), ("song", "hello")))


def test_the_papers_example():
    """One intent and two slots, one slot wrong: 1/3."""
    wrong = Read("music", "play", (("artist", "adele"), ("song", "halo")))
    assert semer.errors(PLAY, wrong) == 1
    assert semer.score([PLAY], [wrong]).semer.value == pytest.approx(1 / 3)


def test_errors_by_hand():
    artist, song = PLAY.slots
    assert semer.errors(PLAY, PLAY) == 0
    assert semer.errors(PLAY, Read("music", "play", (artist,))) == 1
    assert semer.errors(PLAY, Read("music", "play", (artist, song, song))) == 1
    assert semer.errors(PLAY, Read("music", "play", (song, artist))) == 2  # the order counts
    assert semer.errors(PLAY, Read("music", "play", (song,))) == 1
    assert semer.errors(PLAY, Read("video", "play", PLAY.slots)) == 1  # domain and intent are one label
    assert semer.errors(PLAY, Read("video", "pause", ())) == 3
    assert semer.errors(PLAY, Read("music", "play", (("title", "adele"), song))) == 1  # another name


def test_distance_is_that_of_the_aligned_words():
    draw = random.Random(1)
    for _ in range(300):
        first, second = (draw.choices("abcd", k=draw.randint(0, 6)) for _ in range(2))
        letters = align(first, second)
        reads = [Read("d", "i", tuple((c, c) for c in text)) for text in (first, second)]
        assert semer.errors(*reads) == len(letters) - letters.count("C")
        assert semer.errors(*reads) == semer.errors(*reversed(reads))


def test_values_are_compared_without_case_and_spaces():
    assert semer.slot_value("  The　BEATLES ") == "the beatles"


def test_measures_of_a_corpus_by_hand():
    other = Read("video", "watch", (("title", "up"),))
    stop = Read("music", "stop")
    swapped = Read("music", "play", PLAY.slots[::-1])
    got = semer.score([PLAY, PLAY, other, stop], [swapped, PLAY, Read("music", "play", (("title", "up"),)), None])
    np.testing.assert_array_equal(got.errors, [2, 0, 1, 1])
    np.testing.assert_array_equal(got.length, [3, 3, 2, 1])
    values = {name: estimate.value for name, estimate in got.metrics().items()}
    assert values == {
        "semer": pytest.approx(4 / 9),
        "irer": 0.75,
        "icer": 0.5,
        "domain_error": 0.5,
        "intent_accuracy": 0.5,
        "slot_f1": 1.0,  # five expected, five predicted, all correct
        "exact_match": 0.5,
    }


def test_a_slot_that_is_given_twice_is_right_once():
    got = semer.score([PLAY], [Read("music", "play", (PLAY.slots[0],) * 2)])
    assert got.slot_f1.value == pytest.approx(2 * 1 / (2 + 2))
    assert got.exact_match.value == 0


def test_a_corpus_without_slots_has_no_slot_f1():
    assert math.isnan(semer.score([Read("a", "b")], [Read("a", "b")]).slot_f1.value)


def test_standard_error_by_hand():
    # r = 3 / 6; residuals 1 - 1, 2 - 1, 0 - 1; sqrt(3 / 2 * 2) / 6
    got = semer.ratio(np.array([1, 2, 0]), np.array([2, 2, 2]))
    assert got == (0.5, pytest.approx(math.sqrt(3) / 6), 3)
    # With sizes of 1 it is the textbook error of a mean.
    counts = np.array([0, 1, 1, 0, 1])
    assert semer.ratio(counts).error == pytest.approx(counts.std(ddof=1) / math.sqrt(5))
    assert math.isnan(semer.ratio(np.array([1])).error)


def test_standard_error_is_that_of_corpora_drawn_again():
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 6, (2000, 400))
    wrong = rng.binomial(lengths, 0.3)
    drawn = [semer.ratio(y, x) for y, x in zip(wrong, lengths, strict=True)]
    spread = np.std([one.value for one in drawn])
    assert np.mean([one.error for one in drawn]) == pytest.approx(spread, rel=0.05)


def test_refusals():
    with pytest.raises(UserError, match="1 references and 0 hypotheses"):
        semer.score([PLAY], [])
    with pytest.raises(UserError, match="at least one"):
        semer.score([], [])
