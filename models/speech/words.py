"""The words of what a CTC model hears: when each is spoken, and how sure the model is of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gristmill.models.speech.alignment import PathSettings, viterbi
from gristmill.models.speech.decode import collapse
from gristmill.models.speech.units import Units

BEGIN = "▁"  # of SentencePiece's pieces that begin a word
_ALL = PathSettings(skip=1e9)  # no unit is passed over


class Word(NamedTuple):
    """A word, its times in s from the utterance's begin, and the model's confidence in it, 0 to 1.

    The confidence is the least, over the word's units, of the unit's highest probability in its frames. Times are those
    of the frames that a CTC model gives to the units, mostly within 0.1 s of the sounds.
    """

    word: str
    start: float
    end: float
    confidence: float


def spoken_words(log_probs: np.ndarray, found: Sequence[int], units: Units, frame: float) -> list[Word]:
    """Return the words of the units ``found`` in log-probabilities (T, V), whose frames are ``frame`` s apart.

    Example:
        >>> from gristmill.models.speech.units import characters
        >>> units = characters(["a b"])
        >>> log_probs = np.log(np.full((5, 4), 0.05) + 0.8 * np.eye(4)[[2, 2, 1, 0, 3]])
        >>> [(one.word, one.start, one.end, round(one.confidence, 2)) for one in
        ...  spoken_words(log_probs, [2, 1, 3], units, 0.5)]
        [('a', 0.0, 1.0, 0.85), ('b', 2.0, 2.5, 0.85)]
    """
    of_unit = _frames(log_probs, found)
    words: list[Word] = []
    for first, last in word_bounds(found, units):
        text = units.decode(found[first:last])
        if text:
            places = [np.flatnonzero(of_unit == unit) for unit in range(first, last)]
            sure = min(float(log_probs[frames, found[first + n]].max()) for n, frames in enumerate(places))
            start, end = int(places[0][0]), int(places[-1][-1]) + 1
            words.append(Word(text, start * frame, end * frame, float(np.exp(sure))))
    return words


def _frames(log_probs: np.ndarray, found: Sequence[int]) -> np.ndarray:
    """Return which of the units each frame (T,) gives, or -1: by the best path that spells them."""
    path = log_probs.argmax(axis=1)
    if collapse(path) == list(found):
        fresh = np.concatenate([[True], path[1:] != path[:-1]]) & (path != 0)
        return np.where(path != 0, np.cumsum(fresh) - 1, -1)
    return forced(log_probs, found)


def forced(log_probs: np.ndarray, units: Sequence[int]) -> np.ndarray:
    """Return which of some units, at least one, each frame (T,) of log-probabilities (T, V) gives by the best path
    through all of them, or -1."""
    states = viterbi(log_probs, np.array(units), np.array([0, len(units)]), log_probs[:, 0], _ALL).states
    return np.where(states & 1 == 1, states >> 1, -1)


def word_bounds(found: Sequence[int], units: Units) -> list[tuple[int, int]]:
    """Return the bounds of words among units, spaces between them left out; each phoneme is a word."""
    tokens = [units.tokens[unit] for unit in found]
    if units.kind == "phonemes":
        return [(place, place + 1) for place in range(len(tokens))]
    bounds, first = [], 0
    for place, token in enumerate(tokens):
        if token == " " or (token.startswith(BEGIN) and place > first):
            bounds.append((first, place))
            first = place + (token == " ")
    bounds.append((first, len(tokens)))
    return [(start, end) for start, end in bounds if end > start]
