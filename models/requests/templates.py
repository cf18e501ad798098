"""Templates of annotated requests, and the requests that are made by filling them: pairs for a paraphrase detector.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019): the values of a request's slots are replaced by
the slots' names ("play [artist_name] in the [device_location]"), and the templates are grouped by domain, intent and
the set of their slots. Of a request, its template and its values,

- another template of its group with the same values is a paraphrase (``positive``);
- the same template with another value is none (``other_value``), nor is
- a template of another intent with the same slots and values of its own (``other_label``),
- even with the same values (``same_values``): the article does not say whether its pairs of another label share them.

A request without slots has no template. A template is filled from its own domain only, so a domain that is left out of
a training gives nothing to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np

from gristmill.shards import canonical
from gristmill.shards.errors import UserError

FilledKind = Literal["positive", "other_value", "other_label", "same_values"]
FILLED_KINDS: tuple[FilledKind, ...] = get_args(FilledKind)
TEMPLATES = "templates.json"
FORMAT = 1

Words = tuple[str, ...]


class Span(NamedTuple):
    """A slot of a request: its name, and its tokens from ``start`` up to and excluding ``end``."""

    name: str
    start: int
    end: int


class Annotated(NamedTuple):
    """An annotated request; its slots do not overlap and are in the order of its tokens."""

    domain: str
    intent: str
    tokens: Words
    slots: tuple[Span, ...] = ()


class Piece(NamedTuple):
    """A part of a template: a word, or the name of a slot."""

    text: str
    is_slot: bool


class SlotTemplate(NamedTuple):
    """The words of a request, with names in place of the values of its slots.

    Example:
        >>> SlotTemplate((Piece("play", False), Piece("artist", True)))
        play [artist]
    """

    pieces: tuple[Piece, ...]

    def __repr__(self) -> str:
        return " ".join(f"[{piece.text}]" if piece.is_slot else piece.text for piece in self.pieces)

    @property
    def slots(self) -> Words:
        """The names of the slots, sorted; one that occurs twice is there twice."""
        return tuple(sorted(piece.text for piece in self.pieces if piece.is_slot))

    def filled(self, values: Mapping[str, Sequence[Words]]) -> tuple[Words, tuple[Span, ...]]:
        """Return the tokens and slots with values by the slots' names; those of one name are taken in their order."""
        left = {name: iter(own) for name, own in values.items()}
        tokens: list[str] = []
        spans = []
        for piece in self.pieces:
            start = len(tokens)
            tokens += next(left[piece.text]) if piece.is_slot else (piece.text,)
            if piece.is_slot:
                spans.append(Span(piece.text, start, len(tokens)))
        return tuple(tokens), tuple(spans)


def annotated(row: Mapping[str, Any], where: str = "requests") -> Annotated:
    """Return a request from a record with ``id``, ``tokens``, ``slots``, ``domain`` and ``intent``.

    Slots without a place are ignored, and of slots that overlap the first is kept.

    Raises:
        UserError: it has no domain or intent, or a slot lies outside its tokens.

    Example:
        >>> slots = [{"name": "artist", "start": 1, "end": 2}]
        >>> annotated({"id": "r1", "domain": "music", "intent": "play", "tokens": ["play", "Seal"], "slots": slots})
        Annotated(domain='music', intent='play', tokens=('play', 'Seal'), slots=(Span(name='artist', start=1, end=2),))
    """
    name, tokens = row.get("id"), tuple(row["tokens"] or ())
    if not row["domain"] or not row["intent"]:
        raise UserError(
            f"{where}: request {name} is of domain {row['domain']!r} and intent {row['intent']!r}; expected both of "
            "each request that pairs are made of"
        )
    spans: list[Span] = []
    placed = [one for one in row["slots"] or () if one["start"] is not None and one["end"] is not None]
    for slot in sorted(placed, key=lambda one: (one["start"], one["end"])):
        span = Span(slot["name"], slot["start"], slot["end"])
        if not 0 <= span.start < span.end <= len(tokens):
            raise UserError(
                f"{where}: slot {span.name!r} of request {name} has tokens {span.start} to {span.end}; expected some "
                f"of its {len(tokens)} tokens"
            )
        if not spans or span.start >= spans[-1].end:
            spans.append(span)
    return Annotated(row["domain"], row["intent"], tokens, tuple(spans))


def template_of(request: Annotated) -> tuple[SlotTemplate, dict[str, list[Words]]]:
    """Return the template of a request, and the values of its slots by name; all in lower case.

    Example:
        >>> template_of(Annotated("music", "play", ("Play", "Roxy", "Music", "now"), (Span("artist", 1, 3),)))
        (play [artist] now, {'artist': [('roxy', 'music')]})
    """
    pieces: list[Piece] = []
    values: dict[str, list[Words]] = {}
    words = tuple(token.lower() for token in request.tokens)
    last = 0
    for span in request.slots:
        pieces += [Piece(word, False) for word in words[last : span.start]]
        pieces.append(Piece(span.name, True))
        values.setdefault(span.name, []).append(words[span.start : span.end])
        last = span.end
    return SlotTemplate((*pieces, *(Piece(word, False) for word in words[last:]))), values


