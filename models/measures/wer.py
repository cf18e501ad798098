"""Word and character error rates: alignment with substitutions, deletions and insertions, and named text normalisers.

The alignment has the fewest errors, and of those the fewest substitutions (the most correct words), so that the
three counts are a property of the two texts and not of the way a program breaks ties. The same functions give
phone error rates, on phones separated by spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gristmill.models.normalise import JOINERS, plain_apostrophes
from gristmill.models.normalise import normalise as composed
from gristmill.shards.errors import UserError

CORRECT, SUBSTITUTED, DELETED, INSERTED = "C", "S", "D", "I"
UNKNOWN = "\x00"  # begins the name of the speaker of an utterance that has none: each is a block by itself

_EDIT = 1 << 20  # cost of an error: outweighs any number of substitutions, which cost one more each
NIST_EDIT = 3  # of NIST's sclite, and the programs that follow it
_DIGITS = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))
_PHONE_MARKS = re.compile("[ˈˌ'ː.]|(?<=[A-Z])[012](?= |$)")


def _plain(text: str) -> str:
    return " ".join(text.split())


def _basic(text: str) -> str:
    """NFKC, lower case, punctuation to spaces; an apostrophe inside a word stays."""
    text = unicodedata.normalize("NFKC", plain_apostrophes(composed(text))).casefold()
    kept = "".join(c if c == "'" or c in JOINERS or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(stripped for word in kept.split() if (stripped := word.strip("'")))


def _digits(text: str) -> str:
    """Spell digits one by one on top of ``basic``: "20" is "two zero"."""
    return _plain("".join(f" {_DIGITS[int(c)]} " if c.isdecimal() else c for c in _basic(text)))


def _phones(text: str) -> str:
    """Drop stress and length marks from phones separated by spaces, in IPA or ARPABET."""
    return _plain(_PHONE_MARKS.sub("", unicodedata.normalize("NFC", text)))


NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "none": _plain,
    "basic": _basic,
    "digits": _digits,
    "phones": _phones,
}


def normaliser(name: str) -> Callable[[str], str]:
    """Return the named text normaliser; WERs are comparable only under the same one.

    Example:
        >>> normaliser("basic")("Turn on the TV, don't stop!"), normaliser("digits")("room 20")
        ("turn on the tv don't stop", 'room two zero')
    """
    if name not in NORMALISERS:
        raise UserError(f"normaliser {name!r} is unknown: expected one of {', '.join(NORMALISERS)}")
    return NORMALISERS[name]


def align(reference: Sequence[str], hypothesis: Sequence[str], edit: int = _EDIT) -> str:
    """Align two sequences of words; return one letter per aligned word: C, S, D or I.

    Without the I the string has one letter per reference word, in order. Time and memory are proportional to the
    product of the lengths, after the common words at both ends are removed. ``edit`` is the cost of an insertion or a
    deletion; a substitution costs one more. With that of other programs (``NIST_EDIT``) the alignment may have more
    errors than the fewest. Of equal alignments it is the one that, from the end, has a word of both first, then a
    deletion.

    Example:
        >>> align("turn on the lights".split(), "turn the big light".split())
        'CDCIS'
    """
    n, m = len(reference), len(hypothesis)
    head = 0
    while head < min(n, m) and reference[head] == hypothesis[head]:
        head += 1
    tail = 0
    while tail < min(n, m) - head and reference[n - 1 - tail] == hypothesis[m - 1 - tail]:
        tail += 1
    middle = _align_table(reference[head : n - tail], hypothesis[head : m - tail], edit)
    return CORRECT * head + middle + CORRECT * tail


def _align_table(reference: Sequence[str], hypothesis: Sequence[str], edit: int) -> str:
    n, m = len(reference), len(hypothesis)
    if not n or not m:
        return DELETED * n + INSERTED * m
    numbers: dict[str, int] = {}
    ref = [numbers.setdefault(word, len(numbers)) for word in reference]
    hyp = np.array([numbers.setdefault(word, len(numbers)) for word in hypothesis])
    along = np.arange(m + 1, dtype=np.int64) * edit
    cost = np.empty((n + 1, m + 1), np.int64)
    cost[0] = along
    for i, word in enumerate(ref, 1):
        above = cost[i - 1]
        row = above + edit
        np.minimum(row[1:], above[:-1] + np.where(hyp == word, 0, edit + 1), out=row[1:])
        # A run of insertions: the least of row[j'] + (j - j') edits over j' <= j.
        cost[i] = np.minimum.accumulate(row - along) + along
    letters = []
    i, j = n, m
    while i or j:
        here = cost[i, j]
        if i and j and ref[i - 1] == hyp[j - 1] and here == cost[i - 1, j - 1]:
            letters.append(CORRECT)
            i, j = i - 1, j - 1
        elif i and j and here == cost[i - 1, j - 1] + edit + 1:
            letters.append(SUBSTITUTED)
            i, j = i - 1, j - 1
        elif i and here == cost[i - 1, j] + edit:
            letters.append(DELETED)
            i -= 1
        else:
            letters.append(INSERTED)
            j -= 1
    return "".join(reversed(letters))


def distance(reference: str, hypothesis: str) -> int:
    """Return the fewest edits of one character each that turn one text into the other.

    By the bit vectors of Myers (JACM 1999), as simplified by Hyyrö (2001): a step for each character of the hypothesis.

    Example:
        >>> distance("打开客厅的灯", "打开卧室的灯"), distance("", "ab")
        (2, 2)
    """
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    places: dict[str, int] = {}
    for place, character in enumerate(reference):
        places[character] = places.get(character, 0) | 1 << place
    all_ones, last = (1 << len(reference)) - 1, 1 << (len(reference) - 1)
    up, down, found = (
        all_ones,
        0,
        len(reference),
    )  # bits: whether a row's distance is one above, or below, the row before
    for character in hypothesis:
        equal = places.get(character, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right, left = down | ~(diagonal | up), up & diagonal
        found += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & all_ones, right & diagonal & all_ones
    return found


@dataclass(frozen=True)
class CharacterErrors:
    """The character errors of one system on one test set, without spaces: the measure of languages without words."""

    errors: np.ndarray  # (utterances,) int64
    words: np.ndarray  # (utterances,) int64, characters of the reference: what the errors are divided by
    speakers: tuple[str, ...]  # (utterances,)

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class WerResult:
    """The errors of one system on one test set, one entry per utterance, in the order given."""

    substitutions: np.ndarray  # (utterances,) int64
    deletions: np.ndarray  # (utterances,) int64
    insertions: np.ndarray  # (utterances,) int64
    words: np.ndarray  # (utterances,) int64, words of the reference
    speakers: tuple[str, ...]  # (utterances,); an utterance without one is its own speaker
    alignments: tuple[str, ...]  # (utterances,) letters of :func:`align`
    texts: tuple[tuple[str, str], ...] = ()  # (utterances,) reference and hypothesis, normalised
    ids: tuple[str, ...] = ()  # (utterances,) of the records, if they were given

    @property
    def errors(self) -> np.ndarray:
        """Errors of each utterance, (utterances,) int64."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """All errors over all reference words: a fraction, which may exceed 1."""
        return float(self.errors.sum() / self.words.sum())

    @cached_property
    def characters(self) -> CharacterErrors:
        """The errors of the same texts in characters (code points, marks among them); spaces are none."""
        pairs = [(reference.replace(" ", ""), hypothesis.replace(" ", "")) for reference, hypothesis in self.texts]
        errors = np.array([distance(*pair) for pair in pairs], np.int64)
        return CharacterErrors(errors, np.array([len(pair[0]) for pair in pairs], np.int64), self.speakers)

    @property
    def cer(self) -> float:
        """All character errors over all reference characters, a fraction."""
        return float(self.characters.errors.sum() / self.characters.words.sum())

    def __len__(self) -> int:
        return len(self.words)


def named_speakers(speakers: Sequence[str | None]) -> tuple[str, ...]:
    """Return the speakers of utterances, each without one (``None`` or empty) by a name of its own."""
    return tuple(str(name) if name not in (None, "") else f"{UNKNOWN}{i}" for i, name in enumerate(speakers))


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    speakers: Sequence[str | None] | None = None,
    normalise: str = "basic",
    ids: Sequence[str] = (),
) -> WerResult:
    """Score a batch of hypotheses against their references, both normalised by the named normaliser.

    For phone error rates give phones separated by spaces and ``normalise="phones"`` (or ``"none"``). An utterance
    whose speaker is ``None`` or empty is one of an unknown speaker. Lists of different lengths, and references without
    any word, are a :class:`UserError`.

    Example:
        >>> result = score(["turn on the lights", "stop"], ["Turn on lights!", "please stop"])
        >>> round(result.wer, 2), result.deletions.tolist(), result.insertions.tolist()
        (0.4, [1, 0], [0, 1])
        >>> score(["打开客厅的灯"], ["打开卧室的灯"]).cer
        0.3333333333333333
    """
    if len(references) != len(hypotheses) or (speakers is not None and len(speakers) != len(references)):
        counts = f"{len(references)} references, {len(hypotheses)} hypotheses"
        raise UserError(f"scoring: {counts}: expected one hypothesis (and speaker) per reference")
    clean = normaliser(normalise)
    texts = tuple((clean(reference), clean(given)) for reference, given in zip(references, hypotheses, strict=True))
    words = [reference.split() for reference, _ in texts]
    letters = tuple(align(ref, given.split()) for ref, (_, given) in zip(words, texts, strict=True))
    lengths = np.array([len(w) for w in words], np.int64)
    if not lengths.sum():
        raise UserError(f"scoring: no reference word in {len(references)} records after {normalise!r}")

    def count(letter: str) -> np.ndarray:
        return np.array([a.count(letter) for a in letters], np.int64)

    named = named_speakers(speakers if speakers is not None else [None] * len(words))
    return WerResult(count(SUBSTITUTED), count(DELETED), count(INSERTED), lengths, named, letters, texts, tuple(ids))
