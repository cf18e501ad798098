"""A decoder: the beam search through a lexicon with a word language model, n-best, with times, whole or in chunks.

    model = open_store("models/lm.store")  # of gristmill.actors.ngram_files
    lexicon = Lexicon.spelled(model.words.names(), units)
    decoder = Decoder(units, DecoderSettings(beam=50, nbest=10), lexicon, model)
    for one in decoder.decode(log_probs, frame=0.02):
        print(one.text, one.score, one.words)

Without a lexicon it finds what :func:`~gristmill.models.speech.decode.prefix_beam_search` finds. A word's probability
by the language model counts when the word has ended; before that, the best one of the words that may come of what is
heard so far stands for it (Ortmanns et al., 1996). Words that the lexicon does not have are a class of their own if
``DecoderSettings.unknown`` gives them a price: any units at all, that the language model scores as its unknown word.

It runs on CPUs, one utterance a thread, and has no CUDA path: frames follow one another, and lexicon, language model
and prefixes are look-ups in tables, some of which grow meanwhile. The decoders of others on GPUs do less, or have all
of it compiled into one graph before; ``docs/use.md`` tells of them. The cores beside a GPU decode one batch's
utterances side by side while it computes the next (:meth:`Decoder.decode_all`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from gristmill.models.speech.decode import checked
from gristmill.models.speech.lexicon import Lexicon, word_bounds_of
from gristmill.models.speech.units import Units
from gristmill.models.speech.word_list import (
    BiasSettings,
    CommonWords,
    WordList,
    common_words,
    nearness_of,
    with_list,
)
from gristmill.models.speech.words import Word, word_bounds
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

if TYPE_CHECKING:
    from gristmill.models.ngrams.store import LmStore
    from gristmill.models.speech.lexicon_kernels import Prices, Tree


class DecoderSettings(Settings):
    """Settings of a decoder: how widely it searches, and what words cost."""

    beam: Size = Field(16, ge=1)
    """Prefixes kept."""
    nbest: Size = Field(1, ge=1)
    """Hypotheses returned, at most."""
    tokens: Size = Field(8, ge=1)
    """Units of a frame that are followed, the likeliest ones."""
    threshold: float = Field(-12.0, le=0)
    """Log-probability below which a frame's unit is not followed."""
    margin: float = Field(20.0, gt=0)
    """Nats by which a prefix may be worse than the best; only with a lexicon."""
    weight: float = Field(0.5, ge=0)
    """Weight of the language model's log-probabilities."""
    word: float = 1.0
    """Nats added for each word, against the language model's preference for few; only with a lexicon."""
    unknown: float | None = Field(None, le=0)
    """Nats added for a word that the lexicon or the language model does not have; null: only words that both have."""
    unknown_unit: float = Field(0.0, le=0)
    """Nats added for each unit of a word that the lexicon does not have."""


@dataclass(frozen=True)
class Decoded:
    """A hypothesis: its words with their times, its units, its score, and its share of the list's probability.

    ``score`` is the log-probability of the units, with what words add; ``share`` is among the hypotheses of the beam.
    """

    text: str
    words: tuple[Word, ...]
    units: tuple[int, ...]
    score: float
    share: float


_REMEMBERED = 100_000  # words of lists, whose nearness to frequent words is kept


class Rules(NamedTuple):
    """What the kernels are told of lexicon, list and language model: arguments of each call."""

    tree: Tree
    model: np.ndarray
    """The language model's body."""
    prices: Prices
    end: int
    """The number of the sentence's end in the language model, or -1."""


