"""Texts by what they mean, and which words make a difference: found where texts differ in one word.

Two texts that are equal but for one word, another one in its place or none, mean the same ("the lamp", "my lamp") or
not ("lamp on", "lamp off"). How often they do not is what the words tell. Values of slots are left out of the
comparison, so that what is found of one lamp holds for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

_MOST = 12  # words that are compared at one place: of more, the first
_HERE, _NOTHING = "\0", ""  # the place of the word, and a word that is left out
_Key = tuple[str, ...]


class MeaningText(NamedTuple):
    """A text of a group: those of one ``meaning`` mean the same. ``slots`` are (name, start, end) in tokens."""

    id: str
    meaning: str
    tokens: tuple[str, ...]
    intent: str | None = None
    slots: tuple[tuple[str, int, int], ...] | None = None


class OneWordChanges:
    """What is known of changes of one word in texts.

    ``found`` and ``told`` are how often a word is where two texts differ, and how often these do not mean the same;
    ``swaps`` has for two words, in the order of the alphabet, how often texts that differ in them do not mean the same,
    and how often they do.

    Example:
        >>> said = [("on", "lights on"), ("off", "lights off"), ("on", "the lights on")]
        >>> texts = [MeaningText(text, meaning, tuple(text.split())) for meaning, text in said]
        >>> changes = OneWordChanges(texts)
        >>> changes.swaps, changes.found["the"], changes.told["the"]
        ({('off', 'on'): (1, 0)}, 1, 0)
        >>> list(changes.others(texts[2]))
        []
        >>> list(changes.others(texts[0]))
        [('lights', 'off')]
    """

    def __init__(self, texts: Iterable[MeaningText]) -> None:
        self._there: dict[_Key, dict[str, set[object]]] = {}
        for text in texts:
            sense = _sense(text)
            for key, word, _ in _changes(text):
                self._there.setdefault(key, {}).setdefault(word, set()).add(sense)
        self._there = {key: at for key, at in self._there.items() if len(at) > 1}
        self.found: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        differ: Counter[tuple[str, str]] = Counter()
        same: Counter[tuple[str, str]] = Counter()
        for at in self._there.values():
            for pair in combinations(sorted(at)[:_MOST], 2):
                apart = at[pair[0]].isdisjoint(at[pair[1]])
                (differ if apart else same)[pair] += 1
                for word in pair:
                    self.found[word] += 1
                    self.told[word] += apart
        del self.found[_NOTHING], self.told[_NOTHING]
        self.swaps = {pair: (differ[pair], same[pair]) for pair in sorted({*differ, *same}) if _NOTHING not in pair}

    def others(self, text: MeaningText) -> Iterator[tuple[str, ...]]:
        """Yield the tokens with another word in the place of one, where other texts so say something else: two words
        that were never in each other's place in texts that mean the same."""
        sense = _sense(text)
        for key, word, place in _changes(text):
            for other, senses in sorted(self._there.get(key, {}).items()):
                differ, same = self.swaps.get((min(word, other), max(word, other)), (0, 0))
                if differ and not same and sense not in senses:
                    yield (*text.tokens[:place], other, *text.tokens[place + 1 :])


def _sense(text: MeaningText) -> object:
    """Return what a text means, whatever the values of its slots."""
    if text.slots is None or text.intent is None:
        return text.meaning
    return text.intent, tuple(sorted(name for name, _, _ in text.slots))


def _changes(text: MeaningText) -> Iterator[tuple[_Key, str, int]]:
    """Yield what is left of a text without one of its words, or with room for one more, with the word and its place."""
    spans = {} if text.slots is None or text.intent is None else {start: (name, end) for name, start, end in text.slots}
    words: list[tuple[str, int | None]] = []  # with their places; of values, the names of their slots
    at = 0
    while at < len(text.tokens):
        name, end = spans.get(at, (None, at + 1))
        words.append((text.tokens[at].lower(), at) if name is None else (f"{_HERE}{name}", None))
        at = max(end, at + 1)
    shape = tuple(word for word, _ in words)
    for number, (word, place) in enumerate(words):
        if place is not None:
            yield (*shape[:number], _HERE, *shape[number + 1 :]), word, place
    for number in range(len(shape) + 1):
        yield (*shape[:number], _HERE, *shape[number:]), _NOTHING, number
