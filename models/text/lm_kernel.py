"""The compiled look-up of a compact n-gram store: what a search in numba calls, millions of times.

    from gristmill.models.text.lm_kernel import StoreBody, look_up

    @numba.njit
    def follow(body, state, words):          # body: store.body, a StoreBody; state: store.begin
        total = np.float32(0)
        for word in words:                   # numbers of words: store.look_up(["turn", "it", "off"])
            logprob, state = look_up(body, state, word)
            total += logprob
        return total, state

:func:`look_up` takes a state and the number of a word, both int64, and returns the base-10 logarithm of the word's
probability in that state, float32, and the next state, int64. It allocates nothing, raises nothing and takes no lock:
it may be called from threads, and released from the interpreter (``nogil``). A state is the longest suffix of the
words so far that a score can depend on, so that two histories with one state may be merged; 0 is the empty history.
The caller sees to it that states come from this store and that words are below ``body.sizes[0]``: neither is checked.

A score is what ARPA says: the value of the longest n-gram that is listed, plus the back-offs of the longer contexts,
added in float32 from the shortest context on. KenLM adds in this order too, so the sums are the same to the last bit.

The layout is in :mod:`gristmill.models.text.lm_store`. Numba is imported with this module, so import it where it is
used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np


class StoreBody(NamedTuple):
    """The arrays of a store, all of them read-only and one-dimensional but ``levels``.

    A field of bits begins at any bit of uint64 words, its lowest bit first, and an array of bits ends with a spare
    word.
    """

    levels: np.ndarray
    """int64 (order + 1, 16): of the states of each context length the columns below; the last row holds totals."""
    sizes: np.ndarray
    """int64 (3,): words, a factor by which a word's number becomes a 52-bit fraction, and arcs that may be states."""
    states: np.ndarray
    """uint64: the records of states: low bits of the first arc, number of the back-off state, back-off."""
    upper: np.ndarray
    """uint64: the upper bits of first arcs (Elias-Fano): the n-th 1, less n places, is that of the n-th state."""
    samples: np.ndarray
    """uint32: the place of every 16th 1 of ``upper``, from the level's first bit on."""
    arcs: np.ndarray
    """uint64: the records of arcs: the word, or its upper bits, and the log-probability."""
    flags: np.ndarray
    """uint64: a bit an arc, whether the n-gram that it completes is a state."""
    ranks: np.ndarray
    """uint32: the number of 1s of ``flags`` before every fourth word."""
    tables: np.ndarray
    """float32: values that are stored by their place in a table."""
    shared: np.ndarray
    """uint32, sorted: the arcs whose upper bits of the word another arc of the same state has too."""
    shared_words: np.ndarray
    """uint32: their words."""


# Columns of StoreBody.levels.
FIRST = 0  # the level's first state
STATE_AT, STATE_BITS = 1, 2  # the bit of the first record in `states`, and the bits of a record
LOW_BITS, BACK_BITS = 3, 4  # the widths of its fields
BACKOFF_BITS, BACKOFF_TABLE = 5, 6  # and where its table begins, -1: the bits are those of a float32
UPPER_AT, SAMPLE_AT = 7, 8  # the first bit in `upper`, the first sample
FIRST_ARC, ARC_AT = 9, 10  # the level's first arc, and the bit of its record
WORD_BITS, DROPPED = 11, 12  # the stored upper bits of a word, and the lower ones that are not stored
VALUE_BITS, VALUE_TABLE = 13, 14  # -1: the bits are those of a float32 without its sign, which is minus
COLUMNS = 16

SAMPLED = 16  # states a sample of `upper`
FRACTION = 52  # bits; a product with a word's number stays below 2**63
_NEAR = 4  # arcs: from here on a step is walked
_STEPS = 3  # of the search before the walk: each leaves about the root of the distance


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, and keep what is compiled for later processes where a folder allows it.

    That is ``NUMBA_CACHE_DIR``, the module's ``__pycache__``, or the user's cache; where none of them can be written,
    each process compiles anew. A compiled function holds those that it calls: numba sees a change of its own file
    only.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for it
        return numba.njit(nogil=True)(function)


