"""The lexicon of a decoder: words with their spellings in a model's units, as a prefix tree in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gristmill.models.speech.units import Units, normalise
from gristmill.models.speech.words import BEGIN
from gristmill.shards.errors import UserError

if TYPE_CHECKING:
    from gristmill.models.ngrams.store import LmStore
    from gristmill.models.speech.lexicon_kernels import Tree

MARKERS = ("<unk>", "<s>", "</s>")  # of language models' lists of words


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words, and their spellings (n, longest) in units with 0 behind each, of the words ``of`` (n,).

    Characters and pieces spell a word in one way, phonemes in one or several; several words may be spelled alike.
    """

    units: Units
    words: tuple[str, ...]
    spellings: np.ndarray = field(repr=False)
    of: np.ndarray = field(repr=False)
    unspelled: tuple[str, ...] = ()
    """Words that were left out, as the units lack a letter of theirs."""

    @classmethod
    def spelled(cls, words: Iterable[str], units: Units, source: str = "lexicon") -> Lexicon:
        """Return the lexicon of words as characters or pieces spell them; a language model's markers are no words.

        ``source`` is how errors name where the words are from.

        Raises:
            UserError: the units are phonemes, or they can spell none of the words.

        Example:
            >>> from gristmill.models.speech.units import characters
            >>> lexicon = Lexicon.spelled(["go", "on", "<unk>", "off"], characters(["go on"]))
            >>> lexicon.words, lexicon.unspelled
            (('go', 'on'), ('off',))
        """
        if units.kind == "phonemes":
            raise UserError(f"{source}: the units are phonemes; expected pronunciations of the words")
        kept, spellings, missed = [], [], []
        for word in dict.fromkeys(words):
            if word in MARKERS:
                continue
            found = units.encode(word)
            if found and units.decode(found) == normalise(word) == word:
                kept.append(word)
                spellings.append(found)
            else:
                missed.append(word)
        return cls._of(units, kept, [(place, one) for place, one in enumerate(spellings)], missed, source)

    @classmethod
    def pronounced(cls, pronunciations: Mapping[str, Sequence[str]], units: Units, source: str = "lexicon") -> Lexicon:
        """Return the lexicon of words with one or several pronunciations, each the phonemes between spaces.

        Raises:
            UserError: there is no word, or a pronunciation is empty or has a symbol that is no unit.

        Example:
            >>> from gristmill.models.speech.units import phonemes
            >>> lexicon = Lexicon.pronounced({"a": ["ə", "e ɪ"], "eh": ["e"]}, phonemes(["ə", "e", "ɪ"]))
            >>> lexicon.spellings.tolist(), lexicon.of.tolist()
            ([[1, 0], [2, 3], [2, 0]], [0, 0, 1])
        """
        number = {token: place for place, token in enumerate(units.tokens) if place}
        spellings = []
        for place, (word, several) in enumerate(pronunciations.items()):
            if isinstance(several, str):
                raise UserError(f"{source}: {word!r} has the pronunciation {several!r}; expected a list of them")
            for one in several:
                symbols = one.split()
                unknown = next((symbol for symbol in symbols if symbol not in number), None)
                if unknown is not None or not symbols:
                    fault = f"the symbol {unknown!r}, which is no unit" if symbols else "no symbol"
                    raise UserError(f"{source}: the pronunciation {one!r} of {word!r} has {fault}")
                spellings.append((place, [number[symbol] for symbol in symbols]))
        return cls._of(units, list(pronunciations), spellings, [], source)

    def pronounce(self, text: str) -> list[int]:
        """Return the units of a text's words, each as it is spelled first.

        Raises:
            UserError: the lexicon lacks a word.

        Example:
            >>> from gristmill.models.speech.units import phonemes
            >>> lexicon = Lexicon.pronounced({"a": ["ə", "e ɪ"], "eh": ["e"]}, phonemes(["ə", "e", "ɪ"]))
            >>> lexicon.pronounce("eh a")
            [2, 1]
        """
        found: list[int] = []
        for word in normalise(text).split():
            several = self.spelled_as(word)
            if not several:
                raise UserError(
                    f"lexicon: has no word {word!r}, which is in {text[:80]!r}; expected all words of texts"
                )
            found += several[0]
        return found

    @classmethod
    def _of(
        cls,
        units: Units,
        words: list[str],
        spellings: list[tuple[int, list[int]]],
        missed: list[str],
        source: str,
    ) -> Lexicon:
        if not spellings:
            first = f", the first of which is {missed[0]!r}" if missed else ""
            raise UserError(f"{source}: the units spell none of its {len(words) + len(missed)} words{first}")
        table = padded([one for _, one in spellings])
        return cls(units, tuple(words), table, np.array([word for word, _ in spellings]), tuple(missed))

    @cached_property
    def number(self) -> dict[str, int]:
        """The numbers of the words."""
        return {word: place for place, word in enumerate(self.words)}

    def spelled_as(self, word: str) -> list[list[int]]:
        """Return the spellings of a word; none of one that the lexicon does not have."""
        if word not in self.number:
            return []
        low, high = np.searchsorted(self.of, [self.number[word], self.number[word] + 1])
        return [row[row > 0].tolist() for row in self.spellings[low:high]]

    def tree(self, model: LmStore | None, weight: float) -> Tree:
        """Return the prefix tree for a search with a language model; each place knows the best word behind it.

        ``weight`` is that of the model's base-10 log-probabilities.
        """
        from gristmill.models.speech.lexicon_kernels import Tree  # compiles

        parts, space, boundary = word_bounds_of(self.units)
        numbers, unlisted = numbered(self.words, model)
        scores = np.zeros(len(self.words) + 1) if model is None else weight * alone(model, numbers)
        places = grown(self.spellings, self.of, scores[:-1], len(self.units))
        none = np.zeros(0)
        return Tree(
            places.first,
            places.units,
            places.first_word,
            places.words,
            places.ahead,
            numbers,
            unlisted,
            parts,
            space,
            boundary,
            int(np.diff(places.first_word).max()),
            -1 if model is None else model.unknown_word,
            float(scores[-1]),
            known=len(self.words),
            listed=len(places.ahead),
            same=np.zeros(0, np.int64),
            entry=none,
            boost=none,
        )


