"""Forced alignment of many texts with the same frames as a kernel: the best CTC paths through their words' phones.

Texts come sorted, so that a text's first words are those of the one before; what two texts share is aligned once. For
each word there are rows (T + 1,) of the best scores of the first so many frames: with the word spoken and the last
frame in its last phone (a row for each pronunciation), and with the last frame between words.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.models.kernels import kernel

NEVER = -math.inf


@kernel
def go_on(row, entering, after):
    """Write into ``after`` (T + 1,) the paths that are in a state whose frames score ``row`` (T,).

    ``entering`` (T + 1,) are the paths that may enter it.
    """
    at = NEVER
    after[0] = NEVER
    for frame in range(len(row)):
        at = max(at, entering[frame]) + row[frame]
        after[frame + 1] = at


@kernel
def speak(spelling, lost, rows, entering):
    """Turn paths that may enter a pronunciation, ``entering`` (T + 1,), into those in its last unit.

    ``rows`` (2, T + 1) is room.
    """
    go_on(lost[spelling[0]], entering, rows[0])
    for place in range(1, len(spelling)):
        if spelling[place] == 0:
            break
        go_on(lost[0], rows[0], rows[1])
        again = spelling[place] == spelling[place - 1]
        for frame in range(len(entering)):
            entering[frame] = rows[1, frame] if again else max(rows[0, frame], rows[1, frame])
        go_on(lost[spelling[place]], entering, rows[0])
    entering[:] = rows[0]


@kernel
def align(lost, quiet, free, price, words, bounds, shared, spellings, first, last):
    """Return the scores (n,) of the best alignments of texts.

    ``lost`` (V, T) are log-probabilities less those of each frame's best unit, ``quiet`` (T,) the scores of frames
    between words. The texts' ``words`` lie one behind another within ``bounds`` (n + 1,), and ``shared`` (n,) says how
    many first words each has in common with the text before. Pronunciations (m, longest) of word w are those from
    ``first[w]`` to ``first[w + 1]``, and ``last`` (m,) their last units. A word without any is spoken by any frames:
    the first costs ``price``, and the others score ``free`` (T,).
    """
    frames = len(quiet)
    longest, most = 0, 1
    for text in range(len(shared)):
        longest = max(longest, bounds[text + 1] - bounds[text])
    for word in range(len(first) - 1):
        most = max(most, first[word + 1] - first[word])
    between, spoken = np.empty((longest + 1, frames + 1)), np.empty((longest + 1, most, frames + 1))
    ends, ways = np.empty((longest + 1, most), np.int64), np.zeros(longest + 1, np.int64)
    rows, outside = np.empty((2, frames + 1)), np.full(frames + 1, NEVER)
    outside[0] = 0.0
    go_on(quiet, outside, between[0])
    between[0, 0] = 0.0
    scores = np.full(len(shared), NEVER)
    for text in range(len(shared)):
        count = bounds[text + 1] - bounds[text]
        for place in range(shared[text], count):
            word, here = words[bounds[text] + place], place + 1
            known = first[word + 1] - first[word]
            ways[here] = max(known, 1)
            outside[:] = NEVER
            for way in range(ways[here]):
                pronunciation = first[word] + way
                unit = spellings[pronunciation, 0] if known else -1
                entering = spoken[here, way]
                entering[:] = between[place]
                for other in range(ways[place]):
                    if ends[place, other] != unit:
                        np.maximum(entering, spoken[place, other], entering)
                if known:
                    ends[here, way] = last[pronunciation]
                    speak(spellings[pronunciation], lost, rows, entering)
                else:
                    ends[here, way] = -1
                    for frame in range(frames):
                        entering[frame] -= price + free[frame]  # the frame that enters costs no more than this
                    go_on(free, entering, rows[0])
                    entering[:] = rows[0]
                np.maximum(outside, entering, outside)
            go_on(quiet, outside, between[here])
        scores[text] = between[count, frames]
        for way in range(ways[count]):
            scores[text] = max(scores[text], spoken[count, way, frames])
    return scores
