"""Recognition with a user's words, by every technique of Dingliwal et al. (SLT 2022), each of which is a switch.

What a base with a contextual adapter hears goes through a beam search with a lexicon, a word language model and the
list, and its n-best list through what the phones of an inner head say of it:

- ``adapter``: the encoder hears the list (:mod:`gristmill.models.speech.adapter`);
- ``boost``: units of a listed word that has begun are brought nearer to the best ones;
- ``unigram``: listed words are words of the language model's class of unknown ones, at a price of their own;
- ``g2g``: listed words are also looked for as the base would spell them;
- ``phones``: n-best lists are rescored by the distance of their phones from what is heard;
- ``lexicon``: a word whose phones are exactly those of a listed one is replaced by it.

Of a long list only the entries that are heard best anywhere in the utterance take part, so that its length costs little
time, and what nobody said cannot be heard.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from pydantic import Field

from gristmill.models.speech.adapter import ContextualAdapter, of_entries
from gristmill.models.speech.decoder import Decoded, Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.pronunciation_lookup import LookupSettings, PronunciationLookup
from gristmill.models.speech.pronunciations import Pronunciations
from gristmill.models.speech.rescoring import PhoneRescorer, RescoringSettings
from gristmill.models.speech.spelling_variants import SpellingTable
from gristmill.models.speech.spotting import nearest_heard
from gristmill.models.speech.units import Units
from gristmill.models.speech.word_list import BiasSettings, WordList
from gristmill.shards.settings import Settings, Size

if TYPE_CHECKING:
    from gristmill.models.ngrams.store import LmStore

Technique = Literal["adapter", "boost", "unigram", "phones", "lexicon", "g2g"]
TECHNIQUES: tuple[Technique, ...] = get_args(Technique)
DECODER: tuple[Technique, ...] = ("boost", "unigram", "phones", "lexicon", "g2g")
_LISTING = {"boost", "unigram", "g2g"}  # put the list's words into the search
_LOOKED_UP = 20  # words of a list that may replace others in an utterance, those that are heard best
_KEPT = 8  # decoders of sets of techniques


class PersonalSettings(Settings):
    """Settings of recognition with a user's words."""

    decoder: DecoderSettings = DecoderSettings(beam=24, nbest=12, unknown=-6.0, unknown_unit=-0.3)
    """The beam search."""
    bias: BiasSettings = BiasSettings()
    """What listed words add: ``boost`` sets its ``scale``, ``unigram`` its prices."""
    rescoring: RescoringSettings = RescoringSettings()
    """Of ``phones``."""
    lookup: LookupSettings = LookupSettings()
    """Of ``lexicon``."""
    variants: Size = Field(3, ge=0)
    """Other spellings of each listed word that ``g2g`` looks for, at most."""
    variant: float = Field(-3.0, le=0)
    """Least log-probability of another spelling."""
    retrieved: Size = Field(150, ge=1)
    """Entries of a list that take part in an utterance, at most."""


@dataclass(frozen=True, eq=False)
class Listed:
    """A list of words, made ready for recognition: see :meth:`PersonalRecogniser.listed`."""

    plain: WordList
    varied: WordList
    """With the other spellings."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Heard:
    """What a base makes of an utterance: log-probabilities (T, V), those of phones (T, P), and its layers."""

    log_probs: np.ndarray
    phones: np.ndarray | None = None
    states: Sequence[torch.Tensor] = field(default=(), repr=False)
    """(1, T, D) each, for the adapter."""


@dataclass(frozen=True, eq=False)
class PersonalParts:
    """What a recogniser with a user's words is made of; what is missing makes techniques do nothing."""

    units: Units
    lexicon: Lexicon | None = None
    """The words of the language model."""
    language: LmStore | None = None
    adapter: ContextualAdapter | None = None
    classify: Callable[[torch.Tensor], torch.Tensor] | None = None
    """The base's head: log-probabilities of the last hidden states. The adapter needs it."""
    pronunciations: Pronunciations | None = None
    """Of all words, in the phones of the base's inner head; for ``phones`` and ``lexicon``."""
    table: SpellingTable | None = None
    """Other spellings, for ``g2g``."""


