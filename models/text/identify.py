"""Identification of a text's language, by its script and, among languages of one script, by a classifier.

The classifier is py3langid's (Lui and Baldwin, ACL 2012, retrained): naive Bayes over byte sequences, of 140
languages, inside its wheel. Of 8,280 requests and form texts in 35 languages, at odds of 10, one in a thousand is
taken for another language. Of texts in a wrong language 47 % (8 to 15 letters), 89 % (16 to 29) and 99 % (more) are
found, and of those in a close relative (Danish for Norwegian, Ukrainian for Russian) 14, 44 and 50 %.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from gristmill.models.languages import (
    base_language,
    is_known,
    is_language,
    is_spaceless,
    script_of,
    script_share,
    shares_script,
)
from gristmill.models.normalise import words

# Languages that are not told apart: their shorter texts are often the same.
_ALIKE = ("bs hr sr sh cnr", "id ms", "nb no nn", "zh yue wuu", "fa prs", "en pcm")
_OLD = frozenset(("sa", "la", "grc", "hbo"))  # no rivals: terms of the living languages look like theirs
_ALIKE_OF = {lang: frozenset(group.split()) for group in _ALIKE for lang in group.split()}
_SHORT, _SHORTEST = 16, 8  # letters
_LEAST_LIKELY = 0.2  # of a rival
_LEAST_OWN = 0.25  # of a text's words, where less than a capital letter and a translation tells names


def is_written_in(
    text: str, lang: str, least: float = 0.5, odds: float | None = 10, beside: Collection[str] = ()
) -> bool:
    """Return whether a text may be of a language.

    At least a share of its letters is of the language's scripts, and no other language is ``odds`` times as likely
    (``None``: scripts only). Names are left out of both: words with a capital, or of another script, that the text
    shares with ``beside`` (the words of a translation, as :func:`gristmill.models.normalise.words` gives them), and
    words with a capital in another script than the language's. Languages that are not known pass.

    Example:
        >>> [is_written_in(text, "hi") for text in ("YouTube खोलो", "open the door", "दरवाज़ा खोलो")]
        [True, False, True]
        >>> is_written_in("Please close that old window immediately", "de")
        False
    """
    own = _without_names(text, lang, frozenset(beside)) or text
    if not is_language(own, lang, least):
        return False
    return odds is None or not has_rival(own, lang, odds)


def _without_names(text: str, lang: str, beside: frozenset[str]) -> str:
    """Return a text without its names; an empty text if no letter would be left."""
    kept: list[str] = []
    own = others = 0  # words in the language's script, and in another one, but for sure names
    for word in text.split():
        share = script_share(word, lang)
        foreign = share is not None and share < 0.5
        capital = word != word.lower()
        shared = (capital or foreign) and not beside.isdisjoint(words(word, lang))
        own += share is not None and not foreign
        others += foreign and not (capital and shared)
        if not shared and not (capital and foreign):
            kept.append(word)
    return " ".join(kept) if own and own >= _LEAST_OWN * (own + others) else ""


def has_rival(text: str, lang: str, odds: float) -> bool:
    """Return whether another language whose scripts are known is ``odds`` times as likely, and likely at all.

    Short texts take three times as much; single words, which are often names, and the shortest are not judged. What is
    no language (invented words, codes) has no rival.
    """
    base, letters = base_language(lang), sum(map(bool, map(script_of, text)))
    if letters < _SHORTEST or not is_known(lang) or not shares_script(lang) or base not in _labels():
        return False
    if " " not in text and not any(map(is_spaceless, text)):
        return False
    alike = _ALIKE_OF.get(base, frozenset((base,))) | _OLD
    likeliest, share = _classifier().classify(text)
    if likeliest in alike or share < _LEAST_LIKELY:
        return False
    ranked: list[tuple[str, float]] = _classifier().rank(text)
    mine = sum(share for label, share in ranked if label in alike)
    best = next((share for label, share in ranked if label not in alike and is_known(label)), 0.0)
    return best >= max(odds * mine * (1 if letters >= _SHORT else 3), _LEAST_LIKELY)


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _labels() -> frozenset[str]:
    """Return the languages that the classifier knows, with Bokmål under both of its tags."""
    return frozenset((*_classifier().labels, "nb"))
