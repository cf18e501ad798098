"""Pairs of texts to train a paraphrase model on, from groups of texts that mean the same.

Positive pairs are inside a group. Negative ones are what a model has to tell from them: the nearest texts of other
groups, texts of the same intent with another meaning, the same text with another value in a slot or with another word
that makes a difference ("on", "off"), and random texts. Words of politeness make none.
What is drawn for a text depends on the seed, its id and the set, not on the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy import sparse

from gristmill.models.sessions.meaning_texts import MeaningText, OneWordChanges
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

Kind = Literal["same", "polite", "nearest", "one_word", "same_intent", "other_value", "random"]
_CHUNK = 512  # texts compared with all at once
_BEFORE = 0.7  # of polite phrases, those that begin a text


class TextPair(NamedTuple):
    """Two token lists, whether they mean the same, what kind of pair it is, and the group of the first."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    kind: Kind
    meaning: str

    @property
    def positive(self) -> bool:
        """Whether the two mean the same."""
        return self.kind in ("same", "polite")


class MeaningPairSettings(Settings):
    """How many pairs of each kind are drawn for a text, at most."""

    same: int = Field(3, ge=1)
    """Other texts of its group."""
    polite: int = Field(1, ge=0)
    """Another text of its group, or itself, with a phrase of ``politeness`` before or after it."""
    politeness: tuple[str, ...] = ("please", "can you", "could you", "would you", "thanks", "thank you")
    """Phrases that change nothing of what a text means."""
    one_word: int = Field(2, ge=0)
    """The text itself with another word in the place of one, where other texts so say something else."""
    nearest: int = Field(1, ge=0)
    """The nearest texts of other groups, of which the pairs are drawn from the nearest five."""
    same_intent: int = Field(1, ge=0)
    """Texts of the same intent, with another meaning; where intents are known."""
    other_value: int = Field(1, ge=0)
    """The text itself, or another one of its group, with another value of the same name; where slots are known."""
    random: int = Field(1, ge=0)
    """Any texts of other groups."""
    texts: int = Field(6000, ge=2)
    """Texts that are looked at: of more, so many are drawn by their groups."""
    seed: int = 0
    """Seed of the draws."""


def draw_pairs(
    given: Sequence[MeaningText], settings: MeaningPairSettings, changes: OneWordChanges | None = None
) -> list[TextPair]:
    """Return pairs of texts of the groups; ``changes`` are those of one word in the texts, if they are known already.

    Example:
        >>> said = [("a", "on", "lights on"), ("b", "on", "turn the lights on"), ("c", "off", "lights off")]
        >>> texts = [MeaningText(name, meaning, tuple(text.split())) for name, meaning, text in said]
        >>> sorted({pair.kind for pair in draw_pairs(texts, MeaningPairSettings())})
        ['nearest', 'one_word', 'polite', 'random', 'same']
    """
    texts = chosen_texts(given, settings)
    changes = OneWordChanges(texts) if changes is None else changes
    random = RecordRandom(settings.seed, "meaning pairs")
    of_meaning = _places(text.meaning for text in texts)
    of_intent = _places(text.intent for text in texts)
    values = _values(texts)
    nearest = _nearest(texts, 5) if settings.nearest else [[]] * len(texts)
    made: list[TextPair] = []
    for place, text in enumerate(texts):
        rng = random(text.id)

        def add(kind: Kind, tokens: Sequence[str], text: MeaningText = text) -> None:
            made.append(TextPair(text.tokens, tuple(tokens), kind, text.meaning))

        group = [one for one in of_meaning[text.meaning] if texts[one].tokens != text.tokens]
        for one in _draw(rng, group, settings.same):
            add("same", texts[one].tokens)
        polite = [text, *(texts[one] for one in group)]
        for _ in range(settings.polite if settings.politeness else 0):
            phrase = settings.politeness[int(rng.integers(len(settings.politeness)))].split()
            tokens = polite[int(rng.integers(len(polite)))].tokens
            add("polite", (*phrase, *tokens) if rng.random() < _BEFORE else (*tokens, *phrase))
        changed = sorted(set(changes.others(text))) if settings.one_word else []
        for one in _draw(rng, range(len(changed)), settings.one_word):
            add("one_word", changed[one])
        others = [one for one in nearest[place] if texts[one].tokens != text.tokens]
        for one in _draw(rng, others, settings.nearest):
            add("nearest", texts[one].tokens)
        if text.intent is not None:
            same = [
                one
                for one in _draw(rng, of_intent[text.intent], 4 * settings.same_intent)
                if texts[one].meaning != text.meaning
            ]
            for one in same[: settings.same_intent]:
                add("same_intent", texts[one].tokens)
        for number in range(settings.other_value):
            source = texts[int(group[int(rng.integers(len(group)))])] if number % 2 == 0 and group else text
            replaced = _other_value(rng, source, values)
            if replaced is not None:
                add("other_value", replaced)
        for one in rng.integers(len(texts), size=settings.random).tolist():
            if texts[one].meaning != text.meaning:
                add("random", texts[one].tokens)
    return made