class TemplateBank:
    """The templates of annotated requests by domain, slots and intent, and the values of each domain's slots.

    Example:
        >>> bank = TemplateBank()
        >>> bank.add(Annotated("music", "play", ("play", "Adele"), (Span("artist", 1, 2),)))
        >>> bank.add(Annotated("music", "play", ("i", "want", "Seal"), (Span("artist", 2, 3),)))
        >>> bank.add(Annotated("music", "like", ("i", "like", "Seal"), (Span("artist", 2, 3),)))
        >>> request = Annotated("music", "play", ("play", "Adele"), (Span("artist", 1, 2),))
        >>> for kind, made in bank.fill(request, np.random.default_rng(0)):
        ...     print(kind, "-", *made.tokens, "-", made.intent)
        positive - i want adele - play
        other_value - play seal - play
        other_label - i like seal - like
        same_values - i like adele - like
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[str, Words], dict[str, set[SlotTemplate]]] = {}
        self._values: dict[tuple[str, str], set[Words]] = {}
        self._ordered: dict[Any, list[Any]] = {}  # what is drawn from, in an order that does not depend on that of adds

    def add(self, request: Annotated) -> None:
        """Take in a request; one without slots, or of slots alone, has no template and changes nothing."""
        template, values = template_of(request)
        for name, own in values.items():
            self._values.setdefault((request.domain, name), set()).update(own)
        if values and not all(piece.is_slot for piece in template.pieces):
            group = self._templates.setdefault((request.domain, template.slots), {})
            group.setdefault(request.intent, set()).add(template)
        self._ordered.clear()

    def fill(self, request: Annotated, random: np.random.Generator) -> Iterator[tuple[FilledKind, Annotated]]:
        """Yield a request of each kind for which there is another template or value, made from this one.

        Its place among requests does not matter: the draws are those of ``random``.
        """
        template, values = template_of(request)
        if not values:
            return
        slots, domain = template.slots, request.domain
        by_intent = self._templates.get((domain, slots), {})
        own = [one for one in self._sorted((domain, slots, request.intent), by_intent) if one != template]
        if own:
            chosen = own[random.integers(len(own))]
            yield "positive", Annotated(domain, request.intent, *chosen.filled(values))
        name = slots[random.integers(len(slots))]
        place = int(random.integers(len(values[name])))
        other = self._others((domain, name), values[name][place], random)
        if other is not None:
            new = [*values[name][:place], other, *values[name][place + 1 :]]
            yield "other_value", Annotated(domain, request.intent, *template.filled(values | {name: new}))
        intents = sorted(set(by_intent) - {request.intent})
        if not intents:
            return
        intent = intents[random.integers(len(intents))]
        mine = by_intent.get(request.intent, {template})  # what is said with either intent tells nothing
        rivals = [one for one in self._sorted((domain, slots, intent), by_intent) if one not in mine]
        if not rivals:
            return
        rival = rivals[random.integers(len(rivals))]
        drawn = {name: [self._others((domain, name), old, random) for old in own] for name, own in values.items()}
        if all(value is not None for own in drawn.values() for value in own):
            yield "other_label", Annotated(domain, intent, *rival.filled(drawn))
        yield "same_values", Annotated(domain, intent, *rival.filled(values))

    def _others(self, key: tuple[str, str], old: Words, random: np.random.Generator) -> Words | None:
        """Return another value of a domain's slot than the old one; ``None`` if there is none."""
        others = [one for one in self._sorted(key, self._values) if one != old]
        return others[random.integers(len(others))] if others else None

    def _sorted(self, key: tuple[Any, ...], among: Mapping[Any, set[Any]]) -> list[Any]:
        """Return a group's templates, or a slot's values, in a fixed order."""
        if key not in self._ordered:
            self._ordered[key] = sorted(among.get(key[-1] if len(key) == 3 else key, ()))
        return self._ordered[key]

    def files(self) -> dict[str, bytes]:
        """Return the file of an artifact; the same requests in any order give the same bytes."""
        templates = [
            {"domain": domain, "intent": intent, "pieces": [list(piece) for piece in template.pieces]}
            for (domain, _), group in sorted(self._templates.items())
            for intent, own in sorted(group.items())
            for template in sorted(own)
        ]
        values = [
            {"domain": domain, "slot": slot, "values": [list(value) for value in sorted(own)]}
            for (domain, slot), own in sorted(self._values.items())
        ]
        return {TEMPLATES: canonical.dumps({"format": FORMAT, "templates": templates, "values": values})}

    @classmethod
    def from_files(cls, described: Mapping[str, Any]) -> Self:
        """Return the bank stored in a file.

        Raises:
            ValueError: it is of another format.
        """
        if described.get("format") != FORMAT:
            raise ValueError(f"{TEMPLATES}: format {described.get('format')}; expected {FORMAT}")
        bank = cls()
        for one in described["templates"]:
            template = SlotTemplate(tuple(Piece(text, bool(is_slot)) for text, is_slot in one["pieces"]))
            group = bank._templates.setdefault((one["domain"], template.slots), {})
            group.setdefault(one["intent"], set()).add(template)
        for one in described["values"]:
            bank._values[one["domain"], one["slot"]] = {tuple(value) for value in one["values"]}
        return bank


def filled_from(requests: Iterable[Annotated]) -> TemplateBank:
    """Return the bank of requests."""
    bank = TemplateBank()
    for request in requests:
        bank.add(request)
    return bank