def numbered(words: Sequence[str], model: LmStore | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of words in a language model, and whether it lacks them; without one all are 0."""
    if model is None:
        return np.zeros(len(words), np.int64), np.zeros(len(words), bool)
    numbers = model.look_up(words).astype(np.int64)
    return numbers, numbers == model.unknown_word


def alone(model: LmStore, numbers: np.ndarray) -> np.ndarray:
    """Return the base-10 log-probabilities of words without a word before them, and behind them the unknown word's."""
    given = np.append(numbers, model.unknown_word)
    return model.score(np.full(len(given), model.empty), given)[0].astype(np.float64)


def word_bounds_of(units: Units) -> tuple[np.ndarray, int, int]:
    """Return how units tell words apart: ``parts``, ``space`` and ``boundary`` of a tree."""
    from gristmill.models.speech.lexicon_kernels import FREE, MARK, SPACE

    tokens = units.tokens
    space = tokens.index(" ") if units.kind == "characters" and " " in tokens else -1
    boundary = {"characters": SPACE, "sentencepiece": MARK, "phonemes": FREE}[units.kind]
    parts = [token.startswith(BEGIN) if boundary == MARK else place == space for place, token in enumerate(tokens)]
    return np.array(parts), space, boundary


class Places(NamedTuple):
    """A prefix tree's places, breadth first: the fields of a ``Tree`` and the first place of each depth."""

    first: np.ndarray
    units: np.ndarray
    first_word: np.ndarray
    words: np.ndarray
    ahead: np.ndarray
    levels: list[int]
    paths: np.ndarray
    """int64 (spellings, longest): where each of a spelling's units leads, the last one's place also behind it."""


def grown(spellings: np.ndarray, of: np.ndarray, scores: np.ndarray, vocab: int) -> Places:
    """Return the prefix tree of spellings (n, longest) of the words ``of`` (n,), which have ``scores``."""
    # Breadth first: of each length of beginnings the distinct ones, in the order of the shorter one and the unit.
    at, levels, first, branches = np.zeros(len(of), np.int64), [0, 1], [], []
    paths = np.empty(spellings.shape, np.int64)
    for depth, column in enumerate(spellings.T):
        goes_on = column > 0
        key = at * vocab + column
        distinct, place = np.unique(key[goes_on], return_inverse=True)
        at[goes_on] = levels[-1] + place
        paths[:, depth] = at
        branches.append((distinct % vocab).astype(np.int32))
        first.append(distinct // vocab)
        levels.append(levels[-1] + len(distinct))
    places, parents = levels[-1], np.concatenate(first)
    ends = np.unique(np.stack([at, of], axis=1), axis=0)
    ahead = np.full(places, -np.inf)
    np.maximum.at(ahead, ends[:, 0], scores[ends[:, 1]])
    for low, high in zip(levels[-2:0:-1], levels[:1:-1], strict=True):
        np.maximum.at(ahead, parents[low - 1 : high - 1], ahead[low:high])
    return Places(
        np.searchsorted(parents, np.arange(places + 1)).astype(np.int32),
        np.concatenate(branches),
        np.searchsorted(ends[:, 0], np.arange(places + 1)).astype(np.int32),
        ends[:, 1].astype(np.int32),
        ahead,
        levels,
        paths,
    )


def padded(spelled: Sequence[Sequence[int]]) -> np.ndarray:
    """Return spellings (n, longest) int32, with 0 behind each."""
    table = np.zeros((len(spelled), max(map(len, spelled), default=0)), np.int32)
    for row, one in zip(table, spelled, strict=True):
        row[: len(one)] = one
    return table
