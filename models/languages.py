"""Languages: their tags and English names, their scripts, and which scripts leave no space between words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# The scripts of a language, as the prefixes of their characters' Unicode names; other languages are unknown.
_LATIN = "af ca cs cy da de en es et eu fi fr ga gl hr hu id is it lb lt lv ms mt nb nl nn pl pt ro sk sl sq sv sw"
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
    "ja": ("CJK", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KATAKANA-HIRAGANA"),
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
    "zh": ("CJK", "IDEOGRAPHIC"),
}
# Catalogues and spreadsheets name languages in English: "Language: Hindi", a column "hindi".
_NAMES: dict[str, str] = dict(
    re.findall(
        r"(\w+)=(\w+)",
        "afrikaans=af|albanian=sq|amharic=am|arabic=ar|armenian=hy|assamese=as|azerbaijani=az|bangla=bn|basque=eu|"
        "belarusian=be|bengali=bn|bhojpuri=bho|bokmal=nb|bokmål=nb|bulgarian=bg|burmese=my|catalan=ca|chinese=zh|"
        "croatian=hr|czech=cs|danish=da|dogri=doi|dutch=nl|english=en|estonian=et|farsi=fa|filipino=fil|finnish=fi|"
        "french=fr|galician=gl|georgian=ka|german=de|greek=el|gujarati=gu|hebrew=he|hindi=hi|hungarian=hu|"
        "icelandic=is|indonesian=id|irish=ga|italian=it|japanese=ja|kannada=kn|kazakh=kk|khmer=km|konkani=kok|"
        "korean=ko|kyrgyz=ky|lao=lo|latvian=lv|lithuanian=lt|luxembourgish=lb|macedonian=mk|maithili=mai|malay=ms|"
        "malayalam=ml|maltese=mt|mandarin=zh|marathi=mr|mongolian=mn|nepali=ne|norwegian=nb|nynorsk=nn|odia=or|"
        "oriya=or|panjabi=pa|pashto=ps|persian=fa|polish=pl|portuguese=pt|punjabi=pa|romanian=ro|russian=ru|"
        "sanskrit=sa|serbian=sr|sinhala=si|sinhalese=si|slovak=sk|slovenian=sl|spanish=es|swahili=sw|swedish=sv|"
        "tagalog=fil|tamil=ta|telugu=te|thai=th|turkish=tr|ukrainian=uk|urdu=ur|uyghur=ug|uzbek=uz|vietnamese=vi|"
        "welsh=cy|yiddish=yi",
    )
)
_SAME = {"no": "nb"}  # "no" is written for Bokmål, as it was before Nynorsk had a tag of its own
_SPACELESS = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # no space between words


@cache
def base_language(lang: str) -> str:
    """Return the language of a tag or an English name, in two letters where it has them.

    Example:
        >>> [base_language(tag) for tag in ("hi-IN", "hi_IN", "hin", "Hindi", "no", "Norwegian Bokmål")]
        ['hi', 'hi', 'hi', 'hi', 'nb', 'nb']
    """
    first = re.split("[-_@.]", lang.strip(), maxsplit=1)[0].lower()
    named = [
        _NAMES[word] for word in re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", lang.lower())) if word in _NAMES
    ]
    if named and not _tag(first):
        return named[-1]
    return _tag(first) or first


def _tag(first: str) -> str | None:
    """Return the language that the first part of a tag stands for; ``None`` if there is no such tag."""
    if not re.fullmatch("[a-z]{2,3}", first):
        return None
    import langcodes  # which takes a tenth of a second

    try:
        found = langcodes.Language.get(first, normalize=True).language or first
    except langcodes.LanguageTagError:
        return None
    return _SAME.get(found, found)


def is_tag(lang: str) -> bool:
    """Return whether a text is formed like the tag of a language, or is a name that is known here."""
    base = base_language(lang)
    return bool(re.fullmatch("[a-z]{2,3}", base))


def exists(lang: str) -> bool:
    """Return whether a tag or an English name is that of a language there is.

    Example:
        >>> exists("hi-IN"), exists("Hindi"), exists("xx"), exists("klingonese")
        (True, True, False, False)
    """
    import langcodes

    return is_tag(lang) and langcodes.Language.get(base_language(lang)).is_valid()


def tags_of(lang: str) -> list[str]:
    """Return the tags under which text of a language may be found, as given first.

    Example:
        >>> tags_of("no"), tags_of("pt-BR")
        (['no', 'nb'], ['pt-BR', 'pt'])
    """
    base = base_language(lang)
    return list(dict.fromkeys([lang, base, *(old for old, new in _SAME.items() if new == base)]))


def is_known(lang: str) -> bool:
    """Return whether the scripts of a language are known."""
    return base_language(lang) in _SCRIPTS


@cache
def shares_script(lang: str) -> bool:
    """Return whether other languages, known or not, are written in the scripts of a known language."""
    own = _SCRIPTS[base_language(lang)]
    return (
        own[0] in ("LATIN", "CYRILLIC", "ARABIC", "HEBREW", "ETHIOPIC")
        or sum(bool(set(own) & set(other)) for other in _SCRIPTS.values()) > 1
    )


def letters_of(texts: Iterable[str], lang: str) -> int:
    """Return the number of distinct letters in texts that are of a script of a known language."""
    known = _SCRIPTS[base_language(lang)]
    return sum(script_of(character) in known for character in set().union(*texts))


def script_share(text: str, lang: str) -> float | None:
    """Return the share of a text's letters that are of a script of its language, from 0 to 1.

    ``None`` for a text without letters, or a language whose scripts are not known here.
    """
    known = _SCRIPTS.get(base_language(lang))
    if known is None:
        return None
    scripts = [script for character in text if (script := script_of(character))]
    return sum(script in known for script in scripts) / len(scripts) if scripts else None


def is_language(text: str, lang: str, least: float = 0.5) -> bool:
    """Return whether a text may be of a language: at least a share of its letters is of the language's scripts.

    Numbers are of every language; a text without letters and digits is of none; unknown languages pass.

    Example:
        >>> is_language("नमस्ते", "hi"), is_language("hello", "hi"), is_language("७:३०", "hi"), is_language("!", "hi")
        (True, False, True, False)
    """
    if not is_known(lang):
        return True
    share = script_share(text, lang)
    if share is None:
        return any(map(str.isdecimal, text))
    return share >= least


@cache
def script_of(character: str) -> str:
    """Return the script of a letter or vowel sign, as in its Unicode name; an empty string for other characters."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    first = unicodedata.name(character, "").partition(" ")[0]
    return "" if first in ("", "COMBINING", "MODIFIER", "FEMININE", "MASCULINE") else first


@cache
def is_spaceless(character: str) -> bool:
    """Return whether a letter or vowel sign is of a script that is written without spaces between words."""
    return script_of(character).startswith(_SPACELESS)
