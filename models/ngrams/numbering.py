"""The order of a compact n-gram store: which n-grams are states, and the numbers of states and arcs.

An arc is an n-gram: a word in the state of the words before it. Arcs lie sorted by their state and then by the number
of their word, order by order. An n-gram that is the context of another, or has a back-off, is a state, and states are
numbered in the order of the arcs that complete them; so the arcs of a state lie together, those of the next state
behind them, and the state that an arc leads to is the rank of its bit, which nothing else has to store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.models.ngrams.arpa import BOS, EOS, UNK, Arpa, packed
from gristmill.models.ngrams.lookup import FLAGS
from gristmill.models.ngrams.words import number_words
from gristmill.shards.errors import UserError

UNLISTED = np.float32(-100.0)  # log10 of an unknown word's probability where ARPA lists none, as KenLM has it
_MOST = 1 << 31  # states, and n-grams of all orders


@dataclass
class OrderArcs:
    """The n-grams of one order as arcs, in the store's order.

    ``words`` are their last words, and ``contexts`` the rows of their contexts in the order below; ``is_state`` says
    which of them are states. The rows of unigrams are the numbers of their words.
    """

    words: np.ndarray
    contexts: np.ndarray
    logprob: np.ndarray
    backoff: np.ndarray
    is_state: np.ndarray

    def __len__(self) -> int:
        return len(self.words)


class Numbering:
    """The arcs and states of a model: ``orders`` by order, ``words`` by number, and ``back``, the back-off states.

    Level n are the states of n words: ``first_state[n]`` and ``first_arc[n]`` are the numbers of its first state and of
    that state's first arc; behind the last level are the totals. State 0 is the empty context, the only one of level 0.

    Raises:
        UserError: the model lists an n-gram twice or without its context, lacks ``<s>`` or ``</s>``, or has a value
            that is no logarithm of a probability, or too many n-grams; the message names the source.
    """

    def __init__(self, model: Arpa, source: str) -> None:
        total = sum(map(len, model.orders))
        if total >= _MOST:
            raise UserError(f"{source}: has {total} n-grams; expected fewer than {_MOST}")
        self._source, self._names = source, _names(model, source)
        self.words, numbers = number_words(self._names)
        self.begin_word, self.end_word, self.unknown_word = (
            int(numbers[self._names.index(word)]) for word in (BOS, EOS, UNK)
        )
        self._keys: list[np.ndarray] = []  # of each order, sorted: the row of the context, then the word
        self.orders = [self._unigrams(model, numbers)]
        for size in range(2, model.order + 1):
            self.orders.append(self._longer(model, size, numbers))
        states = [int(arcs.is_state.sum()) for arcs in self.orders[:-1]]
        self.first_state = [0, *np.cumsum([1, *states]).tolist()]
        self.first_arc = [0, *np.cumsum([len(arcs) for arcs in self.orders]).tolist()]
        self.back = self._back()

    def offsets(self, level: int) -> np.ndarray:
        """Return the first arcs (states + 1,) of a level's states, counted from the level's first, and their number."""
        below, own = self.orders[level - 1], self.orders[level]
        counts = np.bincount(own.contexts, minlength=len(below))[below.is_state]
        return np.concatenate([[0], np.cumsum(counts)])

    def state_of_word(self, word: int) -> int:
        """Return the state of a context of one word; 0 if it is none."""
        is_state = self.orders[0].is_state
        return 1 + int(is_state[:word].sum()) if is_state[word] else 0

    def _unigrams(self, model: Arpa, numbers: np.ndarray) -> OrderArcs:
        grams = model.orders[0]
        same = np.flatnonzero(np.bincount(grams.words[:, 0], minlength=len(model.words)) != 1)
        if len(same):
            raise UserError(f"{self._source}: {model.words[same[0]]!r} is not once among the unigrams")
        added = len(self._names) - len(grams)  # the unknown word, if it is not listed
        logprob, backoff = self._values(model, 1)
        logprob = np.append(logprob, np.full(added, UNLISTED))
        backoff = np.append(backoff, np.zeros(added, np.float32))
        row = np.argsort(np.append(numbers[grams.words[:, 0]], numbers[len(grams) :]))
        self._keys.append(np.arange(len(row), dtype=np.uint64))
        nothing = np.zeros(len(row), np.int64)
        backoff = backoff[row]
        return OrderArcs(np.arange(len(row), dtype=np.uint32), nothing, logprob[row], backoff, backoff != 0)

    def _longer(self, model: Arpa, size: int, numbers: np.ndarray) -> OrderArcs:
        words = numbers[model.orders[size - 1].words]
        row = words[:, 0].astype(np.int64)
        there = np.ones(len(row), bool)
        for place in range(1, size - 1):
            row, found = _rows(self._keys[place], packed(row, words[:, place]))
            there &= found
        if not there.all():
            self._refuse(model, size, int(np.flatnonzero(~there)[0]), "without its context, the words before the last")
        keys = packed(row, words[:, -1])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            self._refuse(model, size, int(order[twice[0] + 1]), "twice")
        self._keys.append(keys)
        contexts = row[order]
        self.orders[-1].is_state[contexts] = True
        logprob, backoff = self._values(model, size)
        backoff = backoff[order]
        is_state = backoff != 0 if size < model.order else np.zeros(len(keys), bool)
        return OrderArcs(words[:, -1][order], contexts, logprob[order], backoff, is_state)

    def _refuse(self, model: Arpa, size: int, row: int, how: str) -> None:
        gram = " ".join(model.words[word] for word in model.orders[size - 1].words[row])
        raise UserError(f"{self._source}: lists the {size}-gram {gram!r} {how}; expected a complete ARPA file")

    def _values(self, model: Arpa, size: int) -> tuple[np.ndarray, np.ndarray]:
        grams = model.orders[size - 1]
        backoff = grams.backoff if grams.backoff is not None else np.zeros(len(grams), np.float32)
        if not (grams.logprob <= 0).all():
            raise UserError(f"{self._source}: a {size}-gram has a log-probability above 0, or none; expected 0 or less")
        if not np.isfinite(backoff).all():
            raise UserError(f"{self._source}: a {size}-gram has a back-off that is not finite; expected a number")
        return grams.logprob.astype(np.float32), backoff.astype(np.float32)

    def _back(self) -> np.ndarray:
        """Return the back-off state of each state: the longest context without its first words that is a state."""
        state_of = [
            np.cumsum(arcs.is_state) + first - 1 for arcs, first in zip(self.orders, self.first_state[1:], strict=True)
        ]
        keys = [self.orders[0].words[self.orders[0].is_state].astype(np.uint64)]
        back = np.zeros(self.first_state[-1], np.int64)
        for level in range(2, len(self.orders)):
            arcs = self.orders[level - 1]
            contexts = state_of[level - 2][arcs.contexts[arcs.is_state]]
            words = arcs.words[arcs.is_state]
            known = np.concatenate(keys)  # of shorter states, in their order: the state of their context, then the word
            at, found = back[contexts], np.zeros(len(words), np.int64)
            left = np.arange(len(words))
            while len(left):
                row, there = _rows(known, packed(at[left], words[left]))
                found[left[there]] = row[there] + 1
                left = left[~there & (at[left] > 0)]
                at[left] = back[at[left]]
            back[self.first_state[level] : self.first_state[level + 1]] = found
            keys.append(packed(contexts, words))
        return back


def _names(model: Arpa, source: str) -> list[str]:
    """Return the words of a model, the unknown one among them; it is also written in upper case."""
    names = list(model.words)
    if UNK not in names:
        if UNK.upper() in names:
            names[names.index(UNK.upper())] = UNK
        else:
            names.append(UNK)
    for word in (BOS, EOS):
        if word not in names:
            raise UserError(f"{source}: has no {word}; expected a model of sentences, which begin and end")
    return names


def _rows(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of keys among sorted ones, and whether they are there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return row, keys[row] == wanted


def flag_lines(orders: Sequence[OrderArcs]) -> np.ndarray:
    """Return the lines of flags, (cells,) uint64: the states before a line, and the bits of its arcs."""
    flags = np.concatenate([np.zeros(0, bool), *(arcs.is_state for arcs in orders[:-1])])
    whole = np.zeros((len(flags) // FLAGS + 1, FLAGS), bool)
    whole.ravel()[: len(flags)] = flags
    before = np.cumsum(whole.sum(1)) - whole.sum(1)
    bits = np.packbits(whole, axis=1, bitorder="little").view("<u8")
    return np.concatenate([before[:, None].astype(np.uint64), bits], axis=1).ravel()
