"""The text of a whole recording: its words with their units, and the utterances that an alignment cuts it into."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from gristmill.models.languages import is_spaceless
from gristmill.models.speech.units import Units
from gristmill.models.speech.vad import LengthSettings

_WORD = re.compile(r"[^\s—–-]+[—–-]*|[—–-]+")  # parts of a compound are words
_SENTENCE_END = re.compile(r"[.!?…。！？।؟][\"'”’»)\]]*$")
_SPACES = (" ", "▁")


@dataclass(frozen=True, eq=False)
class Transcript:
    """The words of a text that units can spell.

    ``spans`` (words, 2) are their places in ``text``, each up to the next word's; ``units`` (n,) the units of all, and
    ``first`` (words + 1,) those of each; ``space`` is the unit between words, which is not among them.
    """

    text: str
    spans: np.ndarray
    units: np.ndarray
    first: np.ndarray
    space: int | None

    @classmethod
    def of(cls, text: str, units: Units) -> Transcript:
        """Return the words of a text; what the units cannot spell belongs to the word before it.

        Example:
            >>> from gristmill.models.speech.units import characters
            >>> found = Transcript.of("Go on, 7 - stop!", characters(["go on stop"]))
            >>> [found.part(word, word + 1) for word in range(len(found))]
            ['Go', 'on, 7 -', 'stop!']
        """
        space = next((units.tokens.index(one) for one in _SPACES if one in units.tokens), None)
        starts: list[int] = []
        spelled: list[int] = []
        first: list[int] = []
        for start, stop in _words(text):
            own = [unit for unit in units.encode(text[start:stop]) if unit != space]
            if own:
                first.append(len(spelled))
                starts.append(start if starts else 0)
                spelled += own
        bounds = np.array([*starts, len(text)], np.int64)
        spans = np.stack([bounds[:-1], bounds[1:]], axis=1)
        return cls(text, spans, np.array(spelled, np.int64), np.array([*first, len(spelled)], np.int64), space)

    def __len__(self) -> int:
        return len(self.spans)

    def part(self, first: int, last: int) -> str:
        """Return the text of the words from ``first`` to before ``last``."""
        return " ".join(self.text[self.spans[first, 0] : self.spans[last - 1, 1]].split())

    def ends_sentence(self, word: int) -> bool:
        """Return whether a sentence ends with a word."""
        return bool(_SENTENCE_END.search(self.part(word, word + 1)))


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Yield the bounds of words; in scripts without spaces each letter is one."""
    for found in _WORD.finditer(text):
        start = found.start()
        for place in range(start + 1, found.end()):
            if is_spaceless(text[place]) and unicodedata.category(text[place])[0] != "M":
                yield start, place
                start = place
        yield start, found.end()


class CutSettings(LengthSettings):
    """How aligned text is cut into utterances."""

    pause: float = Field(0.3, ge=0)
    """Pause behind a sentence at which an utterance ends, s."""
    silence: float = Field(1.0, gt=0)
    """Pause at which an utterance ends anywhere, s."""
    least: float = Field(0.5, gt=0)
    """Length of an utterance, s; a shorter one goes on with the next sentence."""
    most: float = Field(20.0, gt=1)
    """Length of an utterance, s; a longer one is parted at its longest pauses."""


def find_cuts(text: Transcript, begin: np.ndarray, end: np.ndarray, settings: CutSettings) -> list[tuple[int, int]]:
    """Return the utterances of a text as first words and those after the last: every word is in one.

    ``begin`` and ``end`` (words,) are when each word is spoken, s; NaN for one that is not heard, beside which a pause
    counts as endless.

    Example:
        >>> from gristmill.models.speech.units import characters
        >>> text = Transcript.of("Go on. Stop it.", characters(["go on stop it"]))
        >>> find_cuts(text, np.array([0, 0.5, 1.5, 2]), np.array([0.4, 0.9, 1.9, 2.4]), CutSettings())
        [(0, 2), (2, 4)]
    """
    pauses = np.nan_to_num(begin[1:] - end[:-1], nan=np.inf)
    known = ~np.isnan(begin)
    # When the last word up to each is over, and when the first from each on begins: lengths without unheard words.
    over = np.fmax.accumulate(np.where(known, end, -np.inf))
    ahead = np.fmin.accumulate(np.where(known, begin, np.inf)[::-1])[::-1]

    def length(first: int, last: int) -> float:
        return max(0.0, float(over[last - 1] - ahead[first]))

    found: list[tuple[int, int]] = []
    first = 0
    for last in range(1, len(text) + 1):
        done = last == len(text)
        pause = np.inf if done else pauses[last - 1]
        is_cut = settings.silence <= pause < np.inf or (pause >= settings.pause and text.ends_sentence(last - 1))
        if done or (is_cut and (length(first, last) >= settings.least or pause == np.inf)):
            found += _parted(first, last, pauses, length, settings.most)
            first = last
    return found


def _parted(
    first: int, last: int, pauses: np.ndarray, length: Callable[[int, int], float], most: float
) -> Iterator[tuple[int, int]]:
    """Yield the parts of an utterance, cut at its longest pauses until none is longer than ``most``."""
    waiting = [(first, last)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2 or length(first, last) <= most:
            yield first, last
        else:
            cut = first + 1 + int(pauses[first : last - 1].argmax())
            waiting += [(cut, last), (first, cut)]
