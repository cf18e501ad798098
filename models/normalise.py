"""Text normalisation, splitting into words, and identification of scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

import langcodes

# The scripts of a language, as the prefixes of their characters' Unicode names; other languages are unknown.
_LATIN = "af ca cs cy da de en es et eu fi fr ga gl hr hu id is it lb lt lv ms mt nb nl nn no pl pt ro sk sl sq sv sw"
_SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(f"{_LATIN} tl tr uz vi az".split(), ("LATIN",)),
    **dict.fromkeys(("hi", "mr", "ne", "sa", "kok", "mai", "bho", "doi"), ("DEVANAGARI",)),
    **dict.fromkeys(("ru", "uk", "bg", "be", "mk", "kk", "ky", "mn"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ur", "ps", "ug"), ("ARABIC",)),
    **dict.fromkeys(("bn", "as"), ("BENGALI",)),
    **dict.fromkeys(("he", "yi"), ("HEBREW",)),
    "am": ("ETHIOPIC",),
    "el": ("GREEK",),
    "gu": ("GUJARATI",),
    "hy": ("ARMENIAN",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "ka": ("GEORGIAN",),
    "km": ("KHMER",),
    "kn": ("KANNADA",),
    "ko": ("HANGUL", "CJK"),
    "lo": ("LAO",),
    "ml": ("MALAYALAM",),
    "my": ("MYANMAR",),
    "or": ("ORIYA",),
    "pa": ("GURMUKHI",),
    "si": ("SINHALA",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "th": ("THAI",),
    "zh": ("CJK",),
}
_WITHIN = str.maketrans("", "", "'’ʼ°%")  # characters within a word that leave no space
_DOTLESS = str.maketrans({"I": "ı", "İ": "i"})


def normalise(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), with single spaces and without zero-width characters.

    Format characters are removed (byte order marks, soft hyphens, zero-width joiners and non-joiners: keyboards insert
    them into Devanagari inconsistently, so words that look alike would differ); control characters are white space.

    Example:
        >>> normalise("cafe\\u0301  bar")
        'café bar'
    """
    text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_cleaned, text))
        text = unicodedata.normalize("NFC", text)  # characters that were separated may compose now
    return " ".join(text.split())


@cache
def _cleaned(character: str) -> str:
    if character.isspace() or unicodedata.category(character) == "Cc":
        return " "
    return "" if unicodedata.category(character) in ("Cf", "Cs", "Co", "Cn") else character


def words(text: str, lang: str = "") -> list[str]:
    """Return the words of a text in lower case, without punctuation and symbols; digits and vowel signs stay.

    ``lang`` matters where lower case depends on the language (Turkish, Azerbaijani).

    Example:
        >>> words("Turn it ON, 20 °C!")
        ['turn', 'it', 'on', '20', 'c']
    """
    text = normalise(text)
    if base_language(lang) in ("tr", "az"):
        text = text.translate(_DOTLESS)
    return "".join(map(_spaced, unicodedata.normalize("NFC", text.lower()).translate(_WITHIN))).split()


@cache
def _spaced(character: str) -> str:
    return " " if unicodedata.category(character)[0] in "PSZ" else character


@cache
def base_language(lang: str) -> str:
    """Return the language of a tag, in two letters where it has them (``hi`` of ``hi-IN``, ``hi_IN`` and ``hin``)."""
    first = re.split("[-_@.]", lang, maxsplit=1)[0].lower()
    try:
        return langcodes.Language.get(first, normalize=True).language or first
    except langcodes.LanguageTagError:
        return first


def is_known(lang: str) -> bool:
    """Return whether the scripts of a language are known."""
    return base_language(lang) in _SCRIPTS


def letters_of(texts: Iterable[str], lang: str) -> int:
    """Return the number of distinct letters in texts that are of a script of a known language."""
    known = _SCRIPTS[base_language(lang)]
    return sum(_script(character) in known for character in set().union(*texts))


def script_share(text: str, lang: str) -> float | None:
    """Return the share of a text's letters that are of a script of its language, from 0 to 1.

    ``None`` for a text without letters, or a language whose scripts are not known here.
    """
    known = _SCRIPTS.get(base_language(lang))
    if known is None:
        return None
    scripts = [script for character in text if (script := _script(character))]
    return sum(script in known for script in scripts) / len(scripts) if scripts else None


def is_language(text: str, lang: str, least: float = 0.5) -> bool:
    """Return whether a text may be of a language: at least a share of its letters is of the language's scripts.

    ``False`` for a text without letters; unknown languages pass.

    Example:
        >>> is_language("नमस्ते", "hi"), is_language("hello", "hi")
        (True, False)
    """
    if not is_known(lang):
        return True
    share = script_share(text, lang)
    return share is not None and share >= least


@cache
def _script(character: str) -> str:
    """Return the script of a letter or vowel sign; an empty string for other characters."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    first = unicodedata.name(character, "").partition(" ")[0]
    return "" if first in ("", "COMBINING", "MODIFIER", "FEMININE", "MASCULINE") else first
