"""The units of an utterance: what of its words is compared with those of another wording.

Recognisers write "five a m", users type "5am" and annotators "five am". So tokens are cut where letters, digits and
signs meet; number words become digits (by ``text2num``, for the languages that it knows; of others words are compared
as they are); months are their numbers; and single letters, the parts of a compound or of a number ("twenty
seventeen", "one oh two") are joined where the other wording has them as one. A unit knows the tokens that it is made
of, so that a label can follow.
"""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from gristmill.models.measures.wer import distance
from gristmill.shards.errors import UserError

NUMBER_LANGUAGES = ("en", "fr", "es", "pt", "de", "nl", "da", "it")  # of text2num
# The vowel signs of many scripts are marks, which ``re`` takes for no part of a word.
_MARKS = "".join(one for one in map(chr, range(0x300, 0x3100)) if unicodedata.category(one)[0] == "M")
_LETTERS = rf"(?:[^\W\d_][{_MARKS}]*)+"
_PIECE = re.compile(
    rf"\d+(?:[.:,]\d+)*(?:st|nd|rd|th)?(?![^\W_])|\d+(?:[.:,]\d+)*|{_LETTERS}(?:['’]{_LETTERS})*|[%$€£@&]"
)
_SIGNS = {"%": "percent", "$": "dollars", "€": "euros", "£": "pounds", "@": "at", "&": "and"}
_NUMBER = re.compile(r"(\d+(?:[.:,]\d+)*)(?:st|nd|rd|th)?")
_MONTHS = {name.lower(): str(number) for number, name in enumerate(calendar.month_name) if name}
_MOST_JOINED = 6  # units
_JOINED_ALIKE = 0.8  # edit similarity of joined units and one unit, and how much it is above that of any of them
_BETTER = 0.15
_SPOKEN = {"oh": "0", "o": "0"}


class WordUnit(NamedTuple):
    """A part of an utterance: its compared ``form``, and its tokens from ``start`` up to and excluding ``end``."""

    form: str
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        """Whether the unit is a number: numbers are equal or not, never alike."""
        return self.form[:1].isdigit()


def read_units(tokens: Sequence[str], lang: str = "en") -> list[WordUnit]:
    """Return the units of tokens, in their order; a token of several parts ("10am") gives several.

    Example:
        >>> [unit.form for unit in read_units(["wake", "me", "at", "twenty", "five", "past", "10am"])]
        ['wake', 'me', 'at', '25', 'past', '10', 'am']
        >>> [tuple(unit) for unit in read_units(["june", "21st"])]
        [('june', 0, 1), ('21', 1, 2)]
    """
    found = []
    for place, token in enumerate(tokens):
        for piece in _PIECE.findall(token.lower().replace("’", "'")):
            found.append(WordUnit(_SIGNS.get(piece, piece), place, place + 1))
    return [_plain(unit) for unit in _with_numbers(found, lang)]


def join_units(own: Sequence[WordUnit], other: Sequence[WordUnit], borders: Sequence[int] = ()) -> list[WordUnit]:
    """Return units of which neighbours are joined where that gives a unit of the other wording.

    No join is made over one of the ``borders``, places of tokens: a slot and what is beside it stay apart.

    Example:
        >>> other = read_units(["usd", "on", "3/2/2017"])
        >>> [one.form for one in join_units(read_units("u s d on 3 2 twenty seventeen".split()), other)]
        ['usd', 'on', '3', '2', '2017']
    """
    wanted = [unit.form for unit in other if len(unit.form) > 1]
    there = set(wanted)
    made: list[WordUnit] = []
    place = 0
    while place < len(own):
        size = next((n for n in _sizes(own, place, borders) if _joined(own[place : place + n], wanted, there)), 1)
        part = own[place : place + size]
        form = part[0].form if size == 1 else _form(part)
        made.append(WordUnit(form, part[0].start, part[-1].end))
        place += size
    return made


