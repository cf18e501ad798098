"""Slot annotation formats of corpora: one tag per token, brackets around values, nested parses.

Each reader returns the tokens and the slots as (name, start, end) in tokens, or raises :class:`RejectRecord`. Reasons
are counted, so they have no detail of a single record.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gristmill.models.normalise import JOINERS, normalise, parted
from gristmill.shards.errors import RejectRecord

Slots = list[tuple[str, int, int]]

NO_TEXT = "annotation: no text"
NO_INTENT = "annotation: no intent"
NOT_CLOSED = "annotation: bracket is not closed"
NOT_OPENED = "annotation: bracket is not opened"
NESTED = "annotation: brackets are nested"
NO_NAME = "annotation: slot has no name"
NO_VALUE = "annotation: slot has no value"
UNEQUAL = "annotation: tags and tokens differ in number"
BAD_TAG = "annotation: tag is neither O nor B- or I- with a name"
NO_BEGIN = "annotation: I- follows no B- of its name"
OUTSIDE = "annotation: words outside the parse"
NOT_AT_SPAN = "annotation: slot value is not at its span"
NOT_IN_TEXT = "annotation: slot value is not in the text"
BAD_SPAN = "annotation: span is not in the tokens"
OVERLAP = "annotation: slots overlap"
BAD_SLOTS = "annotation: slots are no list of names and values"

_NAMES = ("name", "entity", "slot", "label")  # under which corpora give a slot's name
_INLINE = re.compile(r"\[([^\[\]]*)\]")


def read_tags(tokens: Sequence[str], tags: Sequence[str]) -> Slots:
    """Return the slots of tokens with one tag each: ``B-name`` begins one, ``I-name`` continues it, ``O`` is none."""
    if len(tokens) != len(tags):
        raise RejectRecord(UNEQUAL)
    slots: Slots = []
    for place, tag in enumerate(tags):
        mark, _, name = tag.partition("-")
        if tag == "O":
            continue
        if mark not in ("B", "I") or not name:
            raise RejectRecord(BAD_TAG)
        if mark == "B":
            slots.append((name, place, place + 1))
        elif slots and slots[-1][0] == name and slots[-1][2] == place:
            slots[-1] = (name, slots[-1][1], place + 1)
        else:
            raise RejectRecord(NO_BEGIN)
    return slots


def read_brackets(text: str) -> tuple[list[str], Slots]:
    """Return tokens and slots of a text with ``[name : value]`` in it; a bracket ends a token on both sides."""
    tokens: list[str] = []
    slots: Slots = []
    end = 0
    for match in _INLINE.finditer(text):
        tokens += _plain(text[end : match.start()], text[match.start() :])
        name, colon, value = (part.strip() for part in match[1].partition(":"))
        if not name or not colon:
            raise RejectRecord(NO_NAME)
        if not value:
            raise RejectRecord(NO_VALUE)
        words = split(value)
        slots.append((name, len(tokens), len(tokens) + len(words)))
        tokens += words
        end = match.end()
    tokens += _plain(text[end:], "")
    return tokens, slots


def _plain(text: str, behind: str) -> list[str]:
    if "[" in text:  # another bracket is opened inside, or this one is never closed
        raise RejectRecord(NESTED if behind else NOT_CLOSED)
    if "]" in text:
        raise RejectRecord(NOT_OPENED)
    return split(text)


def read_parse(parse: str) -> tuple[list[str], str, Slots]:
    """Return tokens, intent and top-level slots of a parse like ``[IN:SET_ALARM wake me at [SL:TIME nine ] ]``.

    Anything nested in a slot (another intent, its slots) is part of its value.
    """
    tokens: list[str] = []
    slots: Slots = []
    intent = ""
    opened: list[tuple[str, int]] = []
    for piece in parse.split():
        if piece.startswith(("[IN:", "[SL:")):
            kind, name = piece[1:3], piece[4:]
            if not opened and (kind != "IN" or not name):
                raise RejectRecord(NO_INTENT)
            if not name:
                raise RejectRecord(NO_NAME)
            if not opened:
                if intent:
                    raise RejectRecord(OUTSIDE)
                intent = name
            opened.append((name if kind == "SL" else "", len(tokens)))
        elif piece == "]":
            if not opened:
                raise RejectRecord(NOT_OPENED)
            name, start = opened.pop()
            if name and start == len(tokens):
                raise RejectRecord(NO_VALUE)
            if name and len(opened) == 1:
                slots.append((name, start, len(tokens)))
        elif not opened:
            raise RejectRecord(OUTSIDE if intent else NO_INTENT)
        else:
            tokens.append(piece)
    if opened:
        raise RejectRecord(NOT_CLOSED)
    if not intent:
        raise RejectRecord(NO_INTENT)
    return tokens, intent, slots


def read_slots(tokens: Sequence[str], slots: object) -> Slots:
    """Return slots given as ``{"name", "value"}``, ``{"name", "start", "end"}`` (in tokens) or both.

    Without a span, the slot is the value's first occurrence in the text outside the slots listed before it.
    """
    found: Slots = []
    for name, words, start, end in _read(slots):
        if start is None and end is None:
            if not words:
                raise RejectRecord(NO_VALUE)
            found.append((name, *_search(tokens, words, found)))
        elif type(start) is not int or type(end) is not int or not 0 <= start < end <= len(tokens):
            raise RejectRecord(BAD_SPAN)
        elif words is not None and words != list(tokens[start:end]):
            raise RejectRecord(NOT_AT_SPAN)
        else:
            found.append((name, start, end))
    check_apart(found)
    return found


def _read(slots: object) -> Iterator[tuple[str, list[str] | None, Any, Any]]:
    """Yield the name of each slot, its value's words, and its span as given; ``None`` for what is not given."""
    if slots is not None and not isinstance(slots, list):
        raise RejectRecord(BAD_SLOTS)
    for slot in slots or []:
        if not isinstance(slot, dict):
            raise RejectRecord(BAD_SLOTS)
        name = next((slot[key] for key in _NAMES if key in slot), None)
        if not isinstance(name, str) or not name:
            raise RejectRecord(NO_NAME)
        value = slot.get("value")
        words = value.split() if isinstance(value, str) else []
        yield name, None if value is None else words, slot.get("start"), slot.get("end")