class Decoder:
    """Finds the likeliest texts of a CTC model's log-probabilities.

    Example:
        >>> from gristmill.models.speech.units import characters
        >>> units = characters(["to go on"])
        >>> log_probs = np.log(np.full((5, 6), 0.05) + 0.7 * np.eye(6)[[2, 4, 1, 3, 3]])
        >>> Decoder(units).decode(log_probs)[0].text
        'go n'
        >>> decoder = Decoder(units, DecoderSettings(), Lexicon.spelled(["go", "to", "no"], units))
        >>> best = decoder.decode(log_probs, frame=0.5)[0]
        >>> best.text, [(word.word, word.start, word.end) for word in best.words]
        ('go no', [('go', 0.0, 1.0), ('no', 1.5, 2.5)])
    """

    def __init__(
        self,
        units: Units,
        settings: DecoderSettings | None = None,
        lexicon: Lexicon | None = None,
        model: LmStore | None = None,
        bias: BiasSettings | None = None,
    ) -> None:
        """Make a decoder for a model's ``units``; a language ``model`` needs a ``lexicon``.

        ``bias`` is how lists of words act that come with utterances.

        Raises:
            UserError: a language model without a lexicon, or a lexicon of other units.
        """
        if lexicon is None and model is not None:
            raise UserError("decoder: a language model of words, and no lexicon; expected one of the model's words")
        if lexicon is not None and lexicon.units.digest != units.digest:
            raise UserError("decoder: the lexicon is spelled in other units than those of the recogniser")
        from gristmill.models.speech.lexicon_kernels import Prices, no_tree  # compiles

        self.units, self.settings, self.lexicon = units, settings or DecoderSettings(), lexicon
        self.bias, self._model = bias or BiasSettings(), model
        weight = self.settings.weight * math.log(10.0) if model is not None else 0.0
        unknown = -math.inf if self.settings.unknown is None else self.settings.unknown
        gain = max(self.settings.word, 0.0)
        prices = Prices(weight, self.settings.word, unknown, self.settings.unknown_unit, False, 0.0, False, gain)
        tree = no_tree(len(units)) if lexicon is None else lexicon.tree(model, weight)
        self._begin, end, body = 0, -1, np.zeros(0, np.uint64)
        body.flags.writeable = False  # one type, whether there is a model or not
        if model is not None:
            self._begin, end, body = model.begin, model.end_word, model.body
        # Of the kernels' arguments, those of all utterances, and those of the list that came last.
        margin = math.inf if lexicon is None else self.settings.margin
        self._width = (self.settings.tokens, self.settings.threshold, margin)
        self._rules = Rules(tree, body, prices, end)
        self._last: tuple[WordList, Rules] | None = None
        self._near: dict[tuple[str | bytes, ...], float] = {}

    def decode(self, log_probs: np.ndarray, *, frame: float = 1.0, listed: WordList | None = None) -> list[Decoded]:
        """Return the best hypotheses of log-probabilities (T, V), best first, whose frames are ``frame`` s apart.

        Where the frames end within a word, and no hypothesis is whole, that word is left out. ``listed`` are words that
        are expected; the same list again costs nothing.

        Raises:
            UserError: ``log_probs`` has another shape, or the list cannot be used: see :meth:`stream`.
        """
        stream = self.stream(frame=frame, listed=listed)
        stream.hear(log_probs)
        return stream.best()

    def decode_all(
        self,
        utterances: Sequence[np.ndarray],
        *,
        frame: float = 1.0,
        threads: int = 1,
        listed: WordList | None = None,
    ) -> list[list[Decoded]]:
        """Return :meth:`decode` of utterances (T, V) each, searched side by side by ``threads``."""
        self._rules_of(listed)  # once
        if threads <= 1:
            return [self.decode(one, frame=frame, listed=listed) for one in utterances]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda one: self.decode(one, frame=frame, listed=listed), utterances))

    def stream(self, *, frame: float = 1.0, listed: WordList | None = None) -> DecoderStream:
        """Return the decoding of an utterance that comes in chunks, with a list of words that are expected in it.

        Without a lexicon, words are those of the list or any units at all.

        Raises:
            UserError: the list is spelled in other units, or they are phonemes and there is no lexicon.
        """
        return DecoderStream(self, frame, listed if listed is not None and listed.words else None)

    def _rules_of(self, listed: WordList | None) -> Rules:
        """Return the kernels' arguments with a list."""
        last = self._last
        if listed is None or not listed.words:
            return self._rules
        if last is not None and last[0] is listed:
            return last[1]
        if listed.units.digest != self.units.digest:
            raise UserError("decoder: the word list is spelled in other units than those of the recogniser")
        rules, bias = self._rules, self.bias
        known = np.full(len(listed.words), -1)
        if self.lexicon is not None:
            known = np.array([self.lexicon.number.get(word, -1) for word in listed.words])
        elif self.units.kind == "phonemes":
            raise UserError("decoder: a word list, and phonemes that make no words; expected a lexicon beside it")
        else:
            rules = self._open()
        nearest = self._nearness(listed, known)
        tree = with_list(rules.tree, listed, known, nearest, self._model, rules.prices.model, bias)
        best, word = max(tree.entry.max(), 0.0), rules.prices.word
        gain = max(word + best, 0.0) + best + tree.boost.max()  # a listed word ends, and another one begins
        prices = rules.prices._replace(unigram=bias.unigram, scale=bias.scale, blank=bias.blank, gain=gain)
        made = rules._replace(tree=tree, prices=prices)
        self._last = (listed, made)
        return made

    def _open(self) -> Rules:
        """Return the kernels' arguments where any units are words, free of price."""
        parts, space, boundary = word_bounds_of(self.units)
        tree = self._rules.tree._replace(parts=parts, space=space, boundary=boundary)
        prices = self._rules.prices._replace(word=0.0, unknown=0.0, unknown_unit=0.0, gain=0.0)
        return self._rules._replace(tree=tree, prices=prices)

    def _nearness(self, listed: WordList, known: np.ndarray) -> np.ndarray:
        """Return how near a frequent word is to each word of a list; lists have many words in common."""
        spelled: list[list[bytes]] = [[] for _ in listed.words]
        for number, row in zip(listed.of_word.tolist(), listed.spellings, strict=True):
            spelled[number].append(row[row > 0].tobytes())
        keys: list[tuple[str | bytes, ...]] = [(word, *ways) for word, ways in zip(listed.words, spelled, strict=True)]
        new = np.array([place for place, key in enumerate(keys) if key not in self._near], np.int64)
        if len(new):
            found = nearness_of(listed.part(new), known[new], self._common, self.bias)
            if len(self._near) > _REMEMBERED:
                self._near.clear()
                return self._nearness(listed, known)
            self._near.update(zip((keys[place] for place in new), found.tolist(), strict=True))
        return np.array([self._near[key] for key in keys])

    @cached_property
    def _common(self) -> CommonWords | None:
        return None if self.lexicon is None else common_words(self.lexicon, self._model, self.bias.common)

    def _checked(self, log_probs: np.ndarray) -> np.ndarray:
        log_probs = checked(log_probs)
        if log_probs.shape[1] != len(self.units):
            raise UserError(f"decoder: frames of {log_probs.shape[1]} units; expected {len(self.units)}")
        return log_probs