def number_form(text: str) -> str | None:
    """Return the digits of a number by which it is compared, or ``None`` of what is no number.

    Full hours are the hour, and signs inside do not count: "10:00" is ten, and "8:30" is "eight thirty" and "830".

    Example:
        >>> [number_form(one) for one in ("10:00", "8:30", "21st", "007", "99.9", "ten")]
        ['10', '830', '21', '7', '999', None]
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"\D", "", re.sub(r":00$", "", match[1]))
    return digits.lstrip("0") or "0"


@lru_cache(1 << 17)  # words of requests come again and again
def similarity(left: str, right: str, least: float = 0.5) -> float:
    """Return how alike two forms are, 0 to 1: 1 less their normalised edit distance, 0 if that is below ``least``.

    Numbers are equal or not at all, and so are short words (three letters or fewer).

    Example:
        >>> similarity("kitchen", "kitchens"), similarity("15", "50"), similarity("8", "800")
        (0.875, 0.0, 1.0)
    """
    if left == right:
        return 1.0
    one, other = left[:1].isdigit(), right[:1].isdigit()
    if one and other:
        return float(_hundreds(left) == _hundreds(right))
    if one or other:
        return float(_MONTHS.get(left, left) == _MONTHS.get(right, right))
    longest = max(len(left), len(right))
    if min(len(left), len(right)) <= 3 or abs(len(left) - len(right)) > (1 - least) * longest:
        # "facebook's" and "facebook", "mr" and "mr.": an ending is no other word.
        return 0.9 if left.removesuffix("'s") == right.removesuffix("'s") else 0.0
    alike = 1 - distance(left, right) / longest
    return alike if alike >= least else 0.0


def _hundreds(digits: str) -> str:
    # "eight hundred" is said of 8:00, "one thousand three hundred" of 13:00.
    return digits[:-2] if len(digits) in (3, 4) and digits.endswith("00") else digits


def _plain(unit: WordUnit) -> WordUnit:
    number = number_form(unit.form)
    if number is not None:
        return unit._replace(form=number)
    return unit


class _Word(NamedTuple):
    word: str

    def text(self) -> str:
        return self.word

    def nt_separated(self, previous: _Word) -> bool:
        return False

    def not_a_number_part(self) -> bool:
        return not self.word.isalpha()


def _with_numbers(units: list[WordUnit], lang: str) -> list[WordUnit]:
    """Return the units with their number words as digits."""
    if lang not in NUMBER_LANGUAGES or not units:
        return units
    try:
        from text_to_num import find_numbers  # a compiled module
    except ImportError:
        raise UserError("numbers: text2num is not installed; expected it: pip install text2num") from None
    made, after = [], 0
    for found in find_numbers([_Word(unit.form) for unit in units], lang, 0):
        # "and" and "point" are inside a number only.
        made += units[after : found.start]
        made.append(WordUnit(found.text, units[found.start].start, units[found.end - 1].end))
        after = found.end
    made += units[after:]
    return [
        unit._replace(form=_SPOKEN[unit.form]) if unit.form in _SPOKEN and _beside_number(made, place) else unit
        for place, unit in enumerate(made)
    ]


def _beside_number(units: Sequence[WordUnit], place: int) -> bool:
    beside = [units[n] for n in (place - 1, place + 1) if 0 <= n < len(units)]
    return any(unit.is_number for unit in beside)


def _sizes(own: Sequence[WordUnit], place: int, borders: Sequence[int]) -> range | list[int]:
    """Return the numbers of units that may be joined from a place on, most first."""
    last = min(len(own), place + _MOST_JOINED)
    end = next((n for n in range(place + 1, last) if own[n].start in borders), last)
    return range(end - place, 1, -1)


def _joined(part: Sequence[WordUnit], wanted: Sequence[str], there: set[str]) -> bool:
    form = _form(part)
    if form in there:
        return True
    if any(unit.is_number for unit in part):
        return False
    if any(unit.form in there for unit in part):
        return False
    best = max((similarity(form, one, _JOINED_ALIKE) for one in wanted if len(one) > 2), default=0.0)
    if best <= _BETTER:
        return False
    each = max((similarity(unit.form, one) for unit in part for one in wanted), default=0.0)
    return best > each + _BETTER


def _form(part: Sequence[WordUnit]) -> str:
    return "".join(unit.form for unit in part)
