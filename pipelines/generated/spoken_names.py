"""Requests to a voice assistant of which half hold rare names: contacts, cities, medicines and songs.

Text only, synthesised by ``gristmill.actors.speech.synthesise``. The names are real ones
(:mod:`gristmill.pipelines.generated.name_catalogue`), but for titles of songs, which are made here of common words and
a real name; their artists are people. The other half are the requests of
:mod:`gristmill.pipelines.generated.spoken_requests`. A record depends only on the seed, the part and its number. Each
name, a single word, belongs to one of the four parts, for all seeds: what is tested is in no training text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.pipelines.generated import name_catalogue, spoken_requests
from gristmill.pipelines.generated.name_catalogue import KINDS, PARTS, part_of
from gristmill.pipelines.generated.spoken_requests import SENTENCES, SLOTS, sentence
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import ID, NAMES

HELD_OUT = ("development", "test")  # parts that nothing is trained on
NAMED = SENTENCES.append(NAMES)  # the different names in the text, in its order
TEXTS = pa.schema([ID, pa.field("text", pa.string())])

_VERSION = 1  # of the drawing of requests
_NAMED_SHARE = 0.5  # of the requests
_FEWEST, _MOST = 4, 6  # names of a record of names alone
_TITLES = (
    *("goodbye {first}", "the ballad of {first}", "dancing with {first}", "letters from {city}", "leaving {city}"),
    *("{colour} nights in {city}", "a song for {first}", "{first} and {first}", "the road to {city}"),
)
_PATTERNS = {
    "contacts": [
        "call {first} {last}",
        "call {first} {last} at {place} please",
        "call doctor {last}",
        "send {first} {last} a message about the {event}",
        "text {first} that i'm leaving {place}",
        "tell {first} i'll be {few} minutes late",
        "add {first} {last} to my contacts",
        "what's the phone number of {first} {last}",
        "move the {event} with {first} {last} to {day}",
        "cancel the {event} with {first}",
        "remind me to call {first} {last} {part}",
        "read the last message from {first} {last}",
        "invite {first} and {first} to the {event}",
        "when's the birthday of {first} {last}",
        "book the {event} with doctor {last} {day} at {hour}",
        "is {first} {last} free {day} at {hour}",
    ],
    "cities": [
        "what's the weather in {city} {day}",
        "will it {fall} in {city} {day}",
        "how far is it from {city} to {city}",
        "when's the next train to {city}",
        "book a flight from {city} to {city}",
        "find a hotel in {city} for {day}",
        "find {mood} restaurants in {city}",
        "take me to {city} without traffic",
        "how long is the drive to {city}",
        "what time is it in {city}",
        "how many people live in {city}",
    ],
    "medicines": [
        "remind me to take {medicine} at {hour}",
        "remind me to take {medicine} {day}",
        "add {medicine} to my {list}",
        "when did i last take {medicine}",
        "can i take {medicine} with {medicine}",
        "order more {medicine} from the pharmacy",
        "what's {medicine} used for",
        "what are the side effects of {medicine}",
        "write down that i took {medicine} {part}",
        "do i need a prescription for {medicine}",
        "we're out of {medicine}",
    ],
    "music": [
        "play something by {first} {last} in the {room}",
        "play the new album by {first} {last}",
        "i'd like to hear {mood} songs by {first} {last}",
        "is {first} {last} on tour {part}",
        *(f"play {title}" for title in _TITLES),
        *(f"play {title} by {{first}} {{last}}" for title in _TITLES),
        *(f"who's singing {title}" for title in _TITLES),
    ],
}
_TOPICS = ("contacts", "contacts", "cities", "medicines", "music")  # drawn with equal probability
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every word of the requests that is no name, sorted."""
    patterns = [pattern for some in _PATTERNS.values() for pattern in some]
    texts = [_SLOT.sub(" ", pattern) for pattern in patterns]
    texts += [value for pattern in patterns for slot in _SLOT.findall(pattern) for value in SLOTS.get(slot, ())]
    return tuple(sorted({word for text in texts for word in text.split()} | set(spoken_requests.vocabulary())))


@cache
def pools(part: str) -> Mapping[str, tuple[str, ...]]:
    """Return the names of a part by kind, sorted: those that are no other words of the requests.

    Raises:
        UserError: the part is unknown, or a package is not installed.
    """
    if part not in PARTS:
        raise UserError(f"requests with names: part is {part!r}, expected one of {', '.join(PARTS)}")
    common = set(vocabulary())
    return {
        kind: tuple(name for name in names if name not in common and part_of(name) == part)
        for kind, names in name_catalogue.names().items()
    }


