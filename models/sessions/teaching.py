"""Words that an assistant does not know: spans of a request that no training request has as a value, found by context.

Ping et al., "Interactive Teaching for Conversational AI" (arXiv:2012.00958), find the gap in a request before the user
is asked about it. Here a tagger of slots (:mod:`gristmill.models.nlu.crf`) is trained on requests and on copies in
which catalogue values are random words: the words around a value then tell where it begins and ends. Each domain has a
tagger of its own, with the names of its slots, so that a span comes with what it may be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from gristmill.models.measures.semer import slot_value
from gristmill.models.nlu.crf import CrfSettings, Tagger, features, fit
from gristmill.models.nlu.domain import OUTSIDE, Example, from_iob
from gristmill.models.normalise import joined
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

MODEL, TAGGERS = "teaching.json", "taggers.bin"
FORMAT = 1


class CatalogueSettings(Settings):
    """Which slots have a catalogue: an open one, whose values are many and mostly rare."""

    slots: tuple[str, ...] | None = None
    """Their names; ``null``: those with many values."""
    values: int = Field(20, ge=1)
    """Fewest distinct values of a slot that has a catalogue."""
    openness: float = Field(0.3, gt=0, le=1)
    """Fewest distinct values of such a slot for each time it is filled."""


class MaskSettings(Settings):
    """Copies of training requests whose catalogue values are masked: their words are random ones."""

    copies: int = Field(1, ge=0)
    """Copies of each request (0: the tagger is trained on the requests alone)."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the values that are masked in a copy."""
    common: int = Field(3, ge=1)
    """A word that occurs so often outside of catalogue values is left in a mask."""


class UnknownSpan(NamedTuple):
    """A span of tokens that no training request has as a value: the slot it may fill, and how likely it is one."""

    name: str
    value: str
    start: int
    end: int
    score: float


class KnownValues(NamedTuple):
    """The slots that have a catalogue, the values of all slots, and those of slots without a catalogue."""

    slots: frozenset[str]
    values: frozenset[str]
    closed: frozenset[str]


def catalogue_of(slots: Iterable[tuple[str, str]], settings: CatalogueSettings) -> KnownValues:
    """Return the catalogue of the slots (name, value) of annotated requests.

    Raises:
        UserError: a slot that the settings name occurs in none.

    Example:
        >>> slots = [("song", "blue river"), ("song", "Red hill"), ("room", "hall"), ("room", "hall"), ("room", "hall")]
        >>> found = catalogue_of(slots, CatalogueSettings(values=1, openness=0.5))
        >>> sorted(found.slots), sorted(found.closed), sorted(found.values)
        (['song'], ['hall'], ['blue river', 'hall', 'red hill'])
    """
    counts: dict[str, Counter[str]] = {}
    for name, value in slots:
        counts.setdefault(name, Counter())[slot_value(value)] += 1
    if settings.slots is not None:
        missing = sorted(set(settings.slots) - set(counts))
        if missing:
            raise UserError(
                f"catalogue.slots: no request has {', '.join(missing)}; expected some of {', '.join(sorted(counts))}"
            )
        named = set(settings.slots)
    else:
        many = {name: own for name, own in counts.items() if len(own) >= settings.values}
        named = {name for name, own in many.items() if len(own) >= settings.openness * own.total()}
    closed = {value for name, own in counts.items() if name not in named for value in own}
    return KnownValues(
        frozenset(named), frozenset(value for own in counts.values() for value in own), frozenset(closed)
    )


class Masks(NamedTuple):
    """What masks are made of: values (token lists) of each catalogue slot, the words that are kept, and random ones."""

    values: Mapping[str, Sequence[Sequence[str]]]
    kept: frozenset[str]
    words: Sequence[str]

    @classmethod
    def of(cls, examples: Iterable[Example], slots: AbstractSet[str], common: int) -> Masks:
        """Return those of requests: kept are words of at least ``common`` places outside catalogue values."""
        values: dict[str, list[Sequence[str]]] = {}
        outside: Counter[str] = Counter()
        words = set()
        for example in examples:
            for slot in from_iob(example.tokens, example.tags):
                if slot.name in slots:
                    values.setdefault(slot.name, []).append(example.tokens[slot.start : slot.end])
            for token, tag in zip(example.tokens, example.tags, strict=True):
                words.add(token.lower())
                outside[token.lower()] += tag[2:] not in slots
        kept = frozenset(word for word, count in outside.items() if count >= common)
        return cls(values, kept, sorted(words))


