"""What a decoder's search has found, as kernels: the ends of its prefixes, best first, with words, frames and peaks."""

from __future__ import annotations

import numpy as np

from gristmill.models.kernels import kernel
from gristmill.models.speech.decoder_kernels import (
    ALIVE,
    BEFORE,
    FIRST,
    LAST,
    MODEL,
    PARENT,
    PLACE,
    SAID,
    UNIT,
    WORD,
    SearchState,
)
from gristmill.models.speech.lexicon_kernels import (
    FREE,
    NEVER,
    NONE,
    OUTSIDE,
    UNKNOWN,
    Prices,
    Tree,
    ended,
    log_prob,
    said,
)
from gristmill.models.speech.search_kernels import add


@kernel
def finals(state, tree, model, prices, end):
    """Return the ends of the beam's prefixes: (n, 2) slots and last words (-1: none), and their scores (n,).

    Ends of equal words are one, with the summed probability. Where every word is cut short, prefixes lack their last.
    """
    counts, nodes = state.counts, state.nodes
    fan = max(tree.most, 1)
    ends, scores = np.empty((counts[ALIVE] * fan, 2), np.int64), np.empty(counts[ALIVE] * fan)
    said_all = np.empty(len(ends), np.int64)
    found = 0
    for is_cut in range(2):
        for slot in range(counts[ALIVE] if not found else 0):
            node = state.alive[slot]
            score = state.sums[slot, 2] + state.told[node, 0]
            place, at = nodes[node, PLACE], nodes[node, MODEL]
            if tree.boundary == NONE:
                ends[found, 0], ends[found, 1], scores[found], said_all[found] = slot, -1, score, slot
                found += 1
                continue
            low, high, word = 0, 1, -1
            if place == OUTSIDE:
                word = UNKNOWN
            elif place > 0:
                low, high = tree.first_word[place], tree.first_word[place + 1]
                if low == high:
                    high += 1
                    can_leave = prices.unknown > NEVER and tree.boundary != FREE and place < tree.listed
                    word = UNKNOWN if can_leave else -1
                    if word == -1 and not is_cut:
                        continue
            for option in range(low, high):
                if place > 0 and word == -1 and not is_cut:
                    word_here = np.int64(tree.words[option])
                else:
                    word_here = np.int64(word)
                price, following = 0.0, at
                number = nodes[node, SAID]
                if word_here != -1:
                    price, following = ended(tree, model, prices, word_here, place, at)
                    number = said(tree, number, word_here, place)
                if end >= 0:
                    price += prices.model * log_prob(model, following, np.int64(end))[0]
                if score + price == NEVER and not is_cut:
                    continue
                same = 0
                while same < found and said_all[same] != number:
                    same += 1
                if same == found:
                    ends[same, 0], ends[same, 1], scores[same], said_all[same] = slot, word_here, NEVER, number
                    found += 1
                scores[same] = add(scores[same], score + price)
    return ends[:found], scores[:found]


@kernel
def spelled(state, slots):
    """Return what the prefixes of slots (n,) are: the bounds (n + 1,) of their units, and of all units, one prefix
    behind another: the units, the words that end before them, the frames of their runs (m, 2), and the peaks."""
    bounds = np.zeros(len(slots) + 1, np.int64)
    for one in range(len(slots)):
        node, length = state.alive[slots[one]], 0
        while node:
            node, length = state.nodes[node, PARENT], length + 1
        bounds[one + 1] = bounds[one] + length
    units, words = np.empty(bounds[-1], np.int64), np.empty(bounds[-1], np.int64)
    frames, peaks = np.empty((bounds[-1], 2), np.int64), np.empty(bounds[-1])
    for one in range(len(slots)):
        slot = slots[one]
        node = state.alive[slot]
        ending = 0 if state.paths[slot, 0] >= state.paths[slot, 1] else 1
        run = state.spans[slot, ending]
        peak = state.peaks[slot, ending]
        for place in range(bounds[one + 1] - 1, bounds[one] - 1, -1):
            units[place], words[place] = state.nodes[node, UNIT], state.nodes[node, WORD]
            frames[place, 0], frames[place, 1], peaks[place] = run[FIRST], run[LAST] + 1, peak
            node = state.nodes[node, PARENT]
            if place > bounds[one]:
                peak = state.run_peaks[run[BEFORE]]
                run = state.runs[run[BEFORE]]
    return bounds, units, words, frames, peaks


def listed(
    state: SearchState, tree: Tree, model: np.ndarray, prices: Prices, end: int, nbest: int
) -> tuple[np.ndarray, ...]:
    """Return the best ends, as if the frames ended here, best first.

    These are the scores of all, the last words (n,) of the best, and what :func:`spelled` returns of these.
    """
    ends, scores = finals(state, tree, model, prices, end)
    order = np.argsort(-scores, kind="stable")
    best = ends[order[:nbest]]
    return scores[order], best[:, 1], *spelled(state, np.ascontiguousarray(best[:, 0]))
