"""Requests to a home, generated from the templates of ``home-assistant-intents``: annotated text, embedded.

Small letters, numbers as words, no punctuation; English and Hindi. A text's domain is the kind of thing it is about,
so that intents such as "turn on" are of several domains, as in assistants that are made of independent parts. Record
n depends on the seed and n alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.assistant_words import AREAS, FLOORS, NAMES, WORDS, values
from shards.errors import UserError
from shards.random import RecordRandom
from shards.schema import REQUESTS

LANGUAGES = tuple(AREAS)
_MOST = 2000.0  # a template that makes more sentences weighs no more
_VERSION = 1  # of how requests are drawn
_TRIES = 40  # draws for one that has just the slots asked for

# The domain of each kind of thing, and of the intents that name none.
_DOMAIN_OF_KIND = {
    "light": "light",
    "switch": "switch",
    "input_boolean": "switch",
    "fan": "fan",
    "media_player": "media",
    "climate": "climate",
    "cover": "cover",
    "valve": "cover",
    "lock": "lock",
    "sensor": "sensor",
    "binary_sensor": "sensor",
    "scene": "scene",
    "script": "scene",
    "button": "scene",
    "input_button": "scene",
    "person": "people",
    "lawn_mower": "cleaning",
    "vacuum": "cleaning",
    "todo": "lists",
    "weather": "weather",
}
_DOMAIN_OF_INTENT = {
    "Climate": "climate",
    "FanSet": "fan",
    "GetWeather": "weather",
    "LawnMower": "cleaning",
    "Vacuum": "cleaning",
    "Media": "media",
    "SetVolume": "media",
    "ShoppingList": "lists",
    "LightSet": "light",
    "Timer": "timer",
}
_GENERAL = "general"
DOMAINS = tuple(sorted({*_DOMAIN_OF_KIND.values(), *_DOMAIN_OF_INTENT.values(), _GENERAL}))

_Pieces = list[tuple[str, str | None]]  # text, and the slot it fills


class Request(NamedTuple):
    """A request: its words, and the slots as (name, start, end) in them."""

    tokens: list[str]
    domain: str
    intent: str
    slots: list[tuple[str, int, int]]
    meaning: tuple[str, str | None, bool]  # intent, kind of things, and whether it is about the room one is in

    @property
    def values(self) -> dict[str, str]:
        """The words of each slot."""
        return {name: " ".join(self.tokens[start:end]) for name, start, end in self.slots}


@dataclass(frozen=True)
class _Template:
    intent: str
    expression: Any
    kind: str | None  # of the things that it names
    here: bool  # it speaks of the room that one is in

    @property
    def meaning(self) -> tuple[str, str | None, bool]:
        """What it says but for its slots; the same in every language."""
        return self.intent, self.kind, self.here


@dataclass(frozen=True)
class _Language:
    """The templates of a language: domains with cumulated weights, and in each its templates with theirs."""

    code: str
    rules: Mapping[str, Any]
    lists: Mapping[str, Any]
    domains: Sequence[str]
    weights: np.ndarray
    templates: Mapping[str, tuple[list[_Template], np.ndarray]]


def check_languages(languages: Sequence[str]) -> None:
    """Refuse languages that there are no words for."""
    unknown = [code for code in languages if code not in LANGUAGES]
    if unknown or not languages:
        raise UserError(f"lang: {unknown or 'none given'}; expected some of {', '.join(LANGUAGES)}")


def identity() -> dict[str, Any]:
    """Return what, beside seed and settings, decides the requests."""
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
    """Draw one request of a language; of any domain, or of the one that is named."""
    language = _load(lang)
    if domain is None:
        domain = language.domains[_pick(rng, language.weights)]
    templates, weights = language.templates[domain]
    while True:
        template = templates[_pick(rng, weights)]
        tokens, slots = _words(_Sampler(language, template.kind, rng).expand(template.expression))
        if not any(sign.isdigit() for token in tokens for sign in token):  # "1/2": nobody says that
            return Request(tokens, domain, template.intent, slots, template.meaning)


def say(
    rng: np.random.Generator, lang: str, meaning: tuple[str, str | None, bool], slots: Mapping[str, str]
) -> list[str] | None:
    """Draw words that say a meaning with just these slots; none where no template of the language does."""
    language = _load(lang)
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
def _by_meaning(lang: str) -> dict[tuple[str, str | None, bool], list[_Template]]:
    found: dict[tuple[str, str | None, bool], list[_Template]] = {}
    for templates, _ in _load(lang).templates.values():
        for template in templates:
            found.setdefault(template.meaning, []).append(template)
    return found


def _pick(rng: np.random.Generator, cumulated: np.ndarray) -> int:
    return int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))


def _words(pieces: _Pieces) -> tuple[list[str], list[tuple[str, int, int]]]:
    """Return tokens and slots; text that stands side by side is one ("fan", "s"), a slot is apart from it."""
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
    """Return a text in small letters without punctuation; the signs within a word leave no space."""
    text = unicodedata.normalize("NFC", text.lower()).replace("'", "").replace("°", "").replace("%", "")
    return "".join(" " if unicodedata.category(sign)[0] in "PS" else sign for sign in text)


class _Sampler:
    """Draws one expansion of a template, every alternative alike; slots take the values given, if any are."""

    def __init__(
        self,
        language: _Language,
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
        raise TypeError(f"a template of an unknown kind: {type(expression).__name__}")

    def _value(self, name: str) -> str:
        from hassil.intents import RangeSlotList

        own = _own_values(self._language.code, name, self._kind)
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
    """Return a number as it is said, in small letters without punctuation."""
    from hassil.numbers import get_rbnf_engine

    return spoken(get_rbnf_engine(lang).format_number(number).text_by_ruleset["spellout-cardinal"])


@cache
def shared_values(source: str, target: str) -> dict[str, str]:
    """Return what the lists of two languages call the same thing."""
    known = dict(reversed(list(_listed_values(target))))  # of two words for a thing the first
    return {words: known[key] for key, words in _listed_values(source) if key in known}


def _listed_values(lang: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Give what the templates' own lists hold: list and value, and the words for it."""
    language = _load(lang)
    for name, known in language.lists.items():
        for value in getattr(known, "values", ()):
            pieces = _Sampler(language, None, np.random.default_rng(0)).expand(value.text_in)
            yield (name, str(value.value_out)), " ".join(_words(pieces)[0])


