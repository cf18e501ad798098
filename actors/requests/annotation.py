"""Slot annotation formats of corpora: one tag per token, brackets around values, nested parses.

Each reader returns the tokens and the slots as (name, start, end) in tokens, or raises :class:`RejectRecord`. Reasons
are counted, so they have no detail of a single record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
        slots.append((name, len(tokens), len(tokens) + len(value.split())))
        tokens += value.split()
        end = match.end()
    tokens += _plain(text[end:], "")
    return tokens, slots


def _plain(text: str, behind: str) -> list[str]:
    if "[" in text:  # another bracket is opened inside, or this one is never closed
        raise RejectRecord(NESTED if behind else NOT_CLOSED)
    if "]" in text:
        raise RejectRecord(NOT_OPENED)
    return text.split()


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
    if slots is None:
        return []
    if not isinstance(slots, list):
        raise RejectRecord(BAD_SLOTS)
    found: Slots = []
    for slot in slots:
        if not isinstance(slot, dict):
            raise RejectRecord(BAD_SLOTS)
        name, value, start, end = (slot.get(key) for key in ("name", "value", "start", "end"))
        if not isinstance(name, str) or not name:
            raise RejectRecord(NO_NAME)
        words = value.split() if isinstance(value, str) else []
        if start is None and end is None:
            if not words:
                raise RejectRecord(NO_VALUE)
            found.append((name, *_search(tokens, words, found)))
        elif type(start) is not int or type(end) is not int or not 0 <= start < end <= len(tokens):
            raise RejectRecord(BAD_SPAN)
        elif value is not None and words != list(tokens[start:end]):
            raise RejectRecord(NOT_AT_SPAN)
        else:
            found.append((name, start, end))
    check_apart(found)
    return found


def _search(tokens: Sequence[str], words: Sequence[str], taken: Slots) -> tuple[int, int]:
    for start in range(len(tokens) - len(words) + 1):
        end = start + len(words)
        if list(tokens[start:end]) == list(words) and all(end <= first or start >= last for _, first, last in taken):
            return start, end
    raise RejectRecord(NOT_IN_TEXT)


def check_apart(slots: Iterable[tuple[str, int, int]]) -> None:
    """Raise :class:`RejectRecord` if slots share a token."""
    end = 0
    for _, start, stop in sorted(slots, key=lambda slot: slot[1]):
        if start < end:
            raise RejectRecord(OVERLAP)
        end = stop