def _search(tokens: Sequence[str], words: Sequence[str], taken: Slots) -> tuple[int, int]:
    for start in range(len(tokens) - len(words) + 1):
        end = start + len(words)
        if list(tokens[start:end]) == list(words) and all(end <= first or start >= last for _, first, last in taken):
            return start, end
    raise RejectRecord(NOT_IN_TEXT)


def read_text(given: str, slots: object, lang: str = "", *, letters: bool = False) -> tuple[str, list[str], Slots]:
    """Return a text, its tokens, split at spaces, and its slots, which are given as for :func:`read_slots`.

    Text and values are normalised (:func:`gristmill.models.normalise.normalise`). Of languages without spaces each sign
    is a token. A value that begins or ends beside punctuation ("river." or "river's") cuts the token there. A span with
    a value may be one of letters instead of tokens; without a value it is if ``letters`` (Rasa's ``entities``).

    Example:
        >>> read_text("play blue river.", [{"name": "title", "value": "blue river"}])
        ('play blue river.', ['play', 'blue', 'river', '.'], [('title', 1, 3)])
    """
    text = normalise(given, lang)
    words = [span for found in re.finditer(r"\S+", text) for span in _spans(found)]
    spans: Slots = []  # in letters
    for name, value, start, end in _read(slots):
        wanted = None if value is None else normalise(" ".join(value), lang)
        if start is None and end is None:
            if not wanted:
                raise RejectRecord(NO_VALUE)
            spans.append((name, *_place(text, wanted, words, spans)))
            continue
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(given):
            raise RejectRecord(BAD_SPAN)
        place = (words[start][0], words[end - 1][1]) if end <= len(words) and not (letters and wanted is None) else None
        if wanted is None:
            wanted = normalise(given[start:end], lang) if letters else None
        if wanted is not None and (place is None or text[slice(*place)] != wanted):
            if normalise(given[start:end], lang) != wanted:
                raise RejectRecord(NOT_AT_SPAN)
            place = (start, end) if text[start:end] == wanted else _place(text, wanted, words, spans)
        if place is None:
            raise RejectRecord(BAD_SPAN)
        spans.append((name, *place))
    check_apart(spans)
    cuts = {cut for _, *ends in spans for cut in ends}
    pieces = [piece for word in words for piece in _cut(word, cuts)]
    begins, ends = ({piece[side]: place for place, piece in enumerate(pieces)} for side in (0, 1))
    if any(start not in begins or end not in ends for _, start, end in spans):
        raise RejectRecord(BAD_SPAN)
    found = [(name, begins[start], ends[end] + 1) for name, start, end in spans]
    return text, [text[slice(*piece)] for piece in pieces], found


def split(text: str) -> list[str]:
    """Return the tokens of a text: its parts between spaces; of languages without spaces, its signs."""
    if text.isascii():  # all of it is written with spaces
        return text.split()
    return [part for word in text.split() for part in parted(word)]


def _spans(word: re.Match[str]) -> Iterator[tuple[int, int]]:
    at = word.start()
    for part in parted(word[0]):
        yield at, at + len(part)
        at += len(part)


def _place(text: str, value: str, words: Sequence[tuple[int, int]], taken: Slots) -> tuple[int, int]:
    """Return the first place of a value that begins and ends with words, or else beside punctuation.

    Only a value that is nowhere else may be in letters of another case.
    """
    starts, ends = {start for start, _ in words}, {end for _, end in words}
    overlaps = False
    for form in (str, str.lower):
        within, second = form(text), None
        if len(within) != len(text) or len(form(value)) != len(value):
            break
        for found in re.finditer(f"(?={re.escape(form(value))})", within):
            start, end = found.start(), found.start() + len(value)
            if any(start < last and first < end for _, first, last in taken):
                overlaps = True
            elif start in starts and end in ends:
                return start, end
            elif (start in starts or not _is_word(text[start - 1])) and (end in ends or not _is_word(text[end])):
                second = second or (start, end)
        if second is not None:
            return second
    raise RejectRecord(OVERLAP if overlaps else NOT_IN_TEXT)


def _is_word(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character)[0] in "LMN"


def _cut(word: tuple[int, int], cuts: Iterable[int]) -> Iterator[tuple[int, int]]:
    at = word[0]
    for cut in sorted(cut for cut in cuts if word[0] < cut < word[1]):
        yield at, cut
        at = cut
    yield at, word[1]


def check_apart(slots: Iterable[tuple[str, int, int]]) -> None:
    """Raise :class:`RejectRecord` if slots share a token."""
    end = 0
    for _, start, stop in sorted(slots, key=lambda slot: slot[1]):
        if start < end:
            raise RejectRecord(OVERLAP)
        end = stop