@cache
def _own_values(lang: str, name: str, kind: str | None) -> tuple[str, ...]:
    """Return the values of a list that the templates leave open; none of one that they give."""
    if name == "name":
        return values(NAMES[lang][kind]) if kind in NAMES[lang] else ()
    text = {"area": AREAS[lang], "floor": FLOORS[lang], **WORDS[lang]}.get(name)
    return values(text) if text else ()


@cache
def _load(lang: str) -> _Language:
    from hassil.intents import Intents
    from home_assistant_intents import get_intents

    given = get_intents(lang)
    if given is None:
        raise UserError(f"lang: home-assistant-intents has no {lang!r}; expected a version of it that has")
    parsed = Intents.from_dict(given)
    rules, lists = parsed.expansion_rules, parsed.slot_lists
    found: dict[str, dict[str, list[tuple[_Template, float]]]] = {}
    for name, intent in parsed.intents.items():
        for block in intent.data:
            kinds = _kinds(block)
            for kind in kinds:
                size_of = _Sizes(lang, rules, lists, kind)
                of_domain = found.setdefault(_DOMAIN_OF_KIND[kind] if kind else _domain(name), {})
                for sentence in block.sentences:
                    size = min(size_of(sentence.expression), _MOST)
                    # Where several kinds are meant and nothing is named, one says the same of all: it is kept once.
                    if size and (kind == kinds[0] or "name" in sentence.list_names(rules)):
                        here = "area" in block.requires_context
                        template = _Template(name, sentence.expression, kind, here)
                        of_domain.setdefault(name, []).append((template, size))
    domains = sorted(domain for domain in found if found[domain])
    return _Language(
        lang,
        rules,
        lists,
        domains,
        np.cumsum([_total(found[domain]) ** (1 / 3) for domain in domains]),
        {domain: _weighted(found[domain]) for domain in domains},
    )


def _total(intents: Mapping[str, list[tuple[_Template, float]]]) -> float:
    """Return how many sentences a domain makes, as far as they count."""
    return min(sum(size for templates in intents.values() for _, size in templates), 20 * _MOST)


def _weighted(intents: Mapping[str, list[tuple[_Template, float]]]) -> tuple[list[_Template], np.ndarray]:
    """Return the templates of a domain and their cumulated weights.

    Both an intent among those of its domain and a template among those of its intent weigh by the square root of how
    many sentences they make: even weights would say the few of a small one again and again, and with the numbers
    themselves the largest would be nearly all.
    """
    weights = []
    for templates in intents.values():
        roots = np.sqrt([size for _, size in templates])
        weights.append(roots / roots.sum() * np.sqrt(sum(size for _, size in templates)))
    return [template for templates in intents.values() for template, _ in templates], np.cumsum(np.concatenate(weights))


def _kinds(block: Any) -> list[str | None]:
    """Return the kinds of things that a block of templates is for."""
    told = block.slots.get("domain") or block.requires_context.get("domain")
    if told is None:
        return [None]
    return [kind for kind in ([told] if isinstance(told, str) else told) if kind in _DOMAIN_OF_KIND]


def _domain(intent: str) -> str:
    return next((domain for part, domain in _DOMAIN_OF_INTENT.items() if part in intent), _GENERAL)


class _Sizes:
    """Counts the sentences that a template makes; 0 where it names what there are no words for."""

    def __init__(self, lang: str, rules: Mapping[str, Any], lists: Mapping[str, Any], kind: str | None) -> None:
        self._lang, self._rules, self._lists, self._kind = lang, rules, lists, kind

    def __call__(self, expression: Any) -> float:
        from hassil.expression import Alternative, Group, ListReference, RuleReference

        if isinstance(expression, Alternative):
            sizes = [self(item) for item in expression.items]
            return float(sum(sizes)) if all(sizes) else 0.0
        if isinstance(expression, Group):
            return float(np.prod([self(item) for item in expression.items]))
        if isinstance(expression, RuleReference):
            rule = self._rules.get(expression.rule_name)
            return self(rule.expression) if rule else 0.0
        if isinstance(expression, ListReference):
            return self._list(expression.list_name)
        return 1.0

    def _list(self, name: str) -> float:
        from hassil.intents import RangeSlotList, TextSlotList

        own = _own_values(self._lang, name, self._kind)
        known = self._lists.get(name)
        if own:
            return float(len(own))
        if isinstance(known, RangeSlotList):
            return (known.stop - known.start) // known.step + 1.0
        return float(len(known.values)) if isinstance(known, TextSlotList) else 0.0
