"""A channel that mistakes words for others that look alike when spoken: n-best lists where there is no recogniser.

Each word of a reference is heard as one of its nearest words of a vocabulary, or not at all. How near two words are is
a weighted edit distance of their letters: those of one sound class (aspirated or not, long or short, dental or
retroflex) are closer than others. A candidate's channel log-probability is ``-distance / width`` plus Gaussian noise,
normalised over the candidates of its position; so the channel alone is often wrong, as an acoustic model is. No word is
ever put in.
"""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from gristmill.shards.settings import Settings

# Letters that sound alike, in each script; a letter of no class is as far from any other as can be.
_CLASSES = (
    "कखक़ख़ गघग़ चछ जझज़ टठतथ डढड़ढ़दध पफफ़ बभवब नणञङंँम यय़ रऱ लळ सशष ह",
    "ािीीअआइई ुूउऊ ेैएऐ ोौओऔॉ",
    "aeiouy bp dt ckgq fv sz mn lr wh j x",
)
_NEAR = 0.5  # the distance of two letters of one class
_WEAK = 0.6  # of a letter that is hardly heard, put in or left out
_WEAK_LETTERS = "ािीुूेैोौंँ्ः़'h"
_DROPPED = 1.0  # beside the letters of a word that is not heard at all


class ChannelSettings(Settings):
    """How a text is misheard."""

    candidates: int = Field(12, ge=1)
    """Nearest words of the vocabulary, the word itself among them, as one of which a word is heard."""
    width: float = Field(0.4, gt=0)
    """The distance at which a word is e times less probable than one at distance 0."""
    noise: float = Field(1.5, ge=0)
    """Standard deviation of the Gaussian noise on log-probabilities."""
    n: int = Field(50, ge=1)
    """Texts in a list, at most."""


class Confusions:
    """The channel on one vocabulary; the distances of a word to all others are computed once.

    Example:
        >>> channel = Confusions(["light", "right", "lamp", "night"], ChannelSettings(n=2, candidates=3))
        >>> channel.near("light")[0]
        ['light', 'right', 'night', '']
        >>> [text for text, _ in channel.hear(["light"], np.random.default_rng(0))]
        ['light', 'right']
    """

    def __init__(self, vocabulary: Sequence[str], settings: ChannelSettings) -> None:
        self.words = [word for word in vocabulary if word]
        self.settings = settings
        spelt = [_letters(word) for word in self.words]
        self._numbers = {letter: n for n, letter in enumerate(sorted({letter for word in spelt for letter in word}), 1)}
        longest = max(map(len, spelt), default=0)
        self._spelt = np.zeros((len(spelt), longest), np.int64)
        for row, word in enumerate(spelt):
            self._spelt[row, : len(word)] = [self._numbers[letter] for letter in word]
        self._lengths = np.array([len(word) for word in spelt], np.int64)
        self._between = _costs(list(self._numbers))
        self._found: dict[str, tuple[list[str], np.ndarray]] = {}

    def near(self, word: str) -> tuple[list[str], np.ndarray]:
        """Return the nearest candidates of a word and their distances, itself first; "" is the word not heard."""
        if word not in self._found:
            distances = self._distances(word)
            order = np.argsort(distances, kind="stable")[: self.settings.candidates]
            found = [(self.words[n], float(distances[n])) for n in order if self.words[n] != word]
            dropped = _DROPPED + sum(_WEAK if letter in _WEAK_LETTERS else 1.0 for letter in _letters(word))
            near = [(word, 0.0), *found[: self.settings.candidates - 1], ("", dropped)]
            self._found[word] = [name for name, _ in near], np.array([distance for _, distance in near])
        return self._found[word]

    def _distances(self, word: str) -> np.ndarray:
        """Return the edit distance of a word to every word of the vocabulary, all at once."""
        letters = _letters(word)
        alone = np.array([_WEAK if letter in _WEAK_LETTERS else 1.0 for letter in letters])
        theirs = np.zeros(len(self._numbers) + 1)
        for letter, number in self._numbers.items():
            theirs[number] = _WEAK if letter in _WEAK_LETTERS else 1.0
        put_in = theirs[self._spelt]  # (words, letters)
        row = np.concatenate([np.zeros((len(self.words), 1)), np.cumsum(put_in, 1)], 1)
        for place, letter in enumerate(letters):
            known = self._numbers.get(letter)
            swap = self._between[known] if known else np.ones(len(self._numbers) + 1)
            cost = swap[self._spelt]
            new = np.empty_like(row)
            new[:, 0] = row[:, 0] + alone[place]
            for at in range(self._spelt.shape[1]):
                new[:, at + 1] = np.minimum(
                    np.minimum(row[:, at + 1] + alone[place], new[:, at] + put_in[:, at]), row[:, at] + cost[:, at]
                )
            row = new
        return row[np.arange(len(self.words)), self._lengths]

    def hear(self, words: Sequence[str], rng: np.random.Generator) -> list[tuple[str, float]]:
        """Return the ``n`` best texts of a noisy channel and the natural logarithms of their probabilities."""
        width, noise = self.settings.width, self.settings.noise
        choices = []
        for word in words:
            names, distances = self.near(word)
            scores = -distances / width + noise * rng.standard_normal(len(names))
            scores -= np.logaddexp.reduce(scores)
            order = np.argsort(-scores, kind="stable")
            choices.append([(names[at], float(scores[at])) for at in order])
        return [
            (" ".join(name for place, at in enumerate(path) if (name := choices[place][at][0])), score)
            for path, score in _best(choices, self.settings.n)
        ]


def _best(choices: Sequence[Sequence[tuple[str, float]]], n: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the n best paths through independent choices, each sorted best first."""
    start = (0,) * len(choices)
    queue = [(-sum(some[0][1] for some in choices), start)]
    seen = {start}
    found: list[tuple[tuple[int, ...], float]] = []
    while queue and len(found) < n:
        cost, path = heapq.heappop(queue)
        found.append((path, -cost))
        for place, at in enumerate(path):
            if at + 1 < len(choices[place]):
                more = (*path[:place], at + 1, *path[place + 1 :])
                if more not in seen:
                    seen.add(more)
                    heapq.heappush(queue, (cost + choices[place][at][1] - choices[place][at + 1][1], more))
    return found


def _letters(word: str) -> list[str]:
    """Return a word's letters; a nukta stays with its consonant."""
    letters: list[str] = []
    for character in unicodedata.normalize("NFC", word):
        if character == "़" and letters:
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _costs(letters: Sequence[str]) -> np.ndarray:
    """Return what it costs to put one letter for another (letters + 1, letters + 1); number 0 is none."""
    class_of: dict[str, int] = {}
    for number, some in enumerate(" ".join(_CLASSES).split()):
        for letter in _letters(some):
            class_of.setdefault(letter, number)
    groups = np.array([-1, *(class_of.get(letter, len(class_of) + n) for n, letter in enumerate(letters, 1000))])
    cost = np.where(groups[:, None] == groups[None, :], _NEAR, 1.0)
    np.fill_diagonal(cost, 0.0)
    return cost
