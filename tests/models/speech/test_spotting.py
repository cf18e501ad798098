"""The word spotter against all windows and all paths."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.speech.decode import collapse
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.spotting import nearest_heard, spot
from gristmill.models.speech.units import phonemes
from gristmill.shards.errors import UserError


def draw(frames, vocab, seed, sharp=2.0):
    logits = np.random.default_rng(seed).normal(size=(frames, vocab)) * sharp
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def in_windows(log_probs, spelling, boundary=None):
    """Return the best score of a spelling in each window, by all paths; the boundary passes for a blank."""
    frames, vocab = log_probs.shape
    lost = log_probs - log_probs.max(axis=1, keepdims=True)
    found = {}
    for first in range(frames):
        for last in range(first, frames):
            for path in itertools.product(range(vocab), repeat=last + 1 - first):
                heard = collapse(np.array([0 if unit == boundary else unit for unit in path]))
                if heard == list(spelling):
                    score = sum(lost[first + place, unit] for place, unit in enumerate(path))
                    found[first, last] = max(score, found.get((first, last), -np.inf))
    return found


SPELLINGS = [[1, 2], [1, 2, 1], [1, 1], [2], [2, 2, 1], [1, 2, 2], [2, 1]]


def table(spellings):
    out = np.zeros((len(spellings), max(map(len, spellings))), np.int32)
    for row, one in zip(out, spellings, strict=True):
        row[: len(one)] = one
    return out


@pytest.mark.parametrize("boundary", [None, 3])
@pytest.mark.parametrize("seed", range(3))
def test_scores_and_windows_are_those_of_all_windows_and_paths(seed, boundary):
    log_probs = draw(5, 4 if boundary else 3, seed)
    found = spot(log_probs, table(SPELLINGS), np.arange(len(SPELLINGS)), boundary=boundary)
    for spelling, score, first, last in zip(SPELLINGS, *found, strict=True):
        windows = in_windows(log_probs, spelling, boundary)
        assert score == pytest.approx(max(windows.values()))
        assert windows[first, last] == pytest.approx(score)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(-30, -1))
def test_a_floor_leaves_out_what_is_below_it_and_changes_nothing_else(seed, floor):
    rng = np.random.default_rng(seed)
    spellings = table([rng.integers(1, 5, rng.integers(1, 6)).tolist() for _ in range(30)])
    log_probs = draw(12, 5, seed, sharp=4.0)
    every, found = (spot(log_probs, spellings, np.arange(30), floor=one) for one in (-1e9, floor))
    for all_of, kept, left_out in zip(every, found, (-np.inf, -1, -1), strict=True):
        np.testing.assert_array_equal(kept, np.where(every.scores >= floor, all_of, left_out))


def test_entries_do_not_depend_on_the_others_or_their_order():
    rng = np.random.default_rng(1)
    spellings = table([rng.integers(1, 4, rng.integers(1, 7)).tolist() for _ in range(200)])
    log_probs = draw(20, 4, 0)
    together = spot(log_probs, spellings, np.arange(200))
    order = rng.permutation(200)
    other = spot(log_probs, spellings[order], np.arange(200))
    for one, same in zip(together, other, strict=True):
        np.testing.assert_array_equal(one[order], same)
    for entry in range(0, 200, 20):
        alone = spot(log_probs, spellings[entry : entry + 1], np.array([0]))
        assert [one[0] for one in alone] == [one[entry] for one in together]


def test_the_best_spelling_of_an_entry_counts_and_one_without_is_not_heard():
    log_probs = draw(8, 4, 3)
    alone = spot(log_probs, table([[1, 2], [3, 3], [2, 3]]), np.array([0, 1, 2]))
    found = spot(log_probs, table([[1, 2], [3, 3], [2, 3]]), np.array([2, 0, 2]))
    best = max((0, 2), key=lambda place: alone.scores[place])
    assert [one[2] for one in found] == [one[best] for one in alone]
    assert [one[1] for one in found] == [-np.inf, -1, -1]


def test_what_is_heard_scores_0_in_its_frames():
    path = [0, 3, 3, 0, 2, 1, 1, 0, 2]
    found = spot(np.log(np.full((9, 4), 0.05) + 0.8 * np.eye(4)[path]), table([[3, 2, 1]]), np.array([0]))
    assert (found.scores[0], found.first[0], found.last[0]) == (0.0, 1, 6)


def test_impossible_units_and_no_frames_are_no_errors():
    log_probs = np.full((3, 3), -np.inf)
    log_probs[:, 0] = 0.0
    assert spot(log_probs, table([[1]]), np.array([0])).scores[0] == -np.inf
    assert spot(np.zeros((0, 3)), table([[1]]), np.array([0])).scores[0] == -np.inf
    assert len(spot(log_probs, np.zeros((0, 4), np.int32), np.zeros(0, int)).scores) == 0


def heard(spoken, units):
    path = [units.tokens.index(one) for one in spoken.split()]
    return np.log(np.full((len(path), len(units)), 0.01) + 0.95 * np.eye(len(units))[path])


def test_the_nearest_words_are_best_first_with_the_boundary_within_words():
    units = phonemes(["a", "b", "c", "<wb>"])
    listed = Lexicon.pronounced({"far": ["c c c"], "half": ["a c a"], "near": ["c", "a b"]}, units)
    log_probs = heard("a <wb> b <wb>", units)
    assert [listed.words[place] for place in nearest_heard(log_probs, listed, 2)] == ["near", "half"]
    # There are too few frames for "far", three times a phone with blanks between; then for "half" too.
    assert len(nearest_heard(log_probs, listed, 10)) == 2
    assert len(nearest_heard(log_probs[:1], listed, 10)) == 1
    assert len(nearest_heard(log_probs, listed, 0)) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_the_nearest_words_are_those_of_all_words(seed, most, with_boundary):
    rng = np.random.default_rng(seed)
    tokens = ["a", "b", "c", *(["<wb>"] if with_boundary else [])]
    spelled = [" ".join(rng.choice(list("abc"), rng.integers(1, 6))) for _ in range(60)]
    words: dict[str, list[str]] = {}
    for one in spelled:
        words.setdefault(str(rng.integers(40)), []).append(one)
    listed, log_probs = Lexicon.pronounced(words, phonemes(tokens)), draw(12, len(tokens) + 1, seed, sharp=4.0)
    boundary, given, spellings = 4, log_probs, listed.spellings
    lengths = (spellings > 0).sum(axis=1)
    if with_boundary:
        edge = np.full((1, 5), -1000.0)
        edge[0, boundary] = 0
        given = np.concatenate([edge, log_probs, edge])
        spellings = table([[boundary, *row[row > 0], boundary] for row in listed.spellings])
    scores = spot(given, spellings, np.arange(len(lengths)), boundary=boundary if with_boundary else None, floor=-1e9)
    values = np.full(len(listed.words), -np.inf)
    np.maximum.at(values, listed.of, (scores.scores - 4.0) / lengths)
    wanted = np.argsort(-values, kind="stable")[:most]
    assert nearest_heard(log_probs, listed, most).tolist() == wanted[values[wanted] > -np.inf].tolist()


def test_a_part_of_a_word_is_not_as_near_as_a_word():
    units = phonemes(["a", "b", "c", "<wb>"])
    listed = Lexicon.pronounced({"part": ["b c"], "other": ["c b"], "whole": ["a b c"]}, units)
    log_probs = heard("a b c <wb> c a", units)
    assert [listed.words[place] for place in nearest_heard(log_probs, listed, 3)] == ["whole", "part", "other"]
    # Without a boundary among the units both are heard all the same, and the longer one is ahead.
    bare = phonemes(["a", "b", "c"])
    listed = Lexicon.pronounced({"part": ["b c"], "whole": ["a b c"]}, bare)
    assert [listed.words[place] for place in nearest_heard(heard("a b c c a", bare), listed, 3)] == ["whole", "part"]


def test_a_list_in_other_units_is_refused():
    listed = Lexicon.pronounced({"a": ["a"]}, phonemes(["a", "b"]))
    with pytest.raises(UserError, match=r"list: spelled in 3 units; expected the recogniser's, 5"):
        nearest_heard(np.zeros((2, 5)), listed, 1)
    with pytest.raises(UserError, match="units up to 7; expected at most 4"):
        spot(np.zeros((2, 5)), np.array([[7]]), np.array([0]))
