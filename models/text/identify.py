"""Identification of a text's language, by its script and, among languages of one script, by a classifier.

The classifier is py3langid's (Lui and Baldwin, ACL 2012, retrained): naive Bayes over byte sequences, of 140 languages,
inside its wheel. Of 8,280 requests and form texts in 35 languages, at odds of 20 and with at least 16 letters, one in a
thousand is taken for another language, and 96 % of those in a language that is not closely related are found.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from gristmill.models.languages import base_language, is_known, is_language, script_of, script_share, shares_script
from gristmill.models.normalise import words

# Languages that are not told apart: their shorter texts are often the same.
_ALIKE = ("bs hr sr sh cnr", "id ms", "nb no nn", "zh yue wuu", "hi mai bho gom kok doi", "fa prs tg", "en pcm")
_ALIKE_OF = {lang: frozenset(group.split()) for group in _ALIKE for lang in group.split()}
_LEAST_OWN = 0.25  # of a text's words, where capitals alone tell names


def is_written_in(
    text: str, lang: str, least: float = 0.5, odds: float | None = 20, beside: Collection[str] = ()
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
    left_out = 0
    for word in text.split():
        share = script_share(word, lang)
        foreign = share is not None and share < 0.5
        capital = word != word.lower()
        shared = not beside.isdisjoint(words(word, lang))
        if (capital and (foreign or shared)) or (foreign and shared):
            left_out += foreign and not shared
        else:
            kept.append(word)
    own = sum(any(map(script_of, word)) for word in kept)
    return " ".join(kept) if own and own >= _LEAST_OWN * (own + left_out) else ""


def has_rival(text: str, lang: str, odds: float) -> bool:
    """Return whether another language of the same scripts is at least ``odds`` times as likely for a text."""
    base = base_language(lang)
    if not is_known(lang) or not shares_script(lang) or base not in _labels():
        return False
    alike = _ALIKE_OF.get(base, frozenset((base,)))
    ranked = _classifier().rank(text)
    mine = sum(share for label, share in ranked if label in alike)
    best: float = next(share for label, share in ranked if label not in alike)
    return best >= odds * mine


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _labels() -> frozenset[str]:
    """Return the languages that the classifier knows, with Bokmål under both of its tags."""
    return frozenset((*_classifier().labels, "nb"))