def chosen_texts(given: Sequence[MeaningText], settings: MeaningPairSettings) -> Sequence[MeaningText]:
    """Return the texts that are looked at, in the order of their ids."""
    texts = sorted(set(given))
    if len(texts) <= settings.texts:
        return texts
    random = RecordRandom(settings.seed, "meanings")
    names = sorted({text.meaning for text in texts}, key=lambda name: (random(name).random(), name))
    rank = {name: number for number, name in enumerate(names)}
    kept = sorted(texts, key=lambda text: (rank[text.meaning], text))[: settings.texts]
    return sorted(kept)


def _places(names: Iterable[str | None]) -> dict[str | None, list[int]]:
    found: dict[str | None, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return found


def _draw(rng: np.random.Generator, places: Sequence[int], count: int) -> list[int]:
    if not places or not count:
        return []
    return [places[one] for one in rng.permutation(len(places))[:count].tolist()]


def _values(texts: Sequence[MeaningText]) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, set[tuple[str, ...]]] = {}
    for text in texts:
        for name, start, end in text.slots or ():
            found.setdefault(name, set()).add(text.tokens[start:end])
    return {name: sorted(own) for name, own in sorted(found.items())}


def _other_value(
    rng: np.random.Generator, text: MeaningText, values: Mapping[str, Sequence[tuple[str, ...]]]
) -> tuple[str, ...] | None:
    slots = [one for one in text.slots or () if len(values[one[0]]) > 1]
    if not slots:
        return None
    name, start, end = slots[int(rng.integers(len(slots)))]
    others = [value for value in values[name] if value != text.tokens[start:end]]
    value = others[int(rng.integers(len(others)))]
    return (*text.tokens[:start], *value, *text.tokens[end:])


def _nearest(texts: Sequence[MeaningText], count: int) -> list[list[int]]:
    """Return the texts of other meanings with the largest cosines over words and their trigrams."""
    terms = [
        sorted({*text.tokens, *(f" {word} "[n : n + 3] for word in text.tokens for n in range(len(word)))})
        for text in texts
    ]
    names = {term: place for place, term in enumerate(sorted({one for own in terms for one in own}))}
    columns = np.array([names[one] for own in terms for one in own])
    starts = np.cumsum([0, *(len(own) for own in terms)])
    often = np.bincount(columns, minlength=len(names))
    data = np.log((len(texts) + 1) / often)[columns]
    rows = sparse.csr_array((data, columns, starts), (len(texts), len(names)))
    lengths = np.sqrt(np.maximum(rows.multiply(rows).sum(1), 1e-12))
    rows = sparse.csr_array(sparse.diags_array(1 / lengths) @ rows)
    meaning = np.unique([text.meaning for text in texts], return_inverse=True)[1]
    made: list[list[int]] = []
    for first in range(0, len(texts), _CHUNK):
        # On a grid, so that equal cosines are equal in whatever order they are summed.
        alike = np.round((rows[first : first + _CHUNK] @ rows.T).toarray(), 6)
        own = meaning[first : first + _CHUNK]
        alike[own[:, None] == meaning[None]] = -1.0
        best = np.argsort(-alike, axis=1, kind="stable")[:, :count]
        made += [[place for place in row.tolist() if alike[number, place] >= 0] for number, row in enumerate(best)]
    return made