@cache
def distractors(part: str) -> tuple[str, ...]:
    """Return all names of a part, sorted, to draw lists of words from: about 11,000 of development and of test.

    Among them are names of towns, which no request has.

    Raises:
        UserError: the part is unknown, or a package is not installed.
    """
    return tuple(sorted(set().union(*pools(part).values())))


def identity() -> dict[str, Any]:
    """Return all that decides the requests besides part, seed, number and voices."""
    return {"version": _VERSION, **name_catalogue.versions()}


def named_requests(
    part: str, n: int, voices: Sequence[str], seed: int = 0, rows: int = 2000, start: int = 0, bare: float = 0.0
) -> Iterator[pa.Table]:
    """Yield records ``start`` to ``start + n - 1`` of a part as tables (``NAMED``) of at most ``rows`` rows.

    ``part`` is train (of a base model), adapter, development or test; each request draws one of ``voices``. Names are
    those of the part; a request without a name may be in train and adapter, or in development and test. A share
    ``bare`` of the records are no requests but names alone, four to six: how names are spelled is learned from many.

    Raises:
        UserError: an argument is wrong, or a package is not installed.

    Example:
        >>> (table,) = named_requests("train", 2, ["hibari:heart"], seed=3)
        >>> table.column_names
        ['id', 'text', 'voice', 'names']
    """
    for ids, generators in _ranges(part, f"names/{part}", n, seed, rows, start):
        drawn = [(*_record(rng, part, bare), voices[int(rng.integers(len(voices)))]) for rng in generators]
        texts, names, speakers = zip(*drawn, strict=True)
        yield pa.table([ids, texts, speakers, names], schema=NAMED)


def texts(n: int, seed: int = 0, rows: int = 2000, start: int = 0) -> Iterator[pa.Table]:
    """Yield ``n`` texts for a language model, as :func:`named_requests` yields records, with the columns of ``TEXTS``.

    They are requests of the part train, drawn anew: without voices, and with names of that part only.

    Raises:
        UserError: as of :func:`named_requests`.
    """
    for ids, generators in _ranges("train", "names/text", n, seed, rows, start):
        yield pa.table([ids, [_request(rng, "train")[0] for rng in generators]], schema=TEXTS)


def _ranges(
    part: str, stream: str, n: int, seed: int, rows: int, start: int
) -> Iterator[tuple[list[str], Iterator[np.random.Generator]]]:
    """Yield the ids of each table, and a generator for each."""
    if n < 0 or start < 0 or rows < 1:
        raise UserError(f"requests with names: n={n}, start={start}, rows={rows}: expected n, start >= 0, rows >= 1")
    pools(part)
    draw = RecordRandom(seed, stream)
    for first in range(start, start + n, rows):
        ids = [f"{stream}/{i:07d}" for i in range(first, min(first + rows, start + n))]
        yield ids, map(draw, ids)


def _record(rng: np.random.Generator, part: str, bare: float) -> tuple[str, tuple[str, ...]]:
    """Draw a request, or names alone."""
    if not bare or rng.random() >= bare:
        return _request(rng, part)
    several = [pools(part)[kind] for kind in KINDS]
    drawn = [several[rng.integers(len(several))] for _ in range(rng.integers(_FEWEST, _MOST + 1))]
    names = [some[int(rng.integers(len(some)))] for some in drawn]
    return " ".join(names), tuple(dict.fromkeys(names))


def _request(rng: np.random.Generator, part: str) -> tuple[str, tuple[str, ...]]:
    """Draw a request, and return the different names in it, in its order; half of the requests have none."""
    if rng.random() >= _NAMED_SHARE:
        return sentence(rng, test=part in HELD_OUT), ()
    patterns = _PATTERNS[_TOPICS[rng.integers(len(_TOPICS))]]
    pattern = patterns[rng.integers(len(patterns))]
    names: list[str] = []

    def fill(slot: re.Match[str]) -> str:
        values: Sequence[str] = pools(part)[slot[1]] if slot[1] in KINDS else SLOTS[slot[1]]
        value = values[int(rng.integers(len(values)))]
        if slot[1] in KINDS:
            names.append(value)
        return value

    return _SLOT.sub(fill, pattern), tuple(dict.fromkeys(names))
