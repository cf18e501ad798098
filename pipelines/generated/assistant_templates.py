"""The templates of ``home-assistant-intents``, grouped by domain and weighted by their number of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gristmill.pipelines.generated.assistant_words import AREAS, FLOORS, NAMES, WORDS, values
from gristmill.shards.errors import UserError

_MOST = 2000.0  # cap on the number of sentences in a template's weight
# The domain of each kind of device, and of the intents that name none.
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


@dataclass(frozen=True)
class Template:
    """A template and its meaning."""

    intent: str
    expression: Any
    kind: str | None  # of device
    here: bool  # it is about the current room

    @property
    def meaning(self) -> tuple[str, str | None, bool]:
        """Its meaning apart from slots; the same in every language."""
        return self.intent, self.kind, self.here


@dataclass(frozen=True)
class Language:
    """The templates of a language: domains with cumulative weights, and the templates of each with theirs."""

    code: str
    rules: Mapping[str, Any]
    lists: Mapping[str, Any]
    domains: Sequence[str]
    weights: np.ndarray
    templates: Mapping[str, tuple[list[Template], np.ndarray]]


@cache
def own_values(lang: str, name: str, kind: str | None) -> tuple[str, ...]:
    """Return the values of a list that the templates leave open; none for a list that they define."""
    if name == "name":
        return values(NAMES[lang][kind]) if kind in NAMES[lang] else ()
    text = {"area": AREAS[lang], "floor": FLOORS[lang], **WORDS[lang]}.get(name)
    return values(text) if text else ()


@cache
def load(lang: str) -> Language:
    """Return the templates of a language."""
    from hassil.intents import Intents
    from home_assistant_intents import get_intents

    given = get_intents(lang)
    if given is None:
        raise UserError(f"lang: home-assistant-intents has no {lang!r}; expected a version of it that does")
    parsed = Intents.from_dict(given)
    rules, lists = parsed.expansion_rules, parsed.slot_lists
    found: dict[str, dict[str, list[tuple[Template, float]]]] = {}
    for name, intent in parsed.intents.items():
        for block in intent.data:
            kinds = _kinds(block)
            for kind in kinds:
                size_of = _Sizes(lang, rules, lists, kind)
                of_domain = found.setdefault(_DOMAIN_OF_KIND[kind] if kind else _domain(name), {})
                for sentence in block.sentences:
                    size = min(size_of(sentence.expression), _MOST)
                    # A block for several kinds that names no device gives the same sentence for each: keep one.
                    if size and (kind == kinds[0] or "name" in sentence.list_names(rules)):
                        here = "area" in block.requires_context
                        template = Template(name, sentence.expression, kind, here)
                        of_domain.setdefault(name, []).append((template, size))
    domains = sorted(domain for domain in found if found[domain])
    return Language(
        lang,
        rules,
        lists,
        domains,
        np.cumsum([_total(found[domain]) ** (1 / 3) for domain in domains]),
        {domain: _weighted(found[domain]) for domain in domains},
    )


def _total(intents: Mapping[str, list[tuple[Template, float]]]) -> float:
    """Return the capped number of sentences of a domain."""
    return min(sum(size for templates in intents.values() for _, size in templates), 20 * _MOST)


def _weighted(intents: Mapping[str, list[tuple[Template, float]]]) -> tuple[list[Template], np.ndarray]:
    """Return the templates of a domain and their cumulative weights.

    Intents within a domain and templates within an intent are weighted by the square root of their number of sentences:
    equal weights would repeat the few sentences of a small one, and with proportional ones the largest would dominate.
    """
    weights = []
    for templates in intents.values():
        roots = np.sqrt([size for _, size in templates])
        weights.append(roots / roots.sum() * np.sqrt(sum(size for _, size in templates)))
    return [template for templates in intents.values() for template, _ in templates], np.cumsum(np.concatenate(weights))


def _kinds(block: Any) -> list[str | None]:
    """Return the kinds of devices that a block of templates is for."""
    kinds = block.slots.get("domain") or block.requires_context.get("domain")
    if kinds is None:
        return [None]
    return [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind in _DOMAIN_OF_KIND]


def _domain(intent: str) -> str:
    return next((domain for part, domain in _DOMAIN_OF_INTENT.items() if part in intent), _GENERAL)


class _Sizes:
    """Counts the sentences of a template; 0 if it refers to a list without words."""

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

        own = own_values(self._lang, name, self._kind)
        known = self._lists.get(name)
        if own:
            return float(len(own))
        if isinstance(known, RangeSlotList):
            return (known.stop - known.start) // known.step + 1.0
        return float(len(known.values)) if isinstance(known, TextSlotList) else 0.0
