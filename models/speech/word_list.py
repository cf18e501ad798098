"""A user's word list in a decoder: names and terms that the lexicon or the language model lacks, or has as rare words.

    decoder = Decoder(units, DecoderSettings(beam=50), lexicon, model)
    names = WordList.of(["Anneliese", "Xiomara"], units)
    print(*names.problems, sep="\\n")
    decoder.decode(log_probs, listed=names)

Of the ways of Dingliwal et al. (Personalization of CTC Speech Recognition Models, SLT 2022), this is unigram boosting,
where the words enter the language model through its class of unknown words, and adaptive subword boosting, where a
unit of a listed word that has begun is brought nearer to the frame's best one. Both act on paths of their own, beside
those of the lexicon: what does not become a listed word gets nothing.

A long list does harm if its words are free, as one of them sounds like anything. So each has a price when the list is
made: the list's share of probability is divided among its words, and words near frequent ones need more evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field

from gristmill.models.speech.lexicon import Lexicon, alone, grown, numbered, padded
from gristmill.models.speech.units import Units, normalise
from gristmill.shards.settings import Settings, Size

if TYPE_CHECKING:
    from gristmill.models.ngrams.store import LmStore
    from gristmill.models.speech.lexicon_kernels import Tree

FREE_ENTRIES = 100  # of a list, beyond which its length has a price
SHORT = 3  # letters or phonemes: words with fewer are told of
_NAMED = 5  # entries that a sentence names


class BiasSettings(Settings):
    """Settings of a decoder's word lists: what a listed word adds to a hypothesis, in nats."""

    unigram: bool = True
    """Whether a listed word has the language model's probability of its unknown word; otherwise it has its own."""
    enter: float = 7.0
    """Nats added for a listed word."""
    size: float = Field(1.2, ge=0)
    """Nats that it costs for each e-fold of the list's length beyond 100 words."""
    confusable: float = Field(0.6, ge=0)
    """Nats that it costs for each nat by which a frequent word is nearer than ``floor``."""
    edit: float = Field(2.0, gt=0)
    """Nats that a frequent word is further away for each unit that differs; it begins at its log-probability."""
    floor: float = Field(-14.0, le=0)
    """Nearness of frequent words that costs nothing."""
    common: Size = Field(5000, ge=0)
    """Words of the lexicon that are asked how near they are, the most frequent ones."""
    scale: float = Field(0.5, ge=0, le=1)
    """Share of its distance to the frame's best unit that a unit of a listed word is given, from the second one on."""
    cap: float = Field(1.0, ge=0)
    """Nats that one unit is given, at most."""
    most: float = Field(3.0, ge=0)
    """Nats that the units of a word are given, at most: the first ones may have all of it."""
    blank: bool = False
    """Whether the frame's best unit may be the blank."""


