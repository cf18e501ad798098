"""The prefix beam search as kernels: bit by bit what :func:`~gristmill.models.speech.decode.prefix_beam_search` finds.

The search in Python is what these are tested against; the same numbers are computed in the same order. What is faster
beside the machine code: the best units of a frame are picked in one pass, an extension that is no prefix of the beam
yet has one path and needs no sum, and the total of a prefix is kept from the frame before.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.models.kernels import kernel

NEVER = -math.inf
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4)
_FEW = -40.0  # nats: what is that much less likely changes no bit of a sum of -0.5 or less
_AT_FIRST = 1024  # nodes


@kernel
def add(a, b):
    """Return log(exp a + exp b)."""
    if a < b:
        a, b = b, a
    if b == NEVER or (b - a < _FEW and a <= -0.5):
        return a
    return a + math.log1p(math.exp(b - a))


@kernel
def pick(row, tokens, threshold, units, values):
    """Write a frame's best units but the blank, best first, with their log-probabilities; return how many."""
    count = 0
    for unit in range(1, len(row)):
        value = np.float64(row[unit])
        if not value >= threshold or value == NEVER or (count == tokens and not value > values[count - 1]):
            continue
        place = count if count < tokens else tokens - 1
        while place > 0 and values[place - 1] < value:
            values[place], units[place] = values[place - 1], units[place - 1]
            place -= 1
        values[place], units[place] = value, unit
        count = min(count + 1, tokens)
    return count


@kernel
def place_of(keys, key):
    """Return where a key is in an open hash table (its length a power of 2, -1: free), or where it goes."""
    mask = np.int64(len(keys) - 1)
    place = np.int64((np.uint64(key) * _SPREAD) >> np.uint64(20)) & mask
    while keys[place] != -1 and keys[place] != key:
        place = (place + 1) & mask
    return place


@kernel
def rehash(keys, held, size):
    """Return a hash table and what it holds in a table of another size."""
    new_keys, new_held = np.full(size, -1, np.int64), np.empty(size, np.int32)
    for old in range(len(keys)):
        if keys[old] != -1:
            place = place_of(new_keys, keys[old])
            new_keys[place], new_held[place] = keys[old], held[old]
    return new_keys, new_held


@kernel
def lengthened(values, size):
    """Return a longer copy of an array (n, ...)."""
    longer = np.empty((size, *values.shape[1:]), values.dtype)
    longer[: len(values)] = values
    return longer


@kernel
def best(count, scores, nodes, order):
    """Write the best of ``count`` candidates into ``order`` (at most, n), best first; return how many.

    Of equal scores the older node is the better one. Insertion, as the prefixes of the beam come nearly in order, and
    most others are worse than the last that is kept.
    """
    size = 0
    for one in range(count):
        score, node = scores[one], nodes[one]
        if size < len(order):
            place = size
            size += 1
        else:
            place = size - 1
            last = order[place]
            if scores[last] > score or (scores[last] == score and nodes[last] < node):
                continue
        while place > 0:
            other = order[place - 1]
            if not (scores[other] < score or (scores[other] == score and nodes[other] > node)):
                break
            order[place] = other
            place -= 1
        order[place] = one
    return size


@kernel
def search(log_probs, beam, nbest, tokens, threshold):
    """Return the best unit strings of log-probabilities (T, V): their units one behind another, bounds, and scores."""
    frames, vocab = log_probs.shape
    tokens = min(tokens, vocab - 1)
    parents, last = np.empty(_AT_FIRST, np.int32), np.empty(_AT_FIRST, np.int32)
    slots = np.full(_AT_FIRST, -1, np.int32)  # of a node: its place in the beam, or -1
    keys, held = np.full(4 * _AT_FIRST, -1, np.int64), np.empty(4 * _AT_FIRST, np.int32)  # children
    parents[0], last[0], slots[0] = -1, 0, 0
    known, alive = 1, 1
    most = beam * (tokens + 1)
    # Of the beam, and of the candidates for the next: node, log-probability to end in blank, in the last unit, in all.
    nodes, in_blank, in_unit, total = np.zeros(beam, np.int32), np.empty(beam), np.empty(beam), np.empty(beam)
    new_nodes, new_blank, new_unit, new_total = np.empty(most, np.int32), np.empty(most), np.empty(most), np.empty(most)
    in_blank[0], in_unit[0], total[0] = 0.0, NEVER, 0.0
    units, values, order = np.empty(tokens, np.int64), np.empty(tokens), np.empty(beam, np.int64)
    scores = np.full(vocab, NEVER)
    for frame in range(frames):
        blank = np.float64(log_probs[frame, 0])
        moves = pick(log_probs[frame], tokens, threshold, units, values)
        if known + alive * moves > len(parents):
            size = max(2 * len(parents), known + alive * moves)
            parents, last = lengthened(parents, size), lengthened(last, size)
            slots = lengthened(slots, size)
            slots[known:] = -1
            while len(keys) < 2 * size:
                keys, held = rehash(keys, held, 2 * len(keys))
        for move in range(moves):
            scores[units[move]] = values[move]
        for one in range(alive):
            node = nodes[one]
            new_nodes[one], new_blank[one], new_unit[one] = node, total[one] + blank, NEVER
            if node and scores[last[node]] != NEVER:
                new_unit[one] = in_unit[one] + scores[last[node]]
        count = alive
        for one in range(alive):
            node = nodes[one]
            for move in range(moves):
                unit = units[move]
                gained = (in_blank[one] if node and unit == last[node] else total[one]) + values[move]
                if gained == NEVER:
                    continue
                key = np.int64(node) * vocab + unit
                place = place_of(keys, key)
                if keys[place] == -1:
                    keys[place], held[place] = key, known
                    parents[known], last[known] = node, unit
                    known += 1
                child = held[place]
                if slots[child] >= 0:
                    new_unit[slots[child]] = add(new_unit[slots[child]], gained)
                else:
                    new_nodes[count], new_blank[count], new_unit[count] = child, NEVER, gained
                    count += 1
        for one in range(count):
            new_total[one] = add(new_blank[one], new_unit[one])
        for one in range(alive):
            slots[nodes[one]] = -1
        alive = best(count, new_total, new_nodes, order)
        for place in range(alive):
            one = order[place]
            nodes[place], total[place] = new_nodes[one], new_total[one]
            in_blank[place], in_unit[place] = new_blank[one], new_unit[one]
            slots[nodes[place]] = place
        for move in range(moves):
            scores[units[move]] = NEVER
    listed = min(nbest, alive)
    bounds = np.zeros(listed + 1, np.int64)
    for place in range(listed):
        node, length = nodes[place], 0
        while node:
            node, length = parents[node], length + 1
        bounds[place + 1] = bounds[place] + length
    spelled = np.empty(bounds[listed], np.int64)
    for place in range(listed):
        node, end = nodes[place], bounds[place + 1]
        while node:
            end -= 1
            spelled[end], node = last[node], parents[node]
    return spelled, bounds, total[:listed].copy()
