"""Placeholders: marks replace names, numbers and slot values during translation, and are filled in afterwards.

A mark (``<v0>`` to ``<v9>``) is one unit of a translator's vocabulary. In training pairs equal values of both sides
become the same mark; before translation a text's values become marks, and each is then replaced by its value in the
target language from a catalogue, or verbatim.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gristmill.models.languages import is_language
from gristmill.models.normalise import normalise

MARKS = tuple(f"<v{number}>" for number in range(10))
_MARK = re.compile(r"<v\d>")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|[\u0300-\u036f\u0900-\u0dff'’.-])*", re.UNICODE)

Span = tuple[int, int]


@dataclass(frozen=True)
class Protected:
    """A text with marks, and the marks with the values they replaced, as spelled in the text, in order."""

    text: str
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Filled:
    """A translation with its marks replaced, and the number of source marks that it had lost or repeated."""

    text: str
    lost: int = 0
    doubled: int = 0

    @property
    def whole(self) -> bool:
        """Whether each mark occurred exactly once."""
        return not self.lost and not self.doubled


class Catalogue:
    """Values of entities in two languages; source values are matched case-insensitively."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = {_key(source): normalise(target) for source, target in values.items() if _key(source)}

    def __len__(self) -> int:
        return len(self.values)

    def target(self, value: str) -> str | None:
        """Return the value in the target language, or ``None`` if it is not in the catalogue."""
        return self.values.get(_key(value))

    def spans(self, text: str) -> list[Span]:
        """Return the spans of catalogue values that are whole words of a source text; longer values take precedence."""
        return [match.span() for match in self._finder.finditer(text)] if self.values else []

    @cached_property
    def _finder(self) -> re.Pattern[str]:
        return _finder(self.values)


EMPTY = Catalogue({})


def number_spans(text: str) -> list[Span]:
    """Return the spans of numbers in digits of any script, with inner separators (``7:30``, ``1,000``)."""
    return [match.span() for match in _NUMBER.finditer(text)]


def token_spans(text: str, tokens: Sequence[str], slots: Iterable[Span]) -> list[Span]:
    """Return the character spans of slots, given as half-open token ranges.

    Tokens are searched in order; slots from the first token missing in the text on are not found.
    """
    places: list[Span] = []
    at = 0
    for token in tokens:
        found = text.find(token, at)
        if found < 0:
            break
        at = found + len(token)
        places.append((found, at))
    return [(places[start][0], places[end - 1][1]) for start, end in slots if 0 <= start < end <= len(places)]


def value_spans(text: str, values: Iterable[str]) -> list[Span]:
    """Return the spans of values that are whole words of a text, case-insensitively."""
    known = {_key(value) for value in values} - {""}
    return [match.span() for match in _finder(known).finditer(text)] if known else []


def protect(text: str, spans: Iterable[Span], first: int = 0) -> Protected:
    """Return a text with each span replaced by a mark, numbered from ``first`` in text order.

    Of overlapping spans the longest is taken. Text that already looks like a mark is protected too; spans beyond the
    tenth are left as they are.

    Example:
        >>> protect("call anna at 7", number_spans("call anna at 7"))
        Protected(text='call anna at <v0>', values=(('<v0>', '7'),))
    """
    wanted = {*spans, *(match.span() for match in _MARK.finditer(text))}
    chosen: list[Span] = []
    for start, end in sorted(wanted, key=lambda span: (span[0] - span[1], span)):
        if start < end and all(end <= other[0] or other[1] <= start for other in chosen):
            chosen.append((start, end))
    chosen = sorted(chosen)[: len(MARKS)]
    marks = [MARKS[(first + place) % len(MARKS)] for place in range(len(chosen))]
    values = [text[start:end] for start, end in chosen]
    return Protected(_replaced(text, chosen, marks), tuple(zip(marks, values, strict=True)))