class PersonalRecogniser:
    """Finds the texts of what a base hears, with lists of words that may change with each utterance.

    Raises:
        UserError: the decoder cannot be made; see :class:`~gristmill.models.speech.decoder.Decoder`.
    """

    def __init__(self, parts: PersonalParts, settings: PersonalSettings) -> None:
        self.parts, self.settings = parts, settings
        self._decoder = lru_cache(_KEPT)(self._made)
        self._spelled: dict[str, list[str]] = {}
        # Systems ask in turn which entries of a list are heard best, and for the list of these.
        self._last: tuple[Heard, Listed, int, np.ndarray] | None = None
        self._cut: tuple[np.ndarray, Listed] | None = None

    def listed(self, words: Collection[str]) -> Listed:
        """Return a list of words, ready for recognition; its problems are sentences for the user."""
        said = self._said(words) if self.parts.units.kind == "phonemes" else None
        plain = WordList.of(words, self.parts.units, said)
        return Listed(plain, self._varied(plain), plain.problems)

    def recognised(
        self, heard: Heard, listed: Listed | None, techniques: Collection[Technique], *, frame: float = 1.0
    ) -> list[Decoded]:
        """Return the hypotheses of an utterance, best first, by some techniques; ``frame`` is in s."""
        log_probs = heard.log_probs
        if listed is None or not listed.plain.words:
            return self._decoder(frozenset()).decode(log_probs, frame=frame)
        near = self._retrieved(heard, listed)
        if "adapter" in techniques:
            log_probs = self._adapted(heard, near.plain)
        search = frozenset(techniques) & _LISTING
        words = (near.varied if "g2g" in search else near.plain) if search else None
        found = self._decoder(search).decode(log_probs, frame=frame, listed=words)
        if heard.phones is None or self.parts.pronunciations is None:
            return found
        if "phones" in techniques:
            found = PhoneRescorer(self.parts.pronunciations, self.settings.rescoring).rescored(found, heard.phones)
        if "lexicon" in techniques and found:
            best = self._nearest(heard, listed, min(_LOOKED_UP, self.settings.retrieved))[:_LOOKED_UP]
            words_near = [listed.plain.words[place] for place in sorted(best.tolist())]
            found[0] = self._looked_up(found[0], heard.phones, words_near, frame)
        return found

    def attention(self, heard: Heard, listed: WordList) -> np.ndarray:
        """Return the attention (T, 1 + n) that no word and each of a list has in each frame; it needs an adapter."""
        assert self.parts.adapter is not None
        with torch.no_grad():
            context = self.parts.adapter.context(_first_spellings(listed, heard))
            found: np.ndarray = of_entries(self.parts.adapter(heard.states, context)[1], context)[0].cpu().numpy()
        return found

    def _made(self, techniques: frozenset[Technique]) -> Decoder:
        """Return the decoder by which those techniques search that put the list's words into the search."""
        search, bias = self.settings.decoder, self.settings.bias
        if "boost" not in techniques:
            bias = bias.but(scale=0.0)
        if "unigram" not in techniques:  # as any word that the lexicon does not have
            bias = bias.but(enter=search.unknown or 0.0, size=0.0, confusable=0.0)
        if self.parts.units.kind == "phonemes":  # which are no words, unlike letters that the lexicon does not have
            search = search.but(unknown=None)
        return Decoder(self.parts.units, search, self.parts.lexicon, self.parts.language, bias=bias)

    def _retrieved(self, heard: Heard, listed: Listed) -> Listed:
        """Return the list of the entries of a list that are heard best: the same object while these are asked for."""
        most, last = self.settings.retrieved, self._cut
        if len(listed.plain.words) <= most:
            return listed
        places = self._nearest(heard, listed, most)
        if last is None or last[0] is not places:
            near = Listed(listed.plain.part(places), listed.varied.part(places), listed.problems)
            self._cut = last = places, near
        return last[1]

    def _nearest(self, heard: Heard, listed: Listed, most: int) -> np.ndarray:
        """Return the places of the entries of a list that are heard best, best first: ``most`` of them, or more."""
        last = self._last
        if last is None or last[0] is not heard or last[1] is not listed or last[2] < most:
            places = nearest_heard(heard.log_probs, listed.varied.lexicon, most)
            self._last = last = heard, listed, most, places
        return last[3]

    def _adapted(self, heard: Heard, listed: WordList) -> np.ndarray:
        """Return the log-probabilities of the base with the adapter."""
        if self.parts.adapter is None or self.parts.classify is None:
            return heard.log_probs
        with torch.no_grad():
            context = self.parts.adapter.context(_first_spellings(listed, heard))
            hidden, _ = self.parts.adapter(heard.states, context)
            found: np.ndarray = self.parts.classify(hidden)[0, : len(heard.log_probs)].cpu().numpy()
        return found

    def _varied(self, plain: WordList) -> WordList:
        """Return a list with the other spellings of its words, by the table."""
        if self.parts.table is None or not self.settings.variants or self.parts.units.kind == "phonemes":
            return plain
        most, least = self.settings.variants, self.settings.variant
        for word in plain.words:
            if word not in self._spelled:  # lists of a corpus have many words in common
                self._spelled[word] = [one for one, _ in self.parts.table.variants(word, most, least)]
        return plain.spelled_also(self._spelled)

    def _looked_up(self, best: Decoded, phones: np.ndarray, words: Sequence[str], frame: float) -> Decoded:
        """Return a hypothesis with listed words in place of those that sound exactly like them."""
        assert self.parts.pronunciations is not None
        said = self._said(words)
        if not said:
            return best
        listed = Lexicon.pronounced(said, self.parts.pronunciations.units)
        lookup = PronunciationLookup(listed, self.parts.pronunciations, self.settings.lookup)
        return lookup.replaced(best, phones, frame=frame)

    def _said(self, words: Iterable[str]) -> dict[str, list[str]]:
        """Return the pronunciations of those of the words that have some."""
        return {} if self.parts.pronunciations is None else self.parts.pronunciations.symbols(words)


def _first_spellings(listed: WordList, heard: Heard) -> torch.Tensor:
    """Return the first spelling (n, longest) of each word of a list, where the layers are."""
    firsts = np.unique(listed.of_word, return_index=True)[1]
    return torch.from_numpy(listed.spellings[firsts].astype(np.int64)).to(heard.states[0].device)
