"""The decoder's search as kernels: prefix beam search through a lexicon's tree, with a word language model.

A prefix is a node of a tree, which is reached from its parent by a unit and, where that begins another word or is the
space behind one, by the word that ends there: words of equal units are different prefixes. The word language model is
asked when the node is made. Beside the sum over alignments each prefix of the beam has its best alignment, of which the
runs of frames of each unit are kept (token passing, Young et al., 1989): times and confidences need no second pass.

The state between two calls is all in :class:`SearchState`, so frames may come in any chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.models.kernels import kernel
from gristmill.models.speech.lexicon_kernels import (
    FREE,
    NEVER,
    NONE,
    OF_PLACE,
    OF_UNIT,
    OUTSIDE,
    SPACE,
    ahead,
    branch,
    ended,
    mixed,
    said,
    ways,
)
from gristmill.models.speech.search_kernels import add, best, lengthened, pick, place_of, rehash

PARENT, UNIT, WORD, PLACE, SLOT, MODEL, SAID = range(7)  # columns of SearchState.nodes
NODES, ALIVE, RUNS, FRAMES, LIMIT = range(5)  # of SearchState.counts
BEFORE, FIRST, LAST = range(3)  # of a run of frames of a unit: the run before, its frames
_AT_FIRST = 256  # nodes
SMALLEST = 1 << 16  # nodes, beyond which those that lead to no prefix of the beam are dropped


class SearchState(NamedTuple):
    """The state of a search."""

    counts: np.ndarray
    nodes: np.ndarray
    """int64 (n, 7)."""
    told: np.ndarray
    """float64 (n, 2): what words have added, and with what the word that has begun will add at best."""
    keys: np.ndarray
    held: np.ndarray
    alive: np.ndarray
    """int64 (beam,): the nodes of the beam, best first."""
    sums: np.ndarray
    """float64 (beam, 3): log-probability to end in blank, in the last unit, and in all."""
    paths: np.ndarray
    """float64 (beam, 2): of the best alignment that ends in blank, and in the last unit."""
    spans: np.ndarray
    """int64 (beam, 2, 3): of each of both, the last unit's run."""
    peaks: np.ndarray
    """float64 (beam, 2): and its highest log-probability in it."""
    runs: np.ndarray
    """int64 (n, 3): the runs of units before the last."""
    run_peaks: np.ndarray


def begin(beam: int, state: int) -> SearchState:
    """Return the state before the first frame; ``state`` is the language model's."""
    counts = np.array([1, 1, 0, 0, SMALLEST])
    nodes = np.zeros((_AT_FIRST, 7), np.int64)
    nodes[0, PARENT], nodes[0, WORD], nodes[0, MODEL] = -1, -1, state
    sums, paths = np.full((beam, 3), NEVER), np.full((beam, 2), NEVER)
    sums[0, 0] = sums[0, 2] = paths[0, 0] = 0.0
    return SearchState(
        counts,
        nodes,
        np.zeros((_AT_FIRST, 2)),
        np.full(4 * _AT_FIRST, -1, np.int64),
        np.empty(4 * _AT_FIRST, np.int32),
        np.zeros(beam, np.int64),
        sums,
        paths,
        np.full((beam, 2, 3), -1, np.int64),
        np.zeros((beam, 2)),
        np.empty((256, 3), np.int64),
        np.empty(256),
    )


@kernel
def made(tree, model, prices, nodes, told, node, unit, word, place, child):
    """Write a new node."""
    nodes[child, PARENT], nodes[child, UNIT], nodes[child, WORD] = node, unit, word
    nodes[child, PLACE], nodes[child, SLOT] = place, -1
    nodes[child, MODEL], nodes[child, SAID] = nodes[node, MODEL], nodes[node, SAID]
    price = told[node, 0]
    if word != -1:
        added, following = ended(tree, model, prices, word, nodes[node, PLACE], nodes[node, MODEL])
        price += added
        nodes[child, MODEL] = following
        nodes[child, SAID] = said(tree, nodes[node, SAID], word, nodes[node, PLACE])
    if place == OUTSIDE:
        price += prices.unknown_unit
        if word != -1 or nodes[node, PLACE] != OUTSIDE:
            price += prices.unknown
            nodes[child, SAID] = mixed(nodes[child, SAID], OF_PLACE, 0 if word != -1 else nodes[node, PLACE])
        nodes[child, SAID] = mixed(nodes[child, SAID], OF_UNIT, unit)
    told[child, 0], told[child, 1] = price, price + ahead(tree, place)


