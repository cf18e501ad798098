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

It runs on CPUs, one utterance a thread. There is no CUDA path: frames follow one another, and lexicon, language model
and prefixes are look-ups in tables, some of which grow meanwhile, so CUDA decoders leave the first two out; and the
cores beside a GPU decode one batch's utterances side by side while it computes the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from gristmill.models.speech.decode import checked
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units
from gristmill.models.speech.words import Word, word_bounds
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

if TYPE_CHECKING:
    from gristmill.models.ngrams.store import LmStore


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
    ) -> None:
        """Make a decoder for a model's ``units``; a language ``model`` needs a ``lexicon``.

        Raises:
            UserError: a language model without a lexicon, or a lexicon of other units.
        """
        if lexicon is None and model is not None:
            raise UserError("decoder: a language model of words, and no lexicon; expected one of the model's words")
        if lexicon is not None and lexicon.units.digest != units.digest:
            raise UserError("decoder: the lexicon is spelled in other units than those of the recogniser")
        from gristmill.models.speech.lexicon_kernels import Prices, no_tree  # compiles

        self.units, self.settings, self.lexicon = units, settings or DecoderSettings(), lexicon
        weight = self.settings.weight * math.log(10.0) if model is not None else 0.0
        unknown = -math.inf if self.settings.unknown is None else self.settings.unknown
        prices = Prices(weight, self.settings.word, unknown, self.settings.unknown_unit)
        self._tree = no_tree(len(units)) if lexicon is None else lexicon.tree(model)
        self._begin, end, body = 0, -1, np.zeros(0, np.uint64)
        body.flags.writeable = False  # one type, whether there is a model or not
        if model is not None:
            self._begin, end, body = model.begin, model.end_word, model.body
        # Of the kernels' arguments, those of all utterances.
        margin = math.inf if lexicon is None else self.settings.margin
        self._width = (self.settings.tokens, self.settings.threshold, margin)
        self._rules = (self._tree, body, prices, end)

    def decode(self, log_probs: np.ndarray, *, frame: float = 1.0) -> list[Decoded]:
        """Return the best hypotheses of log-probabilities (T, V), best first, whose frames are ``frame`` s apart.

        Where the frames end within a word, and no hypothesis is whole, that word is left out.

        Raises:
            UserError: ``log_probs`` has another shape.
        """
        stream = self.stream(frame=frame)
        stream.hear(log_probs)
        return stream.best()

    def decode_all(
        self, utterances: Sequence[np.ndarray], *, frame: float = 1.0, threads: int = 1
    ) -> list[list[Decoded]]:
        """Return :meth:`decode` of utterances (T, V) each, searched side by side by ``threads``."""
        if threads <= 1:
            return [self.decode(one, frame=frame) for one in utterances]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda one: self.decode(one, frame=frame), utterances))

    def stream(self, *, frame: float = 1.0) -> DecoderStream:
        """Return the decoding of an utterance that comes in chunks."""
        return DecoderStream(self, frame)

    def _checked(self, log_probs: np.ndarray) -> np.ndarray:
        log_probs = checked(log_probs)
        if log_probs.shape[1] != len(self.units):
            raise UserError(f"decoder: frames of {log_probs.shape[1]} units; expected {len(self.units)}")
        return log_probs

    def _hypotheses(
        self, frame: float, scores: np.ndarray, last: np.ndarray, bounds: np.ndarray, *of_units: np.ndarray
    ) -> list[Decoded]:
        """Return the hypotheses that a kernel lists: units, the words ended before them, frames and peaks of each."""
        mass = np.exp(scores - scores[0]) if len(scores) and scores[0] > -math.inf else np.ones(len(scores))
        shares, ends, columns = (mass / mass.sum()).tolist(), bounds.tolist(), [one.tolist() for one in of_units]
        found = []
        for place, (score, word) in enumerate(zip(scores.tolist(), last.tolist(), strict=False)):
            units, ended, frames, peaks = (one[ends[place] : ends[place + 1]] for one in columns)
            words = self._words(frame, self._bounds(units, ended, word), units, frames, peaks)
            text = self.units.decode(units) if self.lexicon is None else " ".join(one.word for one in words)
            found.append(Decoded(text, words, tuple(units), score, shares[place]))
        return found

    def _words(
        self,
        frame: float,
        bounds: list[tuple[int, int, int]],
        units: list[int],
        frames: list[list[int]],
        peaks: list[float],
    ) -> tuple[Word, ...]:
        words, lexicon = [], self.lexicon
        for first, end, number in bounds:
            text = self.units.decode(units[first:end]) if lexicon is None or number < 0 else lexicon.words[number]
            if text:
                start, stop = frames[first][0] * frame, frames[end - 1][1] * frame
                words.append(Word(text, start, stop, math.exp(min(peaks[first:end]))))
        return tuple(words)

    def _bounds(self, units: list[int], ended: list[int], last: int) -> list[tuple[int, int, int]]:
        """Return the words of units: their units from and to, and their numbers, below 0 outside the lexicon."""
        if self.lexicon is None:
            return [(first, end, -1) for first, end in word_bounds(units, self.units)]
        found, first = [], 0
        for place, word in enumerate(ended):
            if word != -1:
                found.append((first, place, word))
                first = place
            if units[place] == self._tree.space:
                first = place + 1
        if last != -1:
            found.append((first, len(units), last))
        return found


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

    def __init__(self, decoder: Decoder, frame: float) -> None:
        from gristmill.models.speech import decoder_kernels, listing_kernels  # compile

        self._advance, self._listed = decoder_kernels.advance, listing_kernels.listed
        self._decoder, self._frame = decoder, frame
        self._state: Any = decoder_kernels.begin(decoder.settings.beam, decoder._begin)

    def hear(self, log_probs: np.ndarray) -> None:
        """Go on with the log-probabilities (T, V) of further frames.

        Raises:
            UserError: ``log_probs`` has another shape.
        """
        decoder = self._decoder
        log_probs = decoder._checked(log_probs)
        self._state = self._advance(self._state, log_probs, *decoder._width, *decoder._rules[:-1])

    def best(self) -> list[Decoded]:
        """Return the best hypotheses, best first, as if the utterance ended here."""
        decoder = self._decoder
        found = self._listed(self._state, *decoder._rules, decoder.settings.nbest)
        return decoder._hypotheses(self._frame, *found)
