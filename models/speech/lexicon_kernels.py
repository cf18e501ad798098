"""A decoder's lexicon and prices as kernels see them: which units may follow, which words end there, what it costs."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gristmill.models.kernels import kernel
from gristmill.models.ngrams.lookup import look_up

NEVER = -math.inf
UNKNOWN = -2  # word: one that the lexicon does not have
OUTSIDE = -1  # place in the lexicon's tree: within such a word
# Words end at a unit of their own, before units that begin a word, or anywhere; or there are no words.
SPACE, MARK, FREE, NONE = range(4)
OF_WORD, OF_PLACE, OF_UNIT, OF_END = range(4)  # kinds of what is said
_SAID = np.int64(6364136223846793005)  # Knuth's multiplier (MMIX): words so far as a number
_STEP = np.int64(1442695040888963407)


class Tree(NamedTuple):
    """A lexicon as arrays; places are numbered breadth first, so the i-th branch of all leads to place i + 1.

    The places of a user's list of words lie behind those of the lexicon, and their words behind its words; no branch
    leads from one to the other, and what begins a word leads from both first places.
    """

    first: np.ndarray
    """int32 (places + 1,): the first branch of each place."""
    units: np.ndarray
    """int32 (branches,): sorted within a place."""
    first_word: np.ndarray
    """int32 (places + 1,): the first of a place's words in ``words``."""
    words: np.ndarray
    """int32: the words that are complete at each place."""
    ahead: np.ndarray
    """float64 (places,): what the best of the words at or behind a place adds by the language model alone, and a listed
    one's price."""
    numbers: np.ndarray
    """int64: of each word, its number in the language model."""
    unlisted: np.ndarray
    """bool: of each word, whether the language model lacks it."""
    parts: np.ndarray
    """bool (V,): the units that end the word before them: those that begin one, or the space."""
    space: int
    """The unit between words, or -1."""
    boundary: int
    """SPACE, MARK, FREE or NONE."""
    most: int
    """The most words at a place."""
    unknown: int
    """The number of the unknown word in the language model."""
    unknown_ahead: float
    """What it adds by the language model alone."""
    known: int
    """The words of the lexicon; the others are those of the list."""
    listed: int
    """The list's first place; without a list, how many places there are."""
    same: np.ndarray
    """int64: of each word of the list, the word that it is: the lexicon's if that has it."""
    entry: np.ndarray
    """float64: of each word of the list, its price."""
    boost: np.ndarray
    """float64: of each place of the list, the most nats that the unit which leads there may be given."""


def no_tree(units: int) -> Tree:
    """Return the tree of a search without a lexicon, among so many units: one place, from which no unit leads away."""
    none = np.zeros(0, np.int32)
    first, parts = np.zeros(2, np.int32), np.zeros(units, bool)
    numbers, unlisted, prices = np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0)
    at_once = (first, none, first, none, np.zeros(1), numbers, unlisted, parts, -1, NONE, 0, -1, 0.0)
    return Tree(*at_once, known=0, listed=1, same=numbers, entry=prices, boost=prices)


class Prices(NamedTuple):
    """What is added to a prefix's log-probability."""

    model: float
    """Times the base-10 log-probability of a word."""
    word: float
    """For each word."""
    unknown: float
    """For each word that the lexicon or the language model does not have; -inf: there are none."""
    unknown_unit: float
    """For each of its units, if the lexicon does not have it."""
    unigram: bool
    """Whether a listed word has the probability of the unknown word although the language model has it."""
    scale: float
    """The share of a listed word's unit's distance to the frame's best one that it is given."""
    blank: bool
    """Whether that best one may be the blank."""
    gain: float
    """The most that a unit with the word which ends before it can add."""


@kernel
def branch(first, units, place, unit):
    """Return the place that a unit leads to, or -1."""
    low, high = first[place], first[place + 1]
    end = high
    while low < high:
        middle = (low + high) // 2
        if units[middle] < unit:
            low = middle + 1
        else:
            high = middle
    return np.int64(low + 1 if low < end and units[low] == unit else OUTSIDE)


