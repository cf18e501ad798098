"""What a search asks of a word language model, as a kernel: a word's probability in a state, and the next state.

A model is a named tuple of arrays and a compiled function ``step(body, state, word)`` that returns the base-10
logarithm of the word's probability and the next state, for a state and a word's number, both int64.
:func:`register` makes the function known, so that a kernel that calls :func:`follow` takes any kind of model, compiled
into it. :class:`BackoffTable` is a plain one for small models.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from gristmill.models.kernels import kernel
from gristmill.shards.errors import UserError

_ARRAYS = ("keys", "scores", "following", "backoffs", "shorter")  # of a BackoffTable
_steps: dict[type, Callable[..., Any]] = {}


def register(kind: type, step: Callable[..., Any]) -> None:
    """Make known the compiled function that follows models whose arrays are a named tuple of a ``kind``."""
    _steps[kind] = step


def follow(body, state, word):
    """Return, in a kernel, the base-10 log-probability of a word and the next state; 0 and the state of no model."""
    raise NotImplementedError("for kernels")


@overload(follow)
def _follow(body, state, word):
    if isinstance(body, types.NoneType):
        return lambda body, state, word: (0.0, state)
    step = _steps[body.instance_class]
    return lambda body, state, word: step(body, state, word)


@kernel
def follow_all(body, state, words, scores, states):
    """Write the base-10 log-probability of each word after one state, and the states that they lead to."""
    for place in range(len(words)):
        scores[place], states[place] = follow(body, state, words[place])


@dataclass(frozen=True, eq=False)
class WordModel:
    """A word language model for a search.

    ``words`` are those that it has, its markers included; ``body`` is a named tuple of arrays of a kind that is
    :func:`register` ed; ``begin`` the state in which a sentence begins; ``number`` returns the numbers of words, that
    of ``unknown`` for those which the model does not have; ``end`` is the number of the sentence's end, ``None``: it
    has no price.
    """

    words: Sequence[str] = field(repr=False)
    body: Any = field(repr=False)
    begin: int
    number: Callable[[Sequence[str]], np.ndarray] = field(repr=False)
    unknown: int
    end: int | None = None

    def alone(self, words: np.ndarray) -> np.ndarray:
        """Return the base-10 log-probabilities (n,) float64 of words by number, after nothing (state 0)."""
        scores, states = np.empty(len(words)), np.empty(len(words), np.int64)
        follow_all(self.body, 0, np.asarray(words, np.int64), scores, states)
        return scores


class BackoffTable(NamedTuple):
    """The n-grams of a back-off model, found by binary search. States and n-grams are numbered from the unigrams on."""

    keys: np.ndarray
    """int64, sorted: (state of all words but the last) * words + last word."""
    scores: np.ndarray
    """float64: base-10 log-probabilities in the order of ``keys``."""
    following: np.ndarray
    """int64: the states after the n-grams, in the order of ``keys``."""
    backoffs: np.ndarray
    """float64: of states; state 0 is of no words, and has none."""
    shorter: np.ndarray
    """int64: the states without the first word."""
    words: int
    unknown: int
    """A word: what is not listed after no words has its probability."""


@kernel
def step(table, state, word):
    """Return the base-10 log-probability of a word in a state, and the next state (Katz, 1987)."""
    score = 0.0
    while True:
        place = np.searchsorted(table.keys, state * table.words + word)
        if place < len(table.keys) and table.keys[place] == state * table.words + word:
            return score + table.scores[place], table.following[place]
        if state == 0:
            if word == table.unknown:
                return -np.inf, np.int64(0)
            word = np.int64(table.unknown)
        else:
            score += table.backoffs[state]
            state = table.shorter[state]


register(BackoffTable, step)


def table_model(words: Sequence[str], orders: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]]) -> WordModel:
    """Return the model of n-grams as an ARPA file lists them: of each order words (n, order), scores and back-offs.

    Example:
        >>> unigrams = (np.arange(5)[:, None], np.array([-2.0, -9, -1, -0.5, -0.5]), np.array([0, -0.1, 0, -0.2, 0]))
        >>> bigrams = (np.array([[1, 3]]), np.array([-0.3]), None)
        >>> model = table_model(["<unk>", "<s>", "</s>", "go", "on"], [unigrams, bigrams])
        >>> scores, states = np.empty(3), np.empty(3, np.int64)
        >>> follow_all(model.body, model.begin, model.number(["go", "on", "off"]), scores, states)
        >>> scores.round(3).tolist()
        [-0.3, -0.6, -2.1]
    """
    count = len(words)
    numbers = {word: place for place, word in enumerate(words)}
    unknown = numbers.get("<unk>", -1)
    # States are the n-grams of all orders but the highest, by order: a context's number is its n-gram's.
    keys, scores, following = [], [], []
    backoffs, shorter = [np.zeros(1)], [np.zeros(1, np.int64)]
    sorted_keys, sorted_states = np.empty(0, np.int64), np.empty(0, np.int64)
    before = 1
    for order, (grams, score, backoff) in enumerate(orders, start=1):
        grams = grams.astype(np.int64)

        keys.append(_states(grams[:, :-1], sorted_keys, sorted_states, count) * count + grams[:, -1])
        scores.append(np.asarray(score, np.float64))
        suffix = _states(grams[:, 1:], sorted_keys, sorted_states, count)
        if order < len(orders):
            states = before + np.arange(len(grams))
            before += len(grams)
            shorter.append(suffix)
            backoffs.append(np.zeros(len(grams)) if backoff is None else np.asarray(backoff, np.float64))
            following.append(states)
            merged = np.concatenate([sorted_keys, keys[-1]])
            place = np.argsort(merged, kind="stable")
            sorted_keys, sorted_states = merged[place], np.concatenate([sorted_states, states])[place]
        else:
            following.append(suffix)
    every = np.concatenate(keys)
    place = np.argsort(every, kind="stable")
    table = BackoffTable(
        every[place],
        np.concatenate(scores)[place],
        np.concatenate(following)[place],
        np.concatenate(backoffs),
        np.concatenate(shorter),
        count,
        unknown,
    )
    return _of_table(words, table)


def _of_table(words: Sequence[str], table: BackoffTable) -> WordModel:
    numbers = {word: place for place, word in enumerate(words)}
    begin = numbers.get("<s>")
    return WordModel(
        words,
        table,
        0 if begin is None or len(table.backoffs) == 1 else 1 + begin,
        lambda some: np.array([numbers.get(word, table.unknown) for word in some], np.int64),
        table.unknown,
        numbers.get("</s>"),
    )


def table_bytes(model: WordModel) -> bytes:
    """Return a model that :func:`table_model` made as the bytes of a file."""
    table = model.body._asdict()
    letters = np.frombuffer("\n".join(model.words).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, letters=letters, **{name: table[name] for name in _ARRAYS})
    return out.getvalue()


def read_table(data: bytes, source: str) -> WordModel:
    """Return the model that :func:`table_bytes` wrote.

    Raises:
        UserError: it cannot be read; the sentence names the source.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            words = found["letters"].tobytes().decode().split("\n")
            arrays = {name: found[name] for name in _ARRAYS}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{source}: not a table of n-grams: {error}") from None
    unknown = words.index("<unk>") if "<unk>" in words else -1
    return _of_table(words, BackoffTable(**arrays, words=len(words), unknown=unknown))


def _states(grams: np.ndarray, keys: np.ndarray, states: np.ndarray, count: int) -> np.ndarray:
    """Return the states of word strings (n, k): of the longest suffix of each that is one."""
    found = np.zeros(len(grams), np.int64)
    for start in range(grams.shape[1] if len(keys) else 0):
        at, is_state = np.zeros(len(grams), np.int64), found == 0
        for column in range(start, grams.shape[1]):
            key = at * count + grams[:, column]
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            is_state &= keys[place] == key
            at = states[place]
        found[is_state] = at[is_state]
    return found