class DecoderStream:
    """The decoding of one utterance in chunks: the same as of the whole, however it is cut.

    Example:
        >>> from gristmill.models.speech.units import characters
        >>> log_probs = np.log([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
        >>> stream = Decoder(characters(["a"])).stream()
        >>> for chunk in (log_probs[:1], log_probs[1:]):
        ...     stream.hear(chunk)
        ...     print(stream.best()[0].text)
        a
        a a
    """

    def __init__(self, decoder: Decoder, frame: float, listed: WordList | None = None) -> None:
        from gristmill.models.speech import decoder_kernels, listing_kernels  # compile
        from gristmill.models.speech.lexicon_kernels import NONE

        self._advance, self._listing = decoder_kernels.advance, listing_kernels.listed
        self._decoder, self._frame, self._listed = decoder, frame, listed
        self._rules = decoder._rules_of(listed)
        self._is_wordless = self._rules.tree.boundary == NONE
        self._state: Any = decoder_kernels.begin(decoder.settings.beam, decoder._begin)

    def hear(self, log_probs: np.ndarray) -> None:
        """Go on with the log-probabilities (T, V) of further frames.

        Raises:
            UserError: ``log_probs`` has another shape.
        """
        log_probs = self._decoder._checked(log_probs)
        self._state = self._advance(self._state, log_probs, *self._decoder._width, *self._rules[:-1])

    def best(self) -> list[Decoded]:
        """Return the best hypotheses, best first, as if the utterance ended here."""
        decoder = self._decoder
        if self._listed is None or self._rules.prices.unknown == -math.inf or decoder.units.kind == "phonemes":
            return self._hypotheses(*self._listing(self._state, *self._rules, decoder.settings.nbest))
        # A listed word and the same letters outside lexicon and list are one text.
        found = self._hypotheses(*self._listing(self._state, *self._rules, len(self._state.alive)))
        return one_of_each(found)[: decoder.settings.nbest]

    def _hypotheses(
        self, scores: np.ndarray, last: np.ndarray, bounds: np.ndarray, *of_units: np.ndarray
    ) -> list[Decoded]:
        """Return the hypotheses that a kernel lists: units, the words ended before them, frames and peaks of each."""
        decode = self._decoder.units.decode
        mass = np.exp(scores - scores[0]) if len(scores) and scores[0] > -math.inf else np.ones(len(scores))
        shares, ends, columns = (mass / mass.sum()).tolist(), bounds.tolist(), [one.tolist() for one in of_units]
        found = []
        for place, (score, word) in enumerate(zip(scores.tolist(), last.tolist(), strict=False)):
            units, ended, frames, peaks = (one[ends[place] : ends[place + 1]] for one in columns)
            words = self._words(self._bounds(units, ended, word), units, frames, peaks)
            text = decode(units) if self._is_wordless else " ".join(one.word for one in words)
            found.append(Decoded(text, words, tuple(units), score, shares[place]))
        return found

    def _words(
        self, bounds: list[tuple[int, int, int]], units: list[int], frames: list[list[int]], peaks: list[float]
    ) -> tuple[Word, ...]:
        words, frame = [], self._frame
        for first, end, number in bounds:
            text = self._decoder.units.decode(units[first:end]) if number < 0 else self._text(number)
            if text:
                start, stop = frames[first][0] * frame, frames[end - 1][1] * frame
                words.append(Word(text, start, stop, math.exp(min(peaks[first:end]))))
        return tuple(words)

    def _text(self, number: int) -> str:
        lexicon, known = self._decoder.lexicon, self._rules.tree.known
        if self._listed is not None and number >= known:
            return self._listed.words[number - known]
        assert lexicon is not None
        return lexicon.words[number]

    def _bounds(self, units: list[int], ended: list[int], last: int) -> list[tuple[int, int, int]]:
        """Return the words of units: their units from and to, and their numbers, below 0 outside lexicon and list."""
        if self._is_wordless:
            return [(first, end, -1) for first, end in word_bounds(units, self._decoder.units)]
        found, first = [], 0
        for place, word in enumerate(ended):
            if word != -1:
                found.append((first, place, word))
                first = place
            if units[place] == self._rules.tree.space:
                first = place + 1
        if last != -1:
            found.append((first, len(units), last))
        return found


def one_of_each(found: list[Decoded]) -> list[Decoded]:
    """Return hypotheses, best first, each text once with the probability of all that have it."""
    several: dict[str, list[Decoded]] = {}
    for one in found:
        several.setdefault(one.text, []).append(one)
    if len(several) == len(found):
        return found
    made = [
        replace(
            same[0], score=float(np.logaddexp.reduce([one.score for one in same])), share=sum(one.share for one in same)
        )
        for same in several.values()
    ]
    return sorted(made, key=lambda one: -one.score)
