"""Text normalisation, and splitting into words, of languages with and without spaces between them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from gristmill.models.languages import base_language, is_spaceless, script_of

APOSTROPHES = "'’‘ʼʻʽʾʿ‛′´`＇ꞌ"
"""Signs that are typed for an apostrophe; :func:`plain_apostrophes` makes all of them the first."""
JOINERS = "\u200c\u200d"
"""The zero-width non-joiner and joiner, which :func:`normalise` leaves where spelling needs them."""

_APOSTROPHES = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))
_WITHIN = str.maketrans("", "", APOSTROPHES + "°%")  # characters within a word that leave no space
_DOTLESS = str.maketrans({"I": "ı", "İ": "i"})
_ZERO_WIDTH_SPACE = "\u200b"
_JOINED = re.compile(f"[{JOINERS}]+")
_NON_JOINER, _JOINER = JOINERS[0], JOINERS[1]
_VIRAMA = 9  # the canonical combining class of viramas in all scripts
_CURSIVE = ("ARABIC", "SYRIAC", "MANDAIC", "MONGOLIAN", "NKO", "ADLAM", "HANIFI")  # letters join to the next one
# In these languages र् with a joiner is another letter than without one; in Hindi, joiners are noise of keyboards.
_EYELASH = ("mr", "ne", "kok")
# Characters, with marks, for an English word. In 31 to 338 translated texts of Django's forms, with their Latin names:
# 1.85 in Chinese, 3.0 in Japanese, 5.2 in Thai, 6.0 in Khmer, 6.7 in Burmese.
_PER_WORD = {"CJK": 1.7, "IDEOGRAPHIC": 1.7, "HIRAGANA": 3.5, "KATAKANA": 3.5, "KATAKANA-HIRAGANA": 3.5, "THAI": 5.0}
_PER_WORD_ELSE = 6.0


def normalise(text: str, lang: str = "") -> str:
    """Return a text in Unicode's composed form (NFC), with single spaces and no zero-width character of no meaning.

    Control characters and zero-width spaces are white space. Format characters are removed (byte order marks, soft
    hyphens, direction marks), and so are joiners, unless spelling needs them (after Unicode's rules for identifiers,
    RFC 5892, appendix A): a non-joiner between letters that would join (Persian, Urdu), and any joiner beside a virama
    (Sinhala, Malayalam, Bengali, Kannada). In Devanagari keyboards insert them inconsistently, so that words that look
    alike would differ: there they are kept in languages that spell with them only (Marathi, Nepali, Konkani).

    Example:
        >>> normalise("cafe\\u0301  bar"), normalise("zero\\u200bwidth"), normalise("soft\\u00adhyphen")
        ('café bar', 'zero width', 'softhyphen')
    """
    text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_cleaned, text))
        if _ZERO_WIDTH_SPACE in text:
            text = _words_apart(text)
        # Characters that were separated may compose now.
        text = unicodedata.normalize("NFC", text)
        if _JOINED.search(text):
            text = _JOINED.sub(lambda found: _needed(found, base_language(lang)), text)
    return " ".join(text.split())


@cache
def _cleaned(character: str) -> str:
    if character.isspace() or unicodedata.category(character) == "Cc":
        return " "
    if character in JOINERS or character == _ZERO_WIDTH_SPACE:
        return character
    return "" if unicodedata.category(character) in ("Cf", "Cs", "Co", "Cn") else character


def _words_apart(text: str) -> str:
    """Return a text with spaces for its zero-width spaces, except before a mark, which begins no word."""
    first, *rest = text.split(_ZERO_WIDTH_SPACE)
    return first + "".join(part if unicodedata.category(part[:1] or " ")[0] == "M" else f" {part}" for part in rest)


def _needed(found: re.Match[str], lang: str) -> str:
    """Return the one of some joiners that the spelling needs, or nothing."""
    text, joiners = found.string, found.group()
    before, after = text[max(found.start() - 1, 0) : found.start()], text[found.end() : found.end() + 1]
    if not before:
        return ""
    if unicodedata.combining(before) == _VIRAMA or (after and unicodedata.combining(after) == _VIRAMA):
        return joiners[0] if script_of(before) != "DEVANAGARI" or lang in _EYELASH else ""
    if not script_of(before).startswith(_CURSIVE):
        return ""
    # Within a word only a non-joiner shows; at its end only a joiner does (the Persian abbreviation of "hijri").
    shown = _NON_JOINER if after and script_of(after).startswith(_CURSIVE) else _JOINER
    return shown if shown in joiners else ""


def plain_apostrophes(text: str) -> str:
    """Return a text whose apostrophes, whatever sign was typed for them, are all ``'``.

    Example:
        >>> plain_apostrophes("don’t, doʻkon, l´eau")
        "don't, do'kon, l'eau"
    """
    return text.translate(_APOSTROPHES)


def words(text: str, lang: str = "") -> list[str]:
    """Return the words of a text in lower case, without punctuation and symbols; digits and vowel signs stay.

    ``lang`` matters where lower case (Turkish, Azerbaijani) or joiners (see :func:`normalise`) depend on the language.
    What is written without spaces is not parted.

    Example:
        >>> words("Turn it ON, 20 °C!")
        ['turn', 'it', 'on', '20', 'c']
    """
    text = normalise(text, lang)
    if base_language(lang) in ("tr", "az"):
        text = text.translate(_DOTLESS)
    return "".join(map(_spaced, unicodedata.normalize("NFC", text.lower()).translate(_WITHIN))).split()


@cache
def _spaced(character: str) -> str:
    return " " if unicodedata.category(character)[0] in "PSZ" else character


def length_in_words(found: Iterable[str]) -> float:
    """Return how many English words the words of a text are worth: text without spaces by its characters.

    Example:
        >>> [round(length_in_words(some), 1) for some in (["turn", "on"], ["打开灯"], ["打开wifi"])]
        [2.0, 1.8, 2.2]
    """
    total = 0.0
    for word in found:
        shares = [_share(character) for character in word]
        total += sum(shares) + (0.0 in shares)
    return total


@cache
def _share(character: str) -> float:
    return 1 / _PER_WORD.get(script_of(character), _PER_WORD_ELSE) if is_spaceless(character) else 0.0


def parted(word: str) -> list[str]:
    """Return a word as its signs with their marks where it is written without spaces; any other part stays whole.

    Example:
        >>> parted("light"), parted("开灯"), parted("打开wifi")
        (['light'], ['开', '灯'], ['打', '开', 'wifi'])
    """
    parts: list[str] = []
    for character in word:
        mark = unicodedata.category(character)[0] == "M"
        alone = bool(parts) and is_spaceless(parts[-1][0])
        if parts and (mark or not (is_spaceless(character) or alone)):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def joined(tokens: Iterable[str]) -> str:
    """Return tokens as a text: with a space between them, unless both are written without.

    Example:
        >>> joined(["blue", "river"]), joined(["蓝", "色"]), joined(["打", "开", "wifi"])
        ('blue river', '蓝色', '打开 wifi')
    """
    text = ""
    for token in tokens:
        text += token if not text or (_is_close(text[-1]) and _is_close(token[:1])) else f" {token}"
    return text


def _is_close(character: str) -> bool:
    """Return whether a character leaves no space to its like: it is of a spaceless script, or is its punctuation."""
    return "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uff65" or is_spaceless(character or " ")
