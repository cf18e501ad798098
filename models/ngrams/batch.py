"""Look-ups of a compact n-gram store in batches: queries go on side by side.

Most of a look-up's time is spent waiting for memory, for lines that depend on each other: of the state, of its arcs,
and of the state that is backed off to. So a group of queries takes each step together, and each step asks for the
lines of the next one: memory answers for all of them at once (group prefetching: Chen, Ailamaki, Gibbons and Mowry,
Improving Hash Join Performance through Prefetching, 2007). Results are those of
:func:`gristmill.models.ngrams.lookup.look_up`.
"""

from __future__ import annotations

import numpy as np

from gristmill.models.kernels import kernel
from gristmill.models.ngrams.lookup import (
    ARC_AT,
    COLUMNS,
    FIRST,
    FIRST_ARC,
    FLAGS,
    FLAGS_AT,
    LINE,
    MOST_ORDER,
    ROWS,
    STATE_AT,
    STATE_BITS,
    VALUE_BITS,
    WORD_BITS,
    address_of,
    arc_near,
    arc_value,
    back_of,
    begin_of,
    cell_of,
    entry,
    fetch,
    level_of,
    search,
    state_of,
)

GROUP = 32  # queries; as many lines as a core can wait for, and more
_AROUND = 2  # arcs on each side of where a word should be that are fetched too


@kernel
def _fetch_state(at, row, number):
    """Fetch the records of a state and of the one behind it, where its arcs end."""
    bits = entry(at, row, STATE_BITS)
    record = entry(at, row, STATE_AT) + number * bits
    fetch(at, record)
    fetch(at, record + 2 * bits)


@kernel
def _fetch_arc(at, row, begin, end, arc):
    """Fetch the records of some arcs around one."""
    base, bits = entry(at, row, ARC_AT), entry(at, row, WORD_BITS) + entry(at, row, VALUE_BITS)
    fetch(at, base + max(arc - _AROUND, begin) * bits)
    fetch(at, base + min(arc + _AROUND + 1, end) * bits)


@kernel
def look_up_all(body, states, words, scores, following):
    """Write the scores, float32, and next states, of whole numbers, of words in states: arrays of one length."""
    at = address_of(body)
    rows, here, back = np.empty(GROUP, np.int64), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    begins, ends, arcs = np.empty(GROUP, np.int64), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    passed, missed = np.empty((GROUP, MOST_ORDER), np.float32), np.empty(GROUP, np.int64)  # -1: the score is there
    left = np.empty(GROUP, np.int64)  # the queries of the group that are not answered
    for first in range(0, len(words), GROUP):
        size = min(GROUP, len(words) - first)
        for one in range(size):
            left[one], missed[one], here[one] = one, 0, states[first + one]
            rows[one] = level_of(at, here[one])
            if rows[one] > ROWS:
                _fetch_state(at, rows[one], here[one] - entry(at, rows[one], FIRST))
        while size:
            # The records of states are there: where are their arcs, and what comes behind them?
            for place in range(size):
                one = left[place]
                row, word = rows[one], np.int64(words[first + one])
                if row == ROWS:
                    arcs[one] = word
                    _fetch_arc(at, row, word, word, word)
                    continue
                number = here[one] - entry(at, row, FIRST)
                begins[one], ends[one] = begin_of(at, row, number), begin_of(at, row, number + 1)
                _fetch_arc(at, row, begins[one], ends[one], arc_near(at, row, begins[one], ends[one], word))
                backoff, back[one] = back_of(at, row, number)
                if missed[one] >= 0:
                    passed[one, missed[one]] = backoff
                below = row - COLUMNS
                while back[one] < entry(at, below, FIRST):
                    below -= COLUMNS
                if below > ROWS:
                    _fetch_state(at, below, back[one] - entry(at, below, FIRST))
            # The arcs are there.
            for place in range(size):
                one = left[place]
                row, word = rows[one], np.int64(words[first + one])
                if row > ROWS:
                    arcs[one] = -1
                    if begins[one] < ends[one]:
                        arcs[one] = search(at, row, begins[one], ends[one], word)
                if arcs[one] < 0:
                    if missed[one] >= 0:
                        missed[one] += 1
                    continue
                if missed[one] >= 0:
                    score = arc_value(at, row, arcs[one])
                    for longer in range(missed[one] - 1, -1, -1):
                        score += passed[one, longer]
                    scores[first + one] = score
                    missed[one] = -1
                arcs[one] += entry(at, row, FIRST_ARC)
                fetch(at, np.int64(cell_of(at, FLAGS_AT)) + (arcs[one] // FLAGS) * (64 * LINE))
            # The flags of those that were found are there.
            kept = 0
            for place in range(size):
                one = left[place]
                state = state_of(at, arcs[one]) if arcs[one] >= 0 else np.int64(0)
                if state != 0 or rows[one] == ROWS:
                    following[first + one] = state
                    continue
                here[one] = back[one]
                rows[one] -= COLUMNS
                while here[one] < entry(at, rows[one], FIRST):
                    rows[one] -= COLUMNS
                left[kept] = one
                kept += 1
            size = kept