@dataclass(frozen=True, eq=False)
class WordList:
    """Words that are expected in an utterance, with spellings (n, longest) in units of the words ``of`` (n,).

    ``problems`` are sentences about entries that act otherwise than written, or not at all.

    Example:
        >>> from gristmill.models.speech.units import characters
        >>> names = WordList.of(["Ann", "New York", "ann²"], characters(["a new york anna"]))
        >>> names.words
        ('ann', 'new', 'york')
        >>> print(*names.problems, sep="\\n")
        word list: 2 entries have capital letters, which the units lack, and act in small ones: 'Ann', 'New York'
        word list: 1 entry is of several words, each of which acts as an entry: 'New York'
        word list: 1 word has letters that the units lack, and cannot act: 'ann²'
    """

    units: Units
    words: tuple[str, ...]
    spellings: np.ndarray = field(repr=False)
    of_word: np.ndarray = field(repr=False)
    problems: tuple[str, ...] = ()
    whole: int | None = None
    """Words of the list of which it is a part; null: it is whole."""

    @property
    def length(self) -> int:
        """The words among which the list's share of probability is divided."""
        return len(self.words) if self.whole is None else self.whole

    @classmethod
    def of(
        cls,
        entries: Iterable[str],
        units: Units,
        pronunciations: Mapping[str, Sequence[str]] | Lexicon | None = None,
        source: str = "word list",
    ) -> WordList:
        """Return the list of a user's entries; ``source`` is how its problems name where they are from.

        Phonemes need ``pronunciations``: of a word one or several, each the phonemes between spaces, or a lexicon.
        """
        faults = _Faults()
        words = list(dict.fromkeys(_words(entries, units, pronunciations, faults)))
        kept: list[str] = []
        table: list[list[int]] = []
        numbers: list[int] = []
        for word in words:
            spelled = _spellings(word, units, pronunciations, faults)
            if spelled:
                letters = min(map(len, spelled)) if units.kind == "phonemes" else len(word)
                if letters < SHORT:
                    faults.short.append(word)
                numbers += [len(kept)] * len(spelled)
                table += spelled
                kept.append(word)
        return cls(units, tuple(kept), padded(table), np.array(numbers, np.int64), faults.told(units, source))

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words with their spellings."""
        return Lexicon(self.units, self.words, self.spellings, self.of_word)

    def part(self, places: np.ndarray) -> WordList:
        """Return the list of some of its words, by their numbers; each costs what it costs on the whole list."""
        order = np.sort(places)
        rows = np.flatnonzero(np.isin(self.of_word, order))
        words = tuple(self.words[place] for place in order)
        of_word = np.searchsorted(order, self.of_word[rows])
        return WordList(self.units, words, self.spellings[rows], of_word, self.problems, self.length)

    def spelled_also(self, others: Mapping[str, Sequence[str]]) -> WordList:
        """Return the list with further spellings of its words, in letters; those that the units lack are left out."""
        table, numbers = [], []
        several: dict[int, list[list[int]]] = {}
        for number, row in zip(self.of_word.tolist(), self.spellings.tolist(), strict=True):
            several.setdefault(number, []).append([unit for unit in row if unit])
        for number, word in enumerate(self.words):
            ways = several[number]
            for other in others.get(word, ()):
                spelled = self.units.encode(other)
                if spelled and spelled not in ways and self.units.decode(spelled) == other:
                    ways.append(spelled)
            table += ways
            numbers += [number] * len(ways)
        return WordList(self.units, self.words, padded(table), np.array(numbers, np.int64), self.problems, self.length)


class _Faults:
    """Entries by what is wrong with them."""

    def __init__(self) -> None:
        self.empty: list[str] = []
        self.capital: list[str] = []
        self.several: list[str] = []
        self.twice: list[str] = []
        self.silent: list[str] = []
        self.foreign: list[str] = []
        self.short: list[str] = []

    def told(self, units: Units, source: str) -> tuple[str, ...]:
        """Return a sentence for each kind of fault."""
        is_sound = units.kind == "phonemes"
        what, small = ("symbols in the pronunciation", "phonemes") if is_sound else ("letters", "letters")
        kinds = (
            ("1 entry is empty, and cannot act", "{} entries are empty, and cannot act", self.empty),
            (
                "1 entry has capital letters, which the units lack, and acts in small ones",
                "{} entries have capital letters, which the units lack, and act in small ones",
                self.capital,
            ),
            (
                "1 entry is of several words, each of which acts as an entry",
                "{} entries are of several words, each of which acts as an entry",
                self.several,
            ),
            (
                "1 word is there more than once, and acts once",
                "{} words are there more than once, and act once",
                self.twice,
            ),
            (
                "1 word has no pronunciation, and cannot act",
                "{} words have no pronunciation, and cannot act",
                self.silent,
            ),
            (
                f"1 word has {what} that the units lack, and cannot act",
                f"{{}} words have {what} that the units lack, and cannot act",
                self.foreign,
            ),
            (
                f"1 word has fewer than {SHORT} {small}, and may be heard where it is not said",
                f"{{}} words have fewer than {SHORT} {small}, and may be heard where they are not said",
                self.short,
            ),
        )
        return tuple(
            f"{source}: {(one if len(words) == 1 else several).format(len(words))}{_named(words)}"
            for one, several, words in kinds
            if words
        )


def _named(words: list[str]) -> str:
    named = ", ".join(repr(word) for word in words[:_NAMED] if word)
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return f": {named}{more}" if named else ""


def _words(
    entries: Iterable[str],
    units: Units,
    pronunciations: Mapping[str, Sequence[str]] | Lexicon | None,
    faults: _Faults,
) -> Iterable[str]:
    """Yield the words of entries as the units or the pronunciations have them."""
    known = set(pronunciations.words if isinstance(pronunciations, Lexicon) else pronunciations or ())
    seen: set[str] = set()
    for entry in entries:
        words, is_lowered = entry.split(), False
        if units.kind != "phonemes":
            parts = [normalise(word).split() or [word.lower()] for word in words]
            is_lowered = any(letter.isupper() for letter in entry)
            words = [part for several in parts for part in several]
        else:
            lowered = [word if word in known or word.lower() not in known else word.lower() for word in words]
            is_lowered, words = lowered != words, lowered
        if not words:
            faults.empty.append("")
        if is_lowered:
            faults.capital.append(entry)
        if len(words) > 1:
            faults.several.append(entry)
        for word in words:
            # A part of several entries, as a family's name is, is no fault.
            if word in seen and len(words) == 1 and word not in faults.twice:
                faults.twice.append(word)
            seen.add(word)
            yield word


def _spellings(
    word: str, units: Units, pronunciations: Mapping[str, Sequence[str]] | Lexicon | None, faults: _Faults
) -> list[list[int]]:
    """Return a word's spellings, of which there is none if it cannot act."""
    if units.kind != "phonemes":
        spelled = units.encode(word)
        if spelled and units.decode(spelled) == word:
            return [spelled]
        faults.foreign.append(word)
        return []
    if isinstance(pronunciations, Lexicon):
        found = pronunciations.spelled_as(word)
        several = [units.decode(one).split() for one in found]
    else:
        several = [one.split() for one in (pronunciations or {}).get(word, ())]
    if not any(several):
        faults.silent.append(word)
        return []
    good = [one for one in several if one and set(one) <= set(units.tokens[1:])]
    if not good:
        faults.foreign.append(word)
    return [units.encode(" ".join(one)) for one in good]


