"""Words of a hypothesis replaced by listed words whose pronunciation is, phone by phone, what a phone head hears there.

Technique 4 of the decoder biasing of Dingliwal et al. (SLT 2022). The phones are those of the best path, without blanks
and word boundaries. Which of them are a word's is not certain, as two outputs of a model do not give a word's units to
the same frames: a word may begin with any phone from the one that follows the word before to the first of its own, and
end likewise, with :attr:`LookupSettings.slack` for both; where the phones have a word boundary there, it is the only
place. A listed word replaces a word, or two neighbours, if it is one of these spans exactly, and the hypothesis's own
pronunciation is none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from pydantic import Field

from gristmill.models.speech.decode import checked
from gristmill.models.speech.decoder import Decoded
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.pronunciations import Pronunciations
from gristmill.models.speech.words import Word
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings


class LookupSettings(Settings):
    """When a listed word replaces what was heard."""

    least: int = Field(3, ge=1)
    """Phones that a listed word has at least to replace anything: short ones are part of many words."""
    sure: float = Field(0.6, ge=0, le=1)
    """Least mean, over the phones of the span, of a phone's highest probability in its frames."""
    slack: float = Field(0.1, ge=0)
    """Time in s by which the bounds of words may be off."""


class PronunciationLookup:
    """Replaces words of hypotheses by those of a list that sound exactly like what is heard in their place.

    Example:
        >>> from gristmill.models.speech.units import phonemes
        >>> units = phonemes(["a", "n", "t"])
        >>> listed = Lexicon.pronounced({"nata": ["n a t a"]}, units)
        >>> lookup = PronunciationLookup(listed, Pronunciations({"not": ["n a t"], "a": ["a"]}, units))
        >>> log_probs = np.log(np.full((5, 4), 0.05) + 0.8 * np.eye(4)[[0, 2, 1, 3, 1]])
        >>> best = Decoded("in it", (Word("in", 0.0, 0.2, 0.9), Word("it", 0.3, 0.5, 0.4)), (), -2.0, 0.7)
        >>> [(one.word, one.start, one.end) for one in lookup.replaced(best, log_probs, frame=0.1).words]
        [('nata', 0.0, 0.5)]
        >>> best = Decoded("not a", (Word("not", 0.0, 0.4, 0.9), Word("a", 0.4, 0.5, 0.4)), (), -2.0, 0.7)
        >>> lookup.replaced(best, log_probs, frame=0.1).text
        'not a'
    """

    def __init__(self, listed: Lexicon, pronunciations: Pronunciations, settings: LookupSettings | None = None) -> None:
        """Take a list of words, and the pronunciations of the words that a hypothesis may have.

        Of listed words with the same pronunciation, the first one replaces.

        Raises:
            UserError: the list is spelled in other units than the pronunciations.
        """
        if listed.units.digest != pronunciations.units.digest:
            raise UserError("look-up: the list is spelled in other units than the pronunciations")
        self.settings = settings or LookupSettings()
        self._pronunciations = pronunciations
        self._listed: dict[tuple[int, ...], str] = {}
        for spelling, word in zip(listed.spellings.tolist(), listed.of.tolist(), strict=True):
            phones = tuple(unit for unit in spelling if unit)
            if len(phones) >= self.settings.least:
                self._listed.setdefault(phones, listed.words[word])

    def replaced(self, best: Decoded, log_probs: np.ndarray, *, frame: float = 1.0) -> Decoded:
        """Return a hypothesis with listed words in place of its own, by phone log-probabilities (T, P).

        ``frame`` is the time between frames in s; words need their times. From the first word on, the longest listed
        word replaces. Its confidence is that of :class:`~gristmill.models.speech.words.Word`, by its phones; units,
        score and share stay those of what the recogniser found.

        Raises:
            UserError: ``log_probs`` has another shape.
        """
        log_probs = checked(log_probs)
        if log_probs.shape[1] != len(self._pronunciations.units):
            known = len(self._pronunciations.units)
            raise UserError(f"look-up: frames of {log_probs.shape[1]} phones; expected {known}")
        phones = _heard(log_probs, self._pronunciations.boundary, frame)
        found: list[Word] = []
        place = 0
        while place < len(best.words):
            several = [self._match(best.words, place, count, phones) for count in (1, 2)]
            count, match = max(enumerate(several, 1), key=lambda one: one[1][0])
            found.append(match[1] or best.words[place])
            place += count if match[1] else 1
        if tuple(found) == best.words:
            return best
        return replace(best, text=" ".join(one.word for one in found), words=tuple(found))

    def _match(self, words: Sequence[Word], first: int, count: int, phones: _Phones) -> tuple[int, Word | None]:
        """Return the listed word that replaces so many words, with the number of its phones, or 0 and none."""
        end = first + count
        if end > len(words):
            return 0, None
        own: set[tuple[int, ...]] = {()}
        for word in words[first:end]:
            own = {one + other for one in own for other in self._pronunciations[word.word]}
        slack = self.settings.slack
        before = words[first - 1].end if first else -np.inf
        behind = words[end].start if end < len(words) else np.inf
        begins = phones.places(before - slack, words[first].start + slack)
        ends = phones.places(words[end - 1].end - slack, behind + slack)
        best: tuple[int, float, Word | None] = (0, 0.0, None)
        for start in begins:
            for stop in ends:
                heard = phones.units[start:stop]
                listed = self._listed.get(heard)
                if heard in own or (count == 1 and listed == words[first].word):
                    return 0, None
                if listed is None:
                    continue
                peaks = phones.peaks[start:stop]
                sure = sum(peaks) / len(peaks)
                if sure >= self.settings.sure and (len(heard), sure) > best[:2]:
                    times = words[first].start, words[end - 1].end
                    best = len(heard), sure, Word(listed, *times, min(peaks))
        return best[0], best[2]


class _Phones(NamedTuple):
    """The phones of a best path: their numbers, times in s, highest probabilities, and where words are parted."""

    units: tuple[int, ...]
    starts: np.ndarray
    ends: np.ndarray
    peaks: list[float]
    parted: np.ndarray
    """bool (phones + 1,): the places with a word boundary, and the utterance's ends; none if no unit is one."""

    def places(self, low: float, high: float) -> list[int]:
        """Return the places between phones where a word may begin or end that does so from ``low`` to ``high`` s.

        The phone before a place has ended by ``high`` then, and the one behind it begins at ``low`` or later.
        """
        ended = np.concatenate([[-np.inf], self.ends]) <= high
        begins = np.concatenate([self.starts, [np.inf]]) >= low
        found = ended & begins
        if (found & self.parted).any():
            found &= self.parted
        return np.flatnonzero(found).tolist()


def _heard(log_probs: np.ndarray, boundary: int | None, frame: float) -> _Phones:
    """Return the phones of the best path of log-probabilities (T, P)."""
    path = log_probs.argmax(axis=1)
    firsts = np.flatnonzero(np.diff(path, prepend=-1))
    lasts = np.append(firsts[1:], len(path))
    is_phone = (path[firsts] != 0) & (path[firsts] != boundary)
    spoken = np.flatnonzero(is_phone)
    units = path[firsts[spoken]]
    tops = log_probs.max(axis=1)
    peaks = [float(np.exp(tops[firsts[run] : lasts[run]].max())) for run in spoken]
    parted = np.zeros(len(spoken) + 1, bool)
    if boundary is not None:
        parted[[0, -1]] = True
        parted[np.searchsorted(spoken, np.flatnonzero(path[firsts] == boundary))] = True
    return _Phones(tuple(units.tolist()), firsts[spoken] * frame, lasts[spoken] * frame, peaks, parted)
