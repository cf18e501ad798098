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
    advance,
    begin,
)
from gristmill.models.speech.lexicon_kernels import FREE, NEVER, OUTSIDE, UNKNOWN, ended, said
from gristmill.models.speech.search_kernels import add
from gristmill.models.word_models import follow


@kernel
def finals(state, tree, model, prices, end):
    """Return the ends of the beam's prefixes: (n, 2) slots and last words (-1: none), (n,) their scores, and how many.

    Ends of equal words are one, with the summed probability. Where every word is cut short, prefixes lack their last.
    """
    counts, nodes = state.counts, state.nodes
    fan = 1 if tree is None else max(tree.most, 1)
    ends, scores = np.empty((counts[ALIVE] * fan, 2), np.int64), np.empty(counts[ALIVE] * fan)
    said_all = np.empty(len(ends), np.int64)
    found = 0
    for is_cut in range(2):
        for slot in range(counts[ALIVE] if not found else 0):
            node = state.alive[slot]
            score = state.sums[slot, 2] + state.told[node, 0]
            place, at = nodes[node, PLACE], nodes[node, MODEL]
            if tree is None:
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
                    word = UNKNOWN if prices.unknown > NEVER and tree.boundary != FREE else -1
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
                    number = said(number, word_here, place)
                if end >= 0:
                    price += prices.model * follow(model, following, np.int64(end))[0]
                if score + price == NEVER and not is_cut:
                    continue
                same = 0
                while same < found and said_all[same] != number:
                    same += 1
                if same == found:
                    ends[same, 0], ends[same, 1], scores[same], said_all[same] = slot, word_here, NEVER, number
                    found += 1
                scores[same] = add(scores[same], score + price)
    return ends, scores, found


@kernel
def spelled(state, slot, units, words, frames, peaks):
    """Write a prefix's units (n,), the words that end before them, the frames of their runs (n, 2), and the peaks."""
    node = state.alive[slot]
    ending = 0 if state.paths[slot, 0] >= state.paths[slot, 1] else 1
    run = state.spans[slot, ending]
    peak = state.peaks[slot, ending]
    for place in range(len(units) - 1, -1, -1):
        units[place], words[place] = state.nodes[node, UNIT], state.nodes[node, WORD]
        frames[place, 0], frames[place, 1], peaks[place] = run[FIRST], run[LAST] + 1, peak
        node = state.nodes[node, PARENT]
        if place:
            peak = state.run_peaks[run[BEFORE]]
            run = state.runs[run[BEFORE]]


@kernel
def listed(state, tree, model, prices, end, nbest):
    """Return the best ends, as if the frames ended here, best first.

    These are the scores of all, the last words (n,) of the best, the bounds (n + 1,) of their units, and what
    :func:`spelled` writes of each, one behind another.
    """
    ends, scores, found = finals(state, tree, model, prices, end)
    order = np.argsort(-scores[:found], kind="mergesort")
    count = min(nbest, found)
    bounds = np.zeros(count + 1, np.int64)
    for place in range(count):
        node, length = state.alive[ends[order[place], 0]], 0
        while node:
            node, length = state.nodes[node, PARENT], length + 1
        bounds[place + 1] = bounds[place] + length
    units, words = np.empty(bounds[count], np.int64), np.empty(bounds[count], np.int64)
    frames, peaks = np.empty((bounds[count], 2), np.int64), np.empty(bounds[count])
    for place in range(count):
        some = slice(bounds[place], bounds[place + 1])
        spelled(state, ends[order[place], 0], units[some], words[some], frames[some], peaks[some])
    return scores[:found][order], ends[order[:count], 1], bounds, units, words, frames, peaks


@kernel
def whole(log_probs, beam, at_first, tokens, threshold, margin, tree, model, prices, end, nbest):
    """Return what is :func:`listed` of all frames of log-probabilities (T, V)."""
    state = advance(begin(beam, at_first), log_probs, tokens, threshold, margin, tree, model, prices)
    return listed(state, tree, model, prices, end, nbest)