@kernel
def ways(tree, prices, place, unit, found):
    """Write the ways on from a place by a unit, and return how many.

    A way is the word that ends (-1: none), the next place, and a number that tells it from the place's others.
    """
    is_listed = place >= tree.listed
    can_leave = prices.unknown > NEVER and not is_listed
    has_list = tree.listed < len(tree.first) - 1
    stride = 3 if has_list else 2
    count = 0
    is_space = unit == tree.space
    at_start = place == 0
    if not tree.parts[unit] and not (at_start and tree.boundary == FREE):
        child = OUTSIDE if place == OUTSIDE else branch(tree.first, tree.units, place, unit)
        if child != OUTSIDE or (can_leave and (place == OUTSIDE or tree.boundary != FREE)):
            found[count, 0], found[count, 1], found[count, 2] = -1, child, child == OUTSIDE
            count += 1
        if at_start and has_list:
            child = branch(tree.first, tree.units, tree.listed, unit)
            if child != OUTSIDE:
                found[count, 0], found[count, 1], found[count, 2] = -1, child, 2
                count += 1
        if tree.boundary != FREE:
            return count
    can_leave = prices.unknown > NEVER
    child = 0 if is_space else branch(tree.first, tree.units, 0, unit)
    other = branch(tree.first, tree.units, tree.listed, unit) if has_list and not is_space else np.int64(OUTSIDE)
    low, high = 0, 0
    if place > 0:
        low, high = tree.first_word[place], tree.first_word[place + 1]
    # What ends before this unit: nothing at the start, a word outside, each of the place's, or one that it is not yet.
    outside = place == OUTSIDE or (place > 0 and low == high and can_leave and tree.boundary != FREE and not is_listed)
    for option in range(1 if at_start or outside else high - low):
        word = -1 if at_start else UNKNOWN if outside else tree.words[low + option]
        label = 0 if at_start else stride * (option + 1)
        if child != OUTSIDE:
            found[count, 0], found[count, 1], found[count, 2] = word, child, label
            count += 1
        if not is_space and can_leave and (child == OUTSIDE or tree.boundary == FREE):
            found[count, 0], found[count, 1], found[count, 2] = word, OUTSIDE, label + 1
            count += 1
        if other != OUTSIDE:
            found[count, 0], found[count, 1], found[count, 2] = word, other, label + 2
            count += 1
    return count


@kernel
def log_prob(model, state, number):
    """Return the base-10 log-probability of a word in a state, float64, and the next state; 0 without a model."""
    if not len(model):
        return 0.0, state
    score, following = look_up(model, state, number)
    return np.float64(score), following


@kernel
def ended(tree, model, prices, word, place, state):
    """Return what a word adds that ends at a place, and the language model's next state.

    The price of an unknown word is paid where it leaves the lexicon, or here if it ends within the tree. A listed word
    may have the probability of the unknown one; the state is that after the word itself.
    """
    number = np.int64(tree.unknown) if word == UNKNOWN else tree.numbers[word]
    score, following = log_prob(model, state, number)
    if word >= tree.known and prices.unigram:
        score = log_prob(model, state, np.int64(tree.unknown))[0]
    price = prices.model * score + prices.word
    if (word == UNKNOWN and place != OUTSIDE) or (
        word != UNKNOWN and tree.unlisted[word] and (word < tree.known or not prices.unigram)
    ):
        price += prices.unknown
    if word >= tree.known:
        price += tree.entry[word - tree.known]
    return price, following


@kernel
def ahead(tree, place):
    """Return what the word that has begun will add, at best."""
    return tree.unknown_ahead if place == OUTSIDE else tree.ahead[place]


@kernel
def mixed(before, kind, value):
    """Return a number for what is said so far, of the one before and a word, a place or a unit."""
    return (before ^ np.int64(4 * value + kind)) * _SAID + _STEP


@kernel
def said(tree, before, word, place):
    """Return the number for the words so far; of one outside the lexicon, its units are in it already."""
    if word != UNKNOWN:
        return mixed(before, OF_WORD, word if word < tree.known else tree.same[word - tree.known])
    if place != OUTSIDE:
        before = mixed(before, OF_PLACE, place)
    return mixed(before, OF_END, 0)
