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
        made = min(made, shared[entry])
        if made and low[made - 1] >= high[made - 1]:
            continue
        spelling = spellings[entry]
        for place in range(made, lengths[entry]):
            row = lost[spelling[place]]
            if place == 0:
                low[0], high[0] = first_row(row, floor, rows[0], begins[0])
            else:
                old = place - 1
                again = spelling[place] == spelling[old]
                low[place], high[place] = next_row(
                    row, blank, again, floor, low[old], high[old], rows[old], begins[old], rows[place], begins[place]
                )
            made = place + 1
            if low[place] >= high[place]:
                break
        end = lengths[entry] - 1
        if made <= end:
            continue
        for frame in range(low[end], high[end]):
            score = rows[end, frame]
            if score > scores[entry]:
                scores[entry], first[entry], last[entry] = score, begins[end, frame], frame
            elif score == scores[entry] and frame == last[entry] + 1 and begins[end, frame] == first[entry]:
                last[entry] = frame
    return scores, first, last
