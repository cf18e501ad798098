"""Smart-home requests generated from the templates of ``home-assistant-intents``: annotated text, no download needed.

Lower case, numbers as words, no punctuation; English and Hindi. The domain of a text is the kind of device it is about,
so that intents such as "turn on" occur in several domains, as in assistants made of independent parts. Record n depends
only on the seed and n.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.pipelines.generated.assistant_templates import Language, Template, load, own_values
from gristmill.pipelines.generated.assistant_words import AREAS
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import REQUESTS

LANGUAGES = tuple(AREAS)
_VERSION = 1  # of the drawing of requests
_TRIES = 40  # draws for a sentence with exactly the slots given

_Pieces = list[tuple[str, str | None]]  # text, and the slot it fills


class Request(NamedTuple):
    """A request: its tokens, and its slots as (name, start, end) in tokens."""

    tokens: list[str]
    domain: str
    intent: str
    slots: list[tuple[str, int, int]]
    meaning: tuple[str, str | None, bool]  # intent, kind of device, and whether it is about the current room

    @property
    def values(self) -> dict[str, str]:
        """The value of each slot, as text."""
        return {name: " ".join(self.tokens[start:end]) for name, start, end in self.slots}


def check_languages(languages: Sequence[str]) -> None:
    """Raise :class:`UserError` for languages without word lists."""
    unknown = [code for code in languages if code not in LANGUAGES]
    if unknown or not languages:
        raise UserError(f"lang: {unknown or 'none given'}; expected some of {', '.join(LANGUAGES)}")


def identity() -> dict[str, Any]:
    """Return all that decides the requests besides seed and settings."""
    packages = ("home-assistant-intents", "hassil", "unicode-rbnf")
    return {"version": _VERSION, **{name: version(name) for name in packages}}


def requests(
    records: int, languages: Sequence[str] = ("en",), seed: int = 0, rows: int = 2000, start: int = 0
) -> Iterator[pa.Table]:
    """Yield records ``start`` to ``start + records - 1`` as tables (``shards.schema.REQUESTS``) of ``rows`` rows."""
    check_languages(languages)
    draw = RecordRandom(seed, "assistant")
    for first in range(start, start + records, rows):
        ids = [f"assistant/{n:07d}" for n in range(first, min(first + rows, start + records))]
        yield pa.Table.from_pylist([_record(key, draw(key), languages) for key in ids], schema=REQUESTS)


def _record(key: str, rng: np.random.Generator, languages: Sequence[str]) -> dict[str, Any]:
    lang = languages[int(rng.integers(len(languages)))]
    return record(key, sample(rng, lang), lang)


def record(key: str, made: Request, lang: str) -> dict[str, Any]:
    """Return the row (``shards.schema.REQUESTS``) of a request."""
    return {
        "id": key,
        "text": " ".join(made.tokens),
        "tokens": made.tokens,
        "domain": made.domain,
        "intent": made.intent,
        "slots": [
            {"name": name, "value": " ".join(made.tokens[start:end]), "start": start, "end": end}
            for name, start, end in made.slots
        ],
        "lang": lang,
        "label_source": "synthetic",
    }


def sample(rng: np.random.Generator, lang: str, domain: str | None = None) -> Request:
    """Draw one request of a language, from any domain or the given one."""
    language = load(lang)
    if domain is None:
        domain = language.domains[_pick(rng, language.weights)]
    templates, weights = language.templates[domain]
    while True:
        template = templates[_pick(rng, weights)]
        tokens, slots = _words(_Sampler(language, template.kind, rng).expand(template.expression))
        if not any(character.isdigit() for token in tokens for character in token):  # "1/2" cannot be spoken
            return Request(tokens, domain, template.intent, slots, template.meaning)


def say(
    rng: np.random.Generator, lang: str, meaning: tuple[str, str | None, bool], slots: Mapping[str, str]
) -> list[str] | None:
    """Draw the tokens of a sentence with a meaning and exactly these slots; ``None`` if no template gives one."""
    language = load(lang)
    templates = _by_meaning(lang).get(meaning, [])
    for _ in range(_TRIES if templates else 0):
        template = templates[rng.integers(len(templates))]
        sampler = _Sampler(language, template.kind, rng, slots)
        try:
            tokens, filled = _words(sampler.expand(template.expression))
        except LookupError:
            continue
        if sorted(name for name, _, _ in filled) == sorted(slots):
            return tokens
    return None


@cache
def _by_meaning(lang: str) -> dict[tuple[str, str | None, bool], list[Template]]:
    found: dict[tuple[str, str | None, bool], list[Template]] = {}
    for templates, _ in load(lang).templates.values():
        for template in templates:
            found.setdefault(template.meaning, []).append(template)
    return found


def _pick(rng: np.random.Generator, cumulated: np.ndarray) -> int:
    return int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))


def _words(pieces: _Pieces) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Return tokens and slots; adjacent pieces of text are joined ("fan", "s"), a slot is separate from them."""
    tokens: list[str] = []
    slots = []
    beside = ""
    for text, name in [*pieces, ("", "")]:
        if name is None:
            beside += text
            continue
        tokens += spoken(beside).split()
        beside = ""
        words = spoken(text).split()
        if words:
            slots.append((name, len(tokens), len(tokens) + len(words)))
        tokens += words
    return tokens, slots