@kernel
def compacted(counts, nodes, told, keys, held, alive, spans, runs, run_peaks, vocab_ways):
    """Drop the nodes and the runs that lead to no prefix of the beam; the others keep their order."""
    place = np.zeros(counts[NODES], np.int64)
    place[0] = 1
    for slot in range(counts[ALIVE]):
        node = alive[slot]
        while not place[node]:
            place[node] = 1
            node = nodes[node, PARENT]
    kept = 0
    for node in range(counts[NODES]):
        if place[node]:
            nodes[kept], told[kept], place[node] = nodes[node], told[node], kept
            nodes[kept, PARENT] = place[nodes[node, PARENT]] if kept else -1
            kept += 1
        else:
            place[node] = -1
    new_keys, new_held = np.full(len(keys), -1, np.int64), np.empty(len(keys), np.int32)
    for old in range(len(keys)):
        if keys[old] != -1 and place[held[old]] >= 0:
            key = place[keys[old] // vocab_ways] * vocab_ways + keys[old] % vocab_ways
            new = place_of(new_keys, key)
            new_keys[new], new_held[new] = key, place[held[old]]
    for slot in range(counts[ALIVE]):
        alive[slot] = place[alive[slot]]
    counts[NODES] = kept
    counts[LIMIT] = max(SMALLEST, 2 * kept)

    place = np.zeros(counts[RUNS], np.int64)
    for slot in range(counts[ALIVE]):
        for ending in range(2):
            run = spans[slot, ending, BEFORE]
            while run >= 0 and not place[run]:
                place[run] = 1
                run = runs[run, BEFORE]
    kept = 0
    for run in range(counts[RUNS]):
        if place[run]:
            runs[kept], run_peaks[kept], place[run] = runs[run], run_peaks[run], kept
            if runs[kept, BEFORE] >= 0:
                runs[kept, BEFORE] = place[runs[kept, BEFORE]]
            kept += 1
    for slot in range(counts[ALIVE]):
        for ending in range(2):
            if spans[slot, ending, BEFORE] >= 0:
                spans[slot, ending, BEFORE] = place[spans[slot, ending, BEFORE]]
    counts[RUNS] = kept
    return new_keys, new_held


@kernel
def advance(state, log_probs, tokens, threshold, margin, tree, model, prices):
    """Return the state after further frames of log-probabilities (T, V).

    An extension that scores over ``margin`` less than the frame's best so far is passed over.
    """
    counts, nodes, told, keys, held, alive, sums, paths, spans, peaks, runs, run_peaks = state
    vocab = log_probs.shape[1]
    tokens = min(tokens, vocab - 1)
    beam = len(alive)
    has_list = tree.listed < len(tree.first) - 1
    fan = 1 if tree.boundary == NONE else (3 if has_list else 2) * (tree.most + 1) + 1
    most = beam * (1 + tokens * fan)
    # Candidates: node, sums, score, the best alignments, and where these come from, as 2 * slot + ending.
    new_nodes, new_sums, scores = np.empty(most, np.int64), np.empty((most, 3)), np.empty(most)
    new_paths, origins = np.empty((most, 2)), np.empty((most, 2), np.int64)
    next_spans, next_peaks = np.empty_like(spans), np.empty_like(peaks)
    units, values, order = np.empty(tokens, np.int64), np.empty(tokens), np.empty(beam, np.int64)
    moved, found = np.full(vocab, NEVER), np.empty((fan, 3), np.int64)
    can_leave = prices.unknown > NEVER
    boundary, parts, first, branches, bests = tree.boundary, tree.parts, tree.first, tree.units, tree.ahead
    first_word, ending_words, space = tree.first_word, tree.words, tree.space
    listed, boosts = tree.listed, tree.boost
    told[0, 1] = ahead(tree, 0)
    for row in log_probs:
        frame = counts[FRAMES]
        blank = np.float64(row[0])
        moves = pick(row, tokens, threshold, units, values)
        top = max(values[0], blank) if prices.blank or not moves else values[0]
        if counts[NODES] > counts[LIMIT]:
            keys, held = compacted(counts, nodes, told, keys, held, alive, spans, runs, run_peaks, vocab * fan)
        wanted = counts[NODES] + counts[ALIVE] * moves * fan
        if wanted > len(nodes):
            size = max(2 * len(nodes), wanted)
            nodes, told = lengthened(nodes, size), lengthened(told, size)
        if counts[RUNS] + 2 * beam > len(runs):
            size = 2 * len(runs) + 2 * beam
            runs, run_peaks = lengthened(runs, size), lengthened(run_peaks, size)
        while len(keys) < 2 * wanted:
            keys, held = rehash(keys, held, 2 * len(keys))
        for move in range(moves):
            moved[units[move]] = values[move]
        count = counts[ALIVE]
        bar = NEVER
        for slot in range(count):
            node = alive[slot]
            new_nodes[slot], new_sums[slot, 0], new_sums[slot, 1] = node, sums[slot, 2] + blank, NEVER
            ending = 0 if paths[slot, 0] >= paths[slot, 1] else 1
            new_paths[slot, 0], origins[slot, 0] = paths[slot, ending] + blank, 2 * slot + ending
            new_paths[slot, 1], origins[slot, 1] = NEVER, -1
            unit = nodes[node, UNIT]
            if node and moved[unit] != NEVER:
                new_sums[slot, 1] = sums[slot, 1] + moved[unit]
                new_paths[slot, 1] = paths[slot, 1] + moved[unit]
            bar = max(bar, max(new_sums[slot, 0], new_sums[slot, 1]) + told[node, 1] - margin)
        for slot in range(counts[ALIVE]):
            node = alive[slot]
            ending = 0 if paths[slot, 0] >= paths[slot, 1] else 1
            for move in range(moves):
                unit = units[move]
                is_repeat = node and unit == nodes[node, UNIT]
                gained = (sums[slot, 0] if is_repeat else sums[slot, 2]) + values[move]
                if gained == NEVER or gained + told[node, 0] < bar - prices.gain:
                    continue
                here, options = nodes[node, PLACE], 1
                if boundary == NONE:
                    found[0, 0], found[0, 1], found[0, 2] = -1, 0, 0
                elif boundary == SPACE and unit == space and here != OUTSIDE and not can_leave:  # as ways() does
                    options = 1
                    found[0, 0], found[0, 1], found[0, 2] = -1, 0, 0
                    if here:
                        options = first_word[here + 1] - first_word[here]
                    for way in range(options if here else 0):
                        found[way, 0], found[way, 1], found[way, 2] = (
                            ending_words[first_word[here] + way],
                            0,
                            2 * way + 2,
                        )
                elif boundary == FREE or parts[unit] or (has_list and here == 0):
                    options = ways(tree, prices, here, unit, found)
                else:  # as well; most units have none
                    following = here if here == OUTSIDE else branch(first, branches, here, unit)
                    if following == OUTSIDE and (here >= listed or not can_leave):
                        continue
                    easier = boosts[following - listed] if following >= listed else 0.0
                    if following != OUTSIDE and gained + told[node, 0] + bests[following] < bar - easier:
                        continue
                    found[0, 0], found[0, 1], found[0, 2] = -1, following, following == OUTSIDE
                for way in range(options):
                    key = (node * fan + found[way, 2]) * vocab + unit
                    place = place_of(keys, key)
                    if keys[place] == -1:
                        keys[place], held[place] = key, counts[NODES]
                        child, word, following = counts[NODES], found[way, 0], found[way, 1]
                        if word == -1 and following != OUTSIDE:
                            for column in range(7):
                                nodes[child, column] = nodes[node, column]
                            nodes[child, PARENT], nodes[child, UNIT], nodes[child, WORD] = node, unit, -1
                            nodes[child, PLACE], nodes[child, SLOT] = following, -1
                            told[child, 0] = told[child, 1] = told[node, 0]
                            told[child, 1] += bests[following]
                        else:
                            made(tree, model, prices, nodes, told, node, unit, word, following, child)
                        counts[NODES] += 1
                    child = np.int64(held[place])
                    at = nodes[child, SLOT]
                    reached = gained
                    if has_list and found[way, 1] >= listed:
                        reached += min(prices.scale * (top - values[move]), boosts[found[way, 1] - listed])
                    if at < 0:
                        score = reached + told[child, 1]
                        if score < bar or score == NEVER:
                            continue
                        bar = max(bar, score - margin)
                        at = count
                        count += 1
                        new_nodes[at], new_sums[at, 0], new_sums[at, 1] = child, NEVER, reached
                        new_paths[at, 0], new_paths[at, 1] = NEVER, NEVER
                        origins[at, 0], origins[at, 1] = 2 * slot, -1
                    else:
                        new_sums[at, 1] = add(new_sums[at, 1], reached)
                    source = 0 if is_repeat else ending
                    path = paths[slot, source] + values[move]
                    if has_list:
                        path += reached - gained
                    if path > new_paths[at, 1]:
                        new_paths[at, 1], origins[at, 1] = path, 2 * slot + source
        for one in range(count):
            new_sums[one, 2] = add(new_sums[one, 0], new_sums[one, 1])
            scores[one] = new_sums[one, 2] + told[new_nodes[one], 1]
        for slot in range(counts[ALIVE]):
            nodes[alive[slot], SLOT] = -1
        kept = best(count, scores, new_nodes, order)
        while kept > 1 and scores[order[kept - 1]] < bar:
            kept -= 1
        for slot in range(kept):
            one = order[slot]
            was = origins[one, 0]
            for column in range(3):
                next_spans[slot, 0, column] = spans[was >> 1, was & 1, column]
            next_peaks[slot, 0] = peaks[was >> 1, was & 1]
            was = origins[one, 1]
            value = moved[nodes[new_nodes[one], UNIT]]
            if was >= 0:  # a unit that begins
                run = np.int64(-1)
                if nodes[new_nodes[one], PARENT]:
                    run = counts[RUNS]
                    for column in range(3):
                        runs[run, column] = spans[was >> 1, was & 1, column]
                    run_peaks[run] = peaks[was >> 1, was & 1]
                    counts[RUNS] += 1
                next_spans[slot, 1, BEFORE], next_spans[slot, 1, FIRST], next_spans[slot, 1, LAST] = run, frame, frame
                next_peaks[slot, 1] = value
            else:
                old = min(one, counts[ALIVE] - 1)
                next_spans[slot, 1, BEFORE], next_spans[slot, 1, FIRST] = spans[old, 1, BEFORE], spans[old, 1, FIRST]
                next_spans[slot, 1, LAST] = frame
                next_peaks[slot, 1] = max(peaks[old, 1], value)
        for slot in range(kept):
            one = order[slot]
            alive[slot] = new_nodes[one]
            for column in range(3):
                sums[slot, column] = new_sums[one, column]
            paths[slot, 0], paths[slot, 1] = new_paths[one, 0], new_paths[one, 1]
            nodes[alive[slot], SLOT] = slot
        spans, next_spans, peaks, next_peaks = next_spans, spans, next_peaks, peaks
        for move in range(moves):
            moved[units[move]] = NEVER
        counts[ALIVE] = kept
        counts[FRAMES] += 1
    return SearchState(counts, nodes, told, keys, held, alive, sums, paths, spans, peaks, runs, run_peaks)