def masked(example: Example, masks: Masks, share: float, rng: np.random.Generator) -> Example:
    """Return a copy of a request, in which a share of the catalogue values are masked.

    A mask is a value of the same slot, drawn, with random words for those that say nothing outside of values: "the" and
    "of" are left, as values have them, too.

    Example:
        >>> lamp = Example(["turn", "on", "the", "lamp"], "on", ["O", "O", "B-name", "I-name"])
        >>> masks = Masks({"name": [["the", "desk"]]}, frozenset({"the"}), ["xyz"])
        >>> masked(lamp, masks, 1.0, np.random.default_rng(0))
        Example(tokens=['turn', 'on', 'the', 'xyz'], intent='on', tags=['O', 'O', 'B-name', 'I-name'])
    """
    tokens: list[str] = []
    tags: list[str] = []
    at = 0
    for slot in from_iob(example.tokens, example.tags):
        tokens += example.tokens[at : slot.start]
        tags += example.tags[at : slot.start]
        own = list(example.tokens[slot.start : slot.end])
        if slot.name in masks.values and rng.random() < share:
            drawn = masks.values[slot.name][int(rng.integers(len(masks.values[slot.name])))]
            words = masks.words
            own = [one if one.lower() in masks.kept else words[int(rng.integers(len(words)))] for one in drawn]
        tokens += own
        tags += [f"B-{slot.name}", *[f"I-{slot.name}"] * (len(own) - 1)]
        at = slot.end
    return Example([*tokens, *example.tokens[at:]], example.intent, [*tags, *example.tags[at:]])


def fit_taggers(
    examples: Mapping[str, Sequence[Example]],
    catalogue: KnownValues,
    copies: Mapping[str, Sequence[Example]],
    settings: CrfSettings,
) -> TeachingModel:
    """Train the tagger of each domain on its requests and masked copies, in the order given."""
    words = {token.lower() for own in examples.values() for example in own for token in example.tokens}
    taggers = {}
    for domain, own in examples.items():
        data = fit([*own, *copies.get(domain, ())], settings)
        if data is not None:
            taggers[domain] = data
    return TeachingModel(catalogue, words, taggers)


class TeachingModel:
    """The taggers of domains by name, what is known: values, and all words of training requests."""

    def __init__(self, catalogue: KnownValues, words: AbstractSet[str], taggers: Mapping[str, bytes]) -> None:
        self.catalogue, self.words = catalogue, frozenset(words)
        self._data = dict(taggers)
        self._taggers = {domain: Tagger(data) for domain, data in self._data.items()}

    def unknown(self, tokens: Sequence[str], domain: str | None) -> list[UnknownSpan]:
        """Return the spans of a request that may be values and are not known; of another domain, none."""
        tagger = self._taggers.get(domain or "")
        if tagger is None or not tokens:
            return []
        tags, chances = tagger.with_marginals(len(tokens), features(tokens))
        found = []
        for slot in from_iob(tokens, tags):
            if not self.knows(slot.value):
                score = float(np.float32(min(chances[slot.start : slot.end])))
                found.append(UnknownSpan(slot.name, slot.value, slot.start, slot.end, score))
        return found

    def unknown_words(self, tokens: Sequence[str]) -> list[UnknownSpan]:
        """Return the longest spans of words that no training request has: the baseline."""
        tags, before = [], OUTSIDE
        for token in tokens:
            known = token.lower() in self.words
            before = OUTSIDE if known else "I-unknown" if before != OUTSIDE else "B-unknown"
            tags.append(before)
        return [UnknownSpan(*slot, 1.0) for slot in from_iob(tokens, tags)]

    def knows(self, value: str) -> bool:
        """Return whether a training request has a value."""
        return slot_value(value) in self.catalogue.values

    def files(self) -> dict[str, bytes]:
        """Return the model's files."""
        told = {
            "format": FORMAT,
            "sizes": {domain: len(data) for domain, data in self._data.items()},
            "slots": sorted(self.catalogue.slots),
            "values": sorted(self.catalogue.values),
            "closed": sorted(self.catalogue.closed),
            "words": sorted(self.words),
        }
        return {MODEL: canonical.dumps(told), TAGGERS: b"".join(self._data[domain] for domain in sorted(self._data))}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> TeachingModel:
        """Return the model of its files.

        Raises:
            UserError: they are not those of a model of this kind.
        """
        told: dict[str, Any] = json.loads(files[MODEL])
        if told.get("format") != FORMAT or sum(told["sizes"].values()) != len(files[TAGGERS]):
            raise UserError(f"teaching: {MODEL} is of another format; expected that of a model of unknown spans")
        ends = accumulate((told["sizes"][domain] for domain in sorted(told["sizes"])), initial=0)
        data = dict(zip(sorted(told["sizes"]), (files[TAGGERS][a:b] for a, b in pairwise(ends)), strict=True))
        catalogue = KnownValues(frozenset(told["slots"]), frozenset(told["values"]), frozenset(told["closed"]))
        return cls(catalogue, frozenset(told["words"]), data)


def value_of(tokens: Sequence[str], start: int, end: int) -> str:
    """Return the value of a span of tokens, as slots are compared."""
    return slot_value(joined(tokens[start:end]))