class CommonWords(NamedTuple):
    """A lexicon's frequent words, by falling probability: their numbers, spellings (n, longest) and log-probabilities.

    A word of several spellings is there several times.
    """

    words: np.ndarray
    spellings: np.ndarray
    log_probs: np.ndarray


def common_words(lexicon: Lexicon, model: LmStore | None, count: int) -> CommonWords:
    """Return the ``count`` words of a lexicon that a language model finds likeliest, without one the first ones."""
    log_probs = np.full(len(lexicon.words), -math.log(len(lexicon.words)))
    if model is not None:
        numbers, unlisted = numbered(lexicon.words, model)
        log_probs = np.where(unlisted, -np.inf, alone(model, numbers)[:-1] * math.log(10.0))
    words = np.argsort(-log_probs, kind="stable")[:count]
    is_common = np.zeros(len(log_probs), bool)
    is_common[words[log_probs[words] > -np.inf]] = True
    rows = np.flatnonzero(is_common[lexicon.of])
    rows = rows[np.argsort(-log_probs[lexicon.of[rows]], kind="stable")]
    of = lexicon.of[rows].astype(np.int64)
    return CommonWords(of, np.ascontiguousarray(lexicon.spellings[rows]), log_probs[of])


def entry_prices(nearest: np.ndarray, length: int, settings: BiasSettings) -> np.ndarray:
    """Return the prices (n,) of words of a list of a ``length``, in nats, by the nearness (n,) of frequent words.

    Example:
        >>> settings = BiasSettings(enter=3, size=0.5, confusable=0.5, floor=-12)
        >>> entry_prices(np.array([-12.0, -6.0]), 2, settings).round(2).tolist()  # the second is near a frequent word
        [3.0, 0.0]
    """
    size = settings.size * math.log(max(length / FREE_ENTRIES, 1.0))
    return settings.enter - size - settings.confusable * (nearest - settings.floor)