def fill(text: str, protected: Protected, catalogue: Catalogue = EMPTY) -> Filled:
    """Return a translation with its marks replaced by target values.

    Damaged translations are repaired: a mark that is repeated, or that the source does not have, is dropped; the values
    of lost marks are appended in source order.

    Example:
        >>> fill("ruf um <v0> an", Protected("call at <v0>", (("<v0>", "7"),)))
        Filled(text='ruf um 7 an', lost=0, doubled=0)
    """
    values = {mark: _target(value, catalogue) for mark, value in protected.values}
    seen: set[str] = set()
    doubled = 0

    def value(match: re.Match[str]) -> str:
        nonlocal doubled
        mark = match.group()
        if mark in seen or mark not in values:
            doubled += 1
            return ""
        seen.add(mark)
        return values[mark]

    filled = _MARK.sub(value, text)
    lost = [filled_in for mark, filled_in in values.items() if mark not in seen]
    return Filled(normalise(" ".join([filled, *lost])), len(lost), doubled)


def protect_pair(
    source: str, target: str, target_lang: str, catalogue: Catalogue = EMPTY, first: int = 0
) -> tuple[str, str]:
    """Return a training pair with marks for the values that both sides share.

    These are a catalogue value whose target value occurs in the target; a number; a word that is equal on both sides
    and not in the target language's script (a name left as it is). Values that occur more often on one side are paired
    in order, and the excess is left.
    """
    pairs: list[tuple[Span, Span]] = []
    taken: set[Span] = set()

    def free(span: Span) -> bool:
        return all(span[1] <= other[0] or other[1] <= span[0] for other in taken)

    def pair(span: Span, found: Iterable[Span]) -> None:
        if any(span[0] < own[1] and own[0] < span[1] for own, _ in pairs):
            return
        place = next((other for other in found if free(other)), None)
        if place is not None:
            pairs.append((span, place))
            taken.add(place)

    for span in sorted(catalogue.spans(source), key=lambda span: span[0] - span[1]):
        value = catalogue.target(source[slice(*span)])
        pair(span, value_spans(target, [value]) if value else [])
    theirs = [(span, _digits(target[slice(*span)])) for span in number_spans(target)]
    for span in number_spans(source):
        pair(span, [other for other, number in theirs if number == _digits(source[slice(*span)])])
    words = [match.span() for match in _WORD.finditer(target) if not is_language(match.group(), target_lang)]
    for match in _WORD.finditer(source) if words else ():
        pair(match.span(), [other for other in words if target[slice(*other)] == match.group()])
    pairs = sorted(pairs)[: len(MARKS)]
    if not pairs:
        return source, target
    marks = {own: MARKS[(first + place) % len(MARKS)] for place, (own, _) in enumerate(pairs)}
    there = sorted((other, marks[own]) for own, other in pairs)
    return (
        _replaced(source, [own for own, _ in pairs], list(marks.values())),
        _replaced(target, [span for span, _ in there], [mark for _, mark in there]),
    )


def has_mark(text: str) -> bool:
    """Return whether a text contains a mark."""
    return _MARK.search(text) is not None


def _replaced(text: str, spans: Sequence[Span], marks: Sequence[str]) -> str:
    parts, at = [], 0
    for (start, end), mark in zip(spans, marks, strict=True):
        parts += [text[at:start], mark]
        at = end
    return "".join([*parts, text[at:]])


def _target(value: str, catalogue: Catalogue) -> str:
    known = catalogue.target(value)
    return value if known is None else known


def _digits(number: str) -> str:
    """Return a number in ASCII digits, whatever the script."""
    return "".join(str(unicodedata.digit(each)) if each.isdigit() else each for each in number)


def _key(value: str) -> str:
    return normalise(value).lower()


def _finder(values: Iterable[str]) -> re.Pattern[str]:
    # re does not count vowel signs as word characters, so a word ends where none of these follows.
    inside = r"[\w\u0300-\u036f\u0900-\u0963\u0966-\u0dff\u200c\u200d]"
    longest = sorted(values, key=lambda value: (-len(value), value))
    return re.compile(rf"(?<!{inside})(?:{'|'.join(map(re.escape, longest))})(?!{inside})", re.IGNORECASE)
