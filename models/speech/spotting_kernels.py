"""The search for listed words anywhere in an utterance as a kernel: CTC's best paths, shared among what begins alike.

Entries come sorted, so that an entry's first units are those of the one before. For each of its units there is a row of
frames: the best score of a path that is in that unit in that frame, and the frame where the path began. Rows of units
that two entries share are computed once, and where no path is left, all entries that begin so are passed over.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.models.kernels import kernel

NEVER = -math.inf
_ROUNDING = 1e-9  # nats: of a bound


@kernel
def first_row(row, floor, scores, begins):
    """Write the paths that begin in a unit, whose scores are ``row`` (T,); return the frames from and to there are any.

    A path that loses nothing goes on, so that its first frame is that where the unit is heard first.
    """
    low, high, before, begin = len(row), 0, NEVER, 0
    for frame in range(len(row)):
        score = row[frame]
        if before < 0.0:
            begin = frame
        before = score if score >= floor else NEVER
        scores[frame], begins[frame] = before, begin
        if before != NEVER:
            low, high = min(low, frame), frame + 1
    return low, high


@kernel
def next_row(row, blank, again, floor, low, high, old, old_begins, scores, begins):
    """Write the paths from the unit before, in frames from ``low`` to ``high`` of ``old``, to a unit; return as there.

    ``blank`` (T,) are the scores of frames between the two units; with ``again`` they are the same unit, and there has
    to be such a frame.
    """
    frames = len(row)
    first, end = frames, 0
    inside, inside_begin, between, between_begin = NEVER, 0, NEVER, 0
    for frame in range(low + 1, frames):
        before, before_begin = NEVER, 0
        if frame <= high:
            before, before_begin = old[frame - 1], old_begins[frame - 1]
        elif inside == NEVER and between == NEVER:
            break
        if between > inside:
            inside, inside_begin = between, between_begin
        if not again and before > inside:
            inside, inside_begin = before, before_begin
        inside += row[frame]
        if inside < floor:
            inside = NEVER
        scores[frame], begins[frame] = inside, inside_begin
        if inside != NEVER:
            first, end = min(first, frame), frame + 1
        if before > between:
            between, between_begin = before, before_begin
        between += blank[frame]
        if between < floor:
            between = NEVER
    return first, end


@kernel
def spell(lost, blank, spelling, length, made, floor, rows, begins, low, high):
    """Write the rows of an entry's units but the first ``made``, which are there; return how many there are then.

    Where no path is left, the last row that is made has none, and those of further units are not made.
    """
    while made < length and (made == 0 or low[made - 1] < high[made - 1]):
        row = lost[spelling[made]]
        if made == 0:
            low[0], high[0] = first_row(row, floor, rows[0], begins[0])
        else:
            old, again = made - 1, spelling[made] == spelling[made - 1]
            low[made], high[made] = next_row(
                row, blank, again, floor, low[old], high[old], rows[old], begins[old], rows[made], begins[made]
            )
        made += 1
    return made


@kernel
def best_of(low, high, scores, begins):
    """Return the best score of a row, and the first and last frame of its path: the longest of those that end first."""
    best, first, last = NEVER, -1, -1
    for frame in range(low, high):
        if scores[frame] > best:
            best, first, last = scores[frame], begins[frame], frame
        elif scores[frame] == best and frame == last + 1 and begins[frame] == first:
            last = frame
    return best, first, last


@kernel
def spot(lost, blank, spellings, lengths, shared, floor):
    """Return of each entry the score (n,) of its best path, and that path's first and last frame.

    ``lost`` (V, T) are log-probabilities less those of each frame's best unit, and ``blank`` (T,) those of no unit;
    ``spellings`` (n, longest) are sorted, ``lengths`` (n,) are theirs, and ``shared`` (n,) says how many first units
    each has in common with the one before. What scores less than ``floor`` is passed over: -inf, and frames -1.
    """
    count, longest = spellings.shape
    frames = lost.shape[1]
    rows, begins = np.empty((longest, frames)), np.empty((longest, frames), np.int32)
    low, high = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
    scores, first, last = np.full(count, NEVER), np.full(count, -1, np.int32), np.full(count, -1, np.int32)
    made = 0
    for entry in range(count):
        length = lengths[entry]
        made = min(made, shared[entry])
        made = spell(lost, blank, spellings[entry], length, made, floor, rows, begins, low, high)
        if made == length:
            end = length - 1
            scores[entry], first[entry], last[entry] = best_of(low[end], high[end], rows[end], begins[end])
    return scores, first, last


@kernel
def nearest(lost, blank, spellings, lengths, shared, of, units, price, most):
    """Return the ``most`` words (at most, n) with the best scores less ``price`` a unit, best first.

    As :func:`spot`, of the words ``of`` (n,); ``units`` (n,) are what a score is divided by, and do not fall from one
    entry to the next. What cannot be among the best of those before it is not looked for to its end.
    """
    count, longest = spellings.shape
    frames = lost.shape[1]
    rows, begins = np.empty((longest, frames)), np.empty((longest, frames), np.int32)
    low, high = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
    words, values, size = np.empty(most, np.int64), np.empty(most), 0
    made = 0
    for entry in range(count):
        length, each = lengths[entry], units[entry]
        if entry and units[entry - 1] != each:
            made = 0  # these rows lack paths that are good enough for a longer entry
        floor = NEVER if size < most else values[size - 1] * each + price - _ROUNDING
        made = min(made, shared[entry])
        made = spell(lost, blank, spellings[entry], length, made, floor, rows, begins, low, high)
        if made < length:
            continue
        value = (best_of(low[length - 1], high[length - 1], rows[length - 1], begins[length - 1])[0] - price) / each
        if value == NEVER:
            continue
        word, place = of[entry], 0
        while place < size and (values[place] > value or (values[place] == value and words[place] < word)):
            if words[place] == word:
                break
            place += 1
        if place == most or (place < size and words[place] == word and values[place] >= value):
            continue
        gone = place  # what makes room: a worse spelling of the word, or the last
        while gone < size and words[gone] != word:
            gone += 1
        if gone == size and size < most:
            size += 1
        gone = min(gone, size - 1)
        while gone > place:
            words[gone], values[gone] = words[gone - 1], values[gone - 1]
            gone -= 1
        words[place], values[place] = word, value
    return words[:size].copy()
