"""The compressed baseline of the n-gram store: a LOUDS tree of contexts, after OpenFst's NGramFst.

Sorensen and Allauzen, Unary Data Structures for Language Models, Interspeech 2011. The contexts form a tree by their
words from the last to the first, so that a node's parent is its back-off state; the tree is two bits a node, and a
node's word is stored. A node's arcs are sorted words with values, and one bit each says how many a node has. Words
and values have the same bits as in the store that it is compared with. The next state is found by descending from the
root, as in NGramFst.
"""

from __future__ import annotations

from typing import NamedTuple

from gristmill.models.kernels import kernel
from gristmill.models.ngrams.build import pack
from gristmill.models.ngrams.numbering import Numbering

import numpy as np

_BLOCK = 512  # bits that a count precedes
_SAMPLED = 512  # 0s or 1s of which the block is noted


class Bits(NamedTuple):
    """A bit vector with rank and select: 0.06 bits a bit for the counts, and as much for the samples."""

    words: np.ndarray
    counts: np.ndarray  # 1s before each block
    zeros: np.ndarray  # the block of every 512th 0
    ones: np.ndarray

    @staticmethod
    def of(bits: np.ndarray) -> Bits:
        whole = np.zeros(-(-(len(bits) + 1) // _BLOCK) * _BLOCK, bool)
        whole[: len(bits)] = bits
        words = np.append(np.packbits(whole, bitorder="little").view("<u8"), np.uint64(0))
        counts = np.concatenate([[0], np.cumsum(whole.reshape(-1, _BLOCK).sum(1))]).astype(np.uint32)
        zeros, ones = (np.flatnonzero(one)[::_SAMPLED] // _BLOCK for one in (~whole[: len(bits)], whole[: len(bits)]))
        return Bits(words, counts, zeros.astype(np.uint32), ones.astype(np.uint32))


class Louds(NamedTuple):
    """A model: nodes in breadth-first order, the root first."""

    tree: Bits  # of each node a 1 for each child, then a 0, behind a 1 and a 0 for the root itself
    futures: Bits  # of each node a 1 for each arc, then a 0
    nodes: np.ndarray  # bit-packed: word and back-off
    arcs: np.ndarray  # bit-packed: word and log-probability
    widths: np.ndarray  # bits of a word, and words

    def bytes(self) -> int:
        parts = [*self.tree, *self.futures, self.nodes, self.arcs]
        return sum(part.nbytes for part in parts)


def louds(numbering: Numbering) -> tuple[Louds, np.ndarray]:
    """Return the tree of a model without tables of values, and the node of each state of the store."""
    orders, first = numbering.orders, numbering.first_state
    states = first[-1]
    oldest, node = np.zeros(states, np.int64), np.zeros(states, np.int64)
    state_of = [np.cumsum(arcs.is_state) + begin - 1 for arcs, begin in zip(orders, first[1:], strict=True)]
    sequence = [np.zeros(1, np.int64)]  # states in the order of nodes
    backoffs = np.zeros(states, np.float32)
    for level in range(1, len(orders)):
        arcs = orders[level - 1]
        here = np.arange(first[level], first[level + 1])
        kept = arcs.is_state
        oldest[here] = arcs.words[kept] if level == 1 else oldest[state_of[level - 2][arcs.contexts[kept]]]
        backoffs[here] = arcs.backoff[kept]
        if level > 1 and len(here) and numbering.back[here].min() < first[level - 1]:
            raise SystemExit("a context's suffix is no context: no LOUDS tree of it")
        order = np.lexsort((oldest[here], node[numbering.back[here]]))
        node[here[order]] = here
        sequence.append(here[order])
    of = np.concatenate(sequence)
    degrees = np.bincount(node[numbering.back[1:]], minlength=states)
    tree = np.ones(2 + 2 * states - 1, bool)
    tree[1] = False
    tree[1 + np.cumsum(degrees + 1)] = False
    starts, counts = np.zeros(states, np.int64), np.zeros(states, np.int64)
    counts[0] = len(orders[0])
    for level in range(1, len(orders)):
        offsets = numbering.offsets(level)
        starts[first[level] : first[level + 1]] = offsets[:-1] + numbering.first_arc[level]
        counts[first[level] : first[level + 1]] = np.diff(offsets)
    starts, counts = starts[of], counts[of]
    ends = np.cumsum(counts)
    rows = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1])
    futures = np.ones(ends[-1] + states, bool)
    futures[np.cumsum(counts + 1) - 1] = False
    words = np.concatenate([arcs.words for arcs in orders])[rows]
    values = np.concatenate([arcs.logprob for arcs in orders])[rows].view(np.uint32) & np.uint32(0x7FFFFFFF)
    bits = (len(numbering.words) - 1).bit_length()
    made = Louds(
        Bits.of(tree),
        Bits.of(futures),
        _records([(oldest[of], bits), (backoffs[of].view(np.uint32), 32)]),
        _records([(words, bits), (values, 31)]),
        np.array([bits, len(numbering.words)], np.int64),
    )
    return made, node


def _records(fields: list[tuple[np.ndarray, int]]) -> np.ndarray:
    stride = sum(bits for _, bits in fields)
    words = np.zeros(len(fields[0][0]) * stride // 64 + 2, np.uint64)
    at = 0
    for values, bits in fields:
        pack(words, at, stride, bits, values.astype(np.uint64))
        at += bits
    return words


@kernel
def field(words, at, width):
    place, shift = at >> 6, np.uint64(at & 63)
    high = (words[place + 1] << np.uint64(1)) << (np.uint64(63) - shift)
    return np.int64(((words[place] >> shift) | high) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@kernel
def _count(word):
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@kernel
def _rank(bits, at):
    """Return the 1s before bit ``at``."""
    found = np.int64(bits.counts[at >> 9])
    for place in range(at >> 9 << 3, at >> 6):
        found += _count(bits.words[place])
    return found + _count(bits.words[at >> 6] & ((np.uint64(1) << np.uint64(at & 63)) - np.uint64(1)))


@kernel
def _select(bits, number, one):
    """Return the place of the ``number``-th 1 or 0, from 0 on."""
    block = np.int64(bits.ones[number >> 9]) if one else np.int64(bits.zeros[number >> 9])
    while True:
        before = np.int64(bits.counts[block + 1])
        if not one:
            before = ((block + 1) << 9) - before
        if before > number:
            break
        block += 1
    left = number - (np.int64(bits.counts[block]) if one else (block << 9) - np.int64(bits.counts[block]))
    place = block << 3
    while True:
        word = bits.words[place] if one else ~bits.words[place]
        found = _count(word)
        if found > left:
            break
        left -= found
        place += 1
    for _ in range(left):
        word &= word - np.uint64(1)
    return (place << 6) + _count((word & (~word + np.uint64(1))) - np.uint64(1))


@kernel
def _parent(body, node):
    return _select(body.tree, node, True) - node - 1  # 0s before the 1 that stands for the node, without the root's


@kernel
def _child(body, node, word):
    """Return the child of a node with a word, or -1."""
    begin = _select(body.tree, node, False) + 1
    low = begin - node - 1  # 1s before: nodes
    high = low + (_select(body.tree, node + 1, False) - begin)
    bits = body.widths[0]
    end = high
    while low < high:
        middle = (low + high) >> 1
        if field(body.nodes, middle * (bits + 32), bits) < word:
            low = middle + 1
        else:
            high = middle
    if low < end and field(body.nodes, low * (bits + 32), bits) == word:
        return low
    return np.int64(-1)


@kernel
def _arc(body, node, word):
    """Return the arc of a word in a node, or -1."""
    if node == 0:
        return word
    begin = _select(body.futures, node - 1, False) + 1
    end = _select(body.futures, node, False)
    low, high, bits = begin - node, end - node, body.widths[0]
    last = high
    while low < high:
        middle = (low + high) >> 1
        if field(body.arcs, middle * (bits + 31), bits) < word:
            low = middle + 1
        else:
            high = middle
    if low < last and field(body.arcs, low * (bits + 31), bits) == word:
        return low
    return np.int64(-1)


@kernel
def _following(body, context, words, word):
    """Return the node of the longest suffix of a context, given as its last words first, and a word."""
    node = _child(body, 0, word)
    if node < 0:
        return np.int64(0)
    for place in range(words):
        deeper = _child(body, node, context[place])
        if deeper < 0:
            break
        node = deeper
    return node


@kernel
def look_up_nodes(body, nodes, words, scores, following):
    """As :func:`gristmill.models.ngrams.lookup.look_up_all`."""
    bits = body.widths[0]
    context, passed = np.empty(8, np.int64), np.empty(8, np.float32)
    for query in range(len(words)):
        node, word = np.int64(nodes[query]), np.int64(words[query])
        size = 0  # the context's words, the oldest first
        at = node
        while at != 0:
            context[size] = field(body.nodes, at * (bits + 32), bits)
            passed[size] = np.uint32(field(body.nodes, at * (bits + 32) + bits, 32)).view(np.float32)
            size += 1
            at = _parent(body, at)
        at, missed = node, 0
        arc = _arc(body, at, word)
        while arc < 0:
            at = _parent(body, at)
            missed += 1
            arc = _arc(body, at, word)
        code = field(body.arcs, arc * (bits + 31) + bits, 31)
        score = np.uint32(code | 0x80000000).view(np.float32)
        for left in range(missed - 1, -1, -1):
            score += passed[left]
        for place in range(size // 2):
            context[place], context[size - 1 - place] = context[size - 1 - place], context[place]
        scores[query], following[query] = score, _following(body, context, size, word)