def spoken(text: str) -> str:
    """Return a text in lower case without punctuation; punctuation within a word leaves no space."""
    text = unicodedata.normalize("NFC", text.lower()).replace("'", "").replace("°", "").replace("%", "")
    return "".join(" " if unicodedata.category(character)[0] in "PS" else character for character in text)


class _Sampler:
    """Draws one expansion of a template, alternatives with equal probability; slots take the given values, if any."""

    def __init__(
        self,
        language: Language,
        kind: str | None,
        rng: np.random.Generator,
        given: Mapping[str, str] | None = None,
    ) -> None:
        self._language, self._kind, self._rng, self._given = language, kind, rng, given

    def expand(self, expression: Any) -> _Pieces:
        from hassil import expression as of

        if isinstance(expression, of.TextChunk):
            return [(expression.original_text, None)]
        if isinstance(expression, of.Alternative):
            return self.expand(expression.items[self._rng.integers(len(expression.items))])
        if isinstance(expression, of.Sequence):
            return [piece for item in expression.items for piece in self.expand(item)]
        if isinstance(expression, of.Permutation):
            order = self._rng.permutation(len(expression.items))
            return [piece for place in order for piece in [(" ", None), *self.expand(expression.items[place])]]
        if isinstance(expression, of.RuleReference):
            return self.expand(self._language.rules[expression.rule_name].expression)
        if isinstance(expression, of.ListReference):
            name = expression.slot_name
            return [(self._value(expression.list_name) if self._given is None else self._given[name], name)]
        raise TypeError(f"unknown kind of template expression: {type(expression).__name__}")

    def _value(self, name: str) -> str:
        from hassil.intents import RangeSlotList

        own = own_values(self._language.code, name, self._kind)
        if own:
            return own[self._rng.integers(len(own))]
        known = self._language.lists[name]
        if isinstance(known, RangeSlotList):
            number = known.start + known.step * int(self._rng.integers((known.stop - known.start) // known.step + 1))
            return number_words(self._language.code, number)
        value = known.values[self._rng.integers(len(known.values))]
        return "".join(text for text, _ in self.expand(value.text_in))


@cache
def number_words(lang: str, number: int) -> str:
    """Return a number spelled out, in lower case without punctuation."""
    from hassil.numbers import get_rbnf_engine

    return spoken(get_rbnf_engine(lang).format_number(number).text_by_ruleset["spellout-cardinal"])


@cache
def shared_values(source: str, target: str) -> dict[str, str]:
    """Return the source language's list values with their counterparts in the target language."""
    known = dict(reversed(list(_listed_values(target))))  # the first of several words for a value
    return {words: known[key] for key, words in _listed_values(source) if key in known}


def _listed_values(lang: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the entries of the templates' own lists: (list, value), and its words."""
    language = load(lang)
    for name, known in language.lists.items():
        for value in getattr(known, "values", ()):
            pieces = _Sampler(language, None, np.random.default_rng(0)).expand(value.text_in)
            yield (name, str(value.value_out)), " ".join(_words(pieces)[0])