@compiled
def field(words, at, width):
    """Return the ``width`` bits from bit ``at`` on, at most 63, as an int64."""
    place = at >> 6
    shift = np.uint64(at & 63)
    low = words[place] >> shift
    high = (words[place + 1] << np.uint64(1)) << (np.uint64(63) - shift)  # a shift by 64 is not defined
    return np.int64((low | high) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@compiled
def _ones(word):
    """Return the number of 1s of a uint64."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def _next_one(words, at):
    """Return the place of the first 1 from bit ``at`` on; there is one."""
    place = at >> 6
    word = (words[place] >> np.uint64(at & 63)) << np.uint64(at & 63)
    while word == 0:
        place += 1
        word = words[place]
    return (place << 6) + _ones((word & (~word + np.uint64(1))) - np.uint64(1))


@compiled
def arcs_of(body, state, level):
    """Return the first arc of a state of a level above 0, and the first behind them, counted from the level's first."""
    row = body.levels[level]
    number = state - row[FIRST]
    upper, base = body.upper, row[UPPER_AT]
    at = base + np.int64(body.samples[row[SAMPLE_AT] + number // SAMPLED])
    left = number % SAMPLED  # 1s to go
    if left:
        place = (at + 1) >> 6
        word = (upper[place] >> np.uint64((at + 1) & 63)) << np.uint64((at + 1) & 63)
        found = _ones(word)
        while found < left:
            left -= found
            place += 1
            word = upper[place]
            found = _ones(word)
        for _ in range(left - 1):
            word &= word - np.uint64(1)
        at = (place << 6) + _ones((word & (~word + np.uint64(1))) - np.uint64(1))
    after = _next_one(upper, at + 1)
    low = row[LOW_BITS]
    record = row[STATE_AT] + number * row[STATE_BITS]
    begin = ((at - base - number) << low) | field(body.states, record, low)
    end = ((after - base - number - 1) << low) | field(body.states, record + row[STATE_BITS], low)
    return begin, end


@compiled
def level_of(body, state):
    """Return the number of words of a state's context."""
    level = 0
    while state >= body.levels[level + 1, FIRST]:
        level += 1
    return level


@compiled
def back(body, state, level):
    """Return the back-off state of a state of a level above 0: of the longest shorter context that is a state."""
    row = body.levels[level]
    record = row[STATE_AT] + (state - row[FIRST]) * row[STATE_BITS]
    return field(body.states, record + row[LOW_BITS], row[BACK_BITS])


@compiled
def backoff(body, state, level):
    """Return the back-off of a state of a level above 0, float32."""
    row = body.levels[level]
    record = row[STATE_AT] + (state - row[FIRST]) * row[STATE_BITS]
    code = field(body.states, record + row[LOW_BITS] + row[BACK_BITS], row[BACKOFF_BITS])
    if row[BACKOFF_TABLE] >= 0:
        return body.tables[row[BACKOFF_TABLE] + code]
    return np.uint32(code).view(np.float32)


@compiled
def arc_value(body, arc, level):
    """Return the log-probability of an arc, counted from the level's first, float32."""
    row = body.levels[level]
    width = row[VALUE_BITS]
    code = field(body.arcs, row[ARC_AT] + arc * (row[WORD_BITS] + width) + row[WORD_BITS], width)
    if row[VALUE_TABLE] >= 0:
        return body.tables[row[VALUE_TABLE] + code]
    return np.uint32(code | 0x80000000).view(np.float32)


@compiled
def find(body, state, level, word):
    """Return the arc of a word in a state, counted from the level's first, or -1.

    Words are numbered by a hash, so the numbers of a state's words are spread evenly, and the place of a word among n
    is about its fraction of all words times n: the distance is about half the root of n, and each further step of the
    same kind leaves the root of that. The walk at the end is right whatever the distance.
    """
    if level == 0:
        return word
    begin, end = arcs_of(body, state, level)
    count = end - begin
    if count == 0:
        return np.int64(-1)
    row = body.levels[level]
    width, bits, dropped = row[WORD_BITS], row[WORD_BITS] + row[VALUE_BITS], row[DROPPED]
    base, scale, wanted = row[ARC_AT], body.sizes[1], word >> dropped
    arc = begin + ((count * ((word * scale) >> 20)) >> 32)
    key = field(body.arcs, base + arc * bits, width)
    if count > 2 * _NEAR:
        for _ in range(_STEPS):
            step = (count * ((((wanted - key) << dropped) * scale) >> 20)) >> 32
            if -_NEAR <= step <= _NEAR:
                break
            arc = min(max(arc + step, begin), end - 1)
            key = field(body.arcs, base + arc * bits, width)
    while key < wanted:
        arc += 1
        if arc == end:
            return np.int64(-1)
        key = field(body.arcs, base + arc * bits, width)
        if key > wanted:
            return np.int64(-1)
    while key > wanted:
        arc -= 1
        if arc < begin:
            return np.int64(-1)
        key = field(body.arcs, base + arc * bits, width)
    if key != wanted:
        return np.int64(-1)
    if dropped and len(body.shared):
        return _among_shared(body, row, arc, begin, end, word)
    return arc


@compiled
def _among_shared(body, row, arc, begin, end, word):
    """Return the arc of a word among those of equal upper bits, or the one that there is."""
    bits = row[WORD_BITS] + row[VALUE_BITS]
    key = field(body.arcs, row[ARC_AT] + arc * bits, row[WORD_BITS])
    first = arc
    while first > begin and field(body.arcs, row[ARC_AT] + (first - 1) * bits, row[WORD_BITS]) == key:
        first -= 1
    last = arc
    while last + 1 < end and field(body.arcs, row[ARC_AT] + (last + 1) * bits, row[WORD_BITS]) == key:
        last += 1
    if first == last:
        return arc
    place = np.searchsorted(body.shared, np.uint32(row[FIRST_ARC] + first))
    for one in range(first, last + 1):
        if np.int64(body.shared_words[place + one - first]) == word:
            return one
    return np.int64(-1)


@compiled
def state_of(body, arc):
    """Return the state of the n-gram that an arc, counted from the first of all, completes; 0 if it is none."""
    if arc >= body.sizes[2]:
        return np.int64(0)
    word = arc >> 6
    bits = body.flags[word] >> np.uint64(arc & 63)
    if bits & np.uint64(1) == 0:
        return np.int64(0)
    found = np.int64(body.ranks[word >> 2])
    for before in range(word & ~3, word):
        found += _ones(body.flags[before])
    below = body.flags[word] & ((np.uint64(1) << np.uint64(arc & 63)) - np.uint64(1))
    return found + _ones(below) + 1


@compiled
def look_up(body, state, word):
    """Return the base-10 log-probability of a word in a state, float32, and the next state, int64.

    Source of the arithmetic: Katz, Estimation of Probabilities from Sparse Data, 1987; of the layout: the module's.
    """
    first = level_of(body, state)
    at, level, missed = state, first, 0
    arc = find(body, at, level, word)
    while arc < 0:
        at = back(body, at, level)
        while at < body.levels[level, FIRST]:
            level -= 1
        missed += 1
        arc = find(body, at, level, word)
    score = arc_value(body, arc, level)
    # The way is gone again for each back-off, as they are added from the shortest context on; the records are near.
    for left in range(missed, 0, -1):
        one, of = state, first
        for _ in range(left - 1):
            one = back(body, one, of)
            while one < body.levels[of, FIRST]:
                of -= 1
        score += backoff(body, one, of)
    following = state_of(body, body.levels[level, FIRST_ARC] + arc)
    while following == 0 and level > 0:
        at = back(body, at, level)
        while at < body.levels[level, FIRST]:
            level -= 1
        arc = find(body, at, level, word)
        if arc >= 0:
            following = state_of(body, body.levels[level, FIRST_ARC] + arc)
    return score, following


@compiled
def look_up_all(body, states, words, scores, following):
    """Do :func:`look_up` for arrays of one length; ``scores`` and ``following`` are written."""
    for place in range(len(words)):
        scores[place], following[place] = look_up(body, np.int64(states[place]), np.int64(words[place]))


@compiled
def score_sentences(body, begin, words, ends, scores):
    """Score sentences that lie one behind the other, each from the state ``begin`` on; ``ends`` is where each ends."""
    place = 0
    for end in ends:
        state = begin
        while place < end:
            scores[place], state = look_up(body, state, np.int64(words[place]))
            place += 1