def unit_boosts(depth: np.ndarray, settings: BiasSettings) -> np.ndarray:
    """Return the most nats that units may be given, by how many a word has up to them; the first is given none.

    Example:
        >>> unit_boosts(np.arange(6), BiasSettings(scale=1, cap=2, most=5)).tolist()
        [0.0, 0.0, 2.0, 2.0, 1.0, 0.0]
    """
    given = np.clip(settings.most - settings.cap * (depth - 2), 0.0, settings.cap)
    return np.where((depth > 1) & (settings.scale > 0), given, 0.0)


def with_list(
    tree: Tree,
    listed: WordList,
    known: np.ndarray,
    nearest: np.ndarray,
    model: LmStore | None,
    weight: float,
    settings: BiasSettings,
) -> Tree:
    """Return a lexicon's tree with a list's behind it.

    ``known`` are the list's words' numbers in the lexicon, or -1, and ``nearest`` what :func:`nearness_of` returns;
    ``weight`` is that of the model's base-10 log-probabilities.
    """
    numbers, unlisted = numbered(listed.words, model)
    entry = entry_prices(nearest, listed.length, settings)
    scores = np.full(len(numbers), tree.unknown_ahead)
    if model is not None and not settings.unigram:
        scores = weight * alone(model, numbers)[:-1]
    places = grown(listed.spellings, listed.of_word, scores + entry, len(listed.units))
    # What a word gains by its price is in view bit by bit, unit by unit: all of it at once would fill the beam with
    # words that have only begun.
    lengths, gains = (listed.spellings > 0).sum(axis=1), np.maximum(entry, 0.0)[listed.of_word]
    rest = np.maximum(1.0 - np.arange(1, places.paths.shape[1] + 1) / lengths[:, None], 0.0)
    ahead = np.full(len(places.ahead), -np.inf)
    in_view = (scores + entry)[listed.of_word][:, None] - gains[:, None] * rest
    np.maximum.at(ahead, places.paths, in_view)
    first = len(tree.first) - 1
    depth = np.repeat(np.arange(len(places.levels) - 1), np.diff(places.levels))
    return tree._replace(
        # Between both trees' branches is one of the blank, which never leads on: the i-th leads to place i + 1.
        first=np.concatenate([tree.first[:-1], places.first + np.int32(first)]),
        units=np.concatenate([tree.units, np.zeros(1, np.int32), places.units]),
        first_word=np.concatenate([tree.first_word[:-1], places.first_word + np.int32(len(tree.words))]),
        words=np.concatenate([tree.words, places.words + np.int32(tree.known)]),
        ahead=np.concatenate([tree.ahead, ahead]),
        numbers=np.concatenate([tree.numbers, numbers]),
        unlisted=np.concatenate([tree.unlisted, unlisted]),
        most=max(tree.most, int(np.diff(places.first_word).max())),
        same=np.where(known >= 0, known, tree.known + np.arange(len(known))),
        entry=entry,
        boost=unit_boosts(depth, settings),
    )


def nearness_of(listed: WordList, known: np.ndarray, common: CommonWords | None, settings: BiasSettings) -> np.ndarray:
    """Return how near a frequent word is to each word of a list, ``settings.floor`` at least.

    A frequent word's nearness is its log-probability less ``settings.edit`` for each unit that is to be changed; a word
    is not near itself. ``known`` are the list's words' numbers in the lexicon, or -1.
    """
    found = np.full(len(listed.words), settings.floor)
    if common is None or not settings.confusable or not len(found):
        return found
    from gristmill.models.speech.listed_kernels import nearness  # compiles

    own = known[listed.of_word].astype(np.int64)
    one_by_one = nearness(
        listed.spellings, own, common.spellings, common.words, common.log_probs, settings.edit, settings.floor
    )
    np.maximum.at(found, listed.of_word, one_by_one)
    return found
